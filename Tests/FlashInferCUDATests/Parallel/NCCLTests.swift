import CCUDA
import FlashInfer
import FlashInferCUDA
import Foundation
import TestSupport
import Testing

/// What can be known of NCCL without several GPUs: where it is looked for, and what is said where it is not.
@Suite struct NCCLTests {
    /// What is said where a library cannot be loaded.
    private func complaint(_ file: String) -> String {
        do { return "loaded \(try NCCL.load(candidates: [file]).path)" } catch { return "\(error)" }
    }

    @Test func whatIsMissingIsSaid() {
        let text = complaint("/nowhere/libnccl.so.2")
        #expect(text.hasPrefix("loading NCCL failed: not found"))
        #expect(text.contains("pip install nvidia-nccl-cu13") && text.contains("FLASHINFER_NCCL"))
    }

    @Test func aLibraryThatIsNoNCCLNamesTheFunction() {
        // The C library is there on every system that dlopen is.
        #expect(complaint("libc.so.6").contains("it has no function ncclGetVersion"))
    }

    @Test func theVariableComesFirst() {
        var environment = CUDAEnvironment()
        environment.nccl = "/opt/own/libnccl.so.2"
        #expect(NCCL.candidates(environment: environment) == ["/opt/own/libnccl.so.2"])
        environment.nccl = nil
        environment.prefixes = ["/usr"]
        #expect(NCCL.candidates(environment: environment).first == "libnccl.so.2")
    }

    @Test func anOldVersionIsRefused() {
        var table = fi_nccl_table()
        table.ncclGetVersion = { version in
            version.pointee = 21_000
            return 0
        }
        table.ncclGetErrorString = { _ in nil }
        #expect(throws: FlashInferError.self) { _ = try NCCL(functions: table, path: "test") }
    }

    @Test func statusesAreInTheLibrarysWords() throws {
        var table = fi_nccl_table()
        table.ncclGetVersion = { version in
            version.pointee = 22_703
            return 0
        }
        table.ncclGetErrorString = { _ in UnsafePointer(strdup("unhandled system error")) }
        table.ncclGetLastError = { _ in UnsafePointer(strdup("no route to host")) }
        let library = try NCCL(functions: table, path: "test")
        #expect(
            library.error(2, "ncclAllGather")
                == .deviceFailure(call: "ncclAllGather", message: "unhandled system error; no route to host (2)"))
    }
}
