package import CCUDA
package import FlashInferCore

/// NVIDIA's library of collectives between GPUs: its table of functions, and its statuses as typed errors.
package final class NCCL: @unchecked Sendable {
    // Unchecked because C function pointers have no sendability; the table never changes and the library is thread-safe.

    /// The library's functions.
    package let functions: fi_nccl_table
    /// Where it was found.
    package let path: String
    /// 22703 is 2.27.3.
    package let version: Int

    /// A library of these functions: this machine's, or a test's stand-in for one.
    ///
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` where it is older than 2.14.
    package init(functions: fi_nccl_table, path: String) throws(FlashInferError) {
        self.functions = functions
        self.path = path
        var found: Int32 = 0
        let status = functions.ncclGetVersion(&found)
        version = Int(found)
        try check(status, "ncclGetVersion")
        guard version >= 21_400 else {
            throw .deviceFailure(
                call: path, message: "NCCL \(version) is too old, 2.14 or later is needed; \(Self.help)")
        }
    }

    private static let help =
        "several GPUs need it: install it with 'pip install nvidia-nccl-cu13' (or -cu12), or name its file in FLASHINFER_NCCL"

    /// The files that the library may be in, the best first.
    package static func candidates(environment: CUDAEnvironment = .current) -> [String] {
        environment.nccl.map { [$0] }
            ?? LibraryPlaces.toolkit(
                names: ["libnccl.so.2"], wheels: ["nccl/lib", "cu13/lib"], environment: environment)
    }

    /// Loads the first of some files.
    ///
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` that says what was looked for and what to install.
    package static func load(candidates: [String] = NCCL.candidates()) throws(FlashInferError) -> NCCL {
        let library = try DynamicLibrary("NCCL", candidates: candidates, help: "S" + help.dropFirst())
        var functions = fi_nccl_table()
        try library.fill(&functions, fi_nccl_symbols(), help: "S" + help.dropFirst())
        return try NCCL(functions: functions, path: library.path)
    }

    /// Throws what a status stands for, unless it is success.
    package func check(
        _ status: fi_nccl_status, _ call: StaticString, _ communicator: fi_nccl_communicator = 0
    ) throws(FlashInferError) {
        if status != 0 { throw error(status, call, communicator) }
    }

    /// A status in the library's own words.
    @inline(never)
    package func error(
        _ status: fi_nccl_status, _ call: StaticString, _ communicator: fi_nccl_communicator = 0
    ) -> FlashInferError {
        var text = functions.ncclGetErrorString(status).map { String(cString: $0) } ?? "unknown status"
        if let detail = functions.ncclGetLastError?(communicator).map({ String(cString: $0) }), !detail.isEmpty {
            text += "; \(detail)"
        }
        return .deviceFailure(call: "\(call)", message: "\(text) (\(status))")
    }
}
