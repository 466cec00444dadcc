internal import FlashInferCore
internal import Synchronization

/// Where cubins come from: a bundle, the disk cache, or the compiler, in this order.
package final class CubinSource: Sendable {
    private let compiler: KernelCompiler
    private let driverVersion: Int?
    private let environment: CUDAEnvironment
    private let nvrtc = Mutex<NVRTC?>(nil)

    package init(
        compiler: KernelCompiler = KernelCompiler(), driverVersion: Int?, environment: CUDAEnvironment = .current
    ) {
        self.compiler = compiler
        self.driverVersion = driverVersion
        self.environment = environment
    }

    /// The machine code of a spec.
    package func cubin(for spec: KernelSpec, architecture: Architecture) throws(FlashInferError) -> [UInt8] {
        try compiler.compile(spec, architecture: architecture, with: try loadedNVRTC()).cubin
    }

    private func loadedNVRTC() throws(FlashInferError) -> NVRTC {
        try nvrtc.withLock { (kept) throws(FlashInferError) in
            if let kept { return kept }
            let fresh = try NVRTC(driverVersion: driverVersion, environment: environment)
            kept = fresh
            return fresh
        }
    }
}
