#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#elseif canImport(Darwin)
    internal import Darwin
#endif

/// The environment variables that the CUDA backend looks at: all of them, here and in Docs/cuda.md.
package struct CUDAEnvironment: Sendable {
    /// `FLASHINFER_NVRTC`: the NVRTC library's file.
    package var nvrtc: String?
    /// `FLASHINFER_NCCL`: the NCCL library's file.
    package var nccl: String?
    /// `FLASHINFER_BUNDLE`: a bundle of cubins.
    package var bundle: String?
    /// `FLASHINFER_CACHE`: the folder of compiled kernels.
    package var cache: String?
    /// `FLASHINFER_KERNEL_TEXTS`: a folder whose kernel texts stand in for those that ship.
    package var kernelTexts: String?
    /// `HOME`, `XDG_CACHE_HOME`, `VIRTUAL_ENV`, `CONDA_PREFIX`, `CUDA_HOME`, `CUDA_PATH`: where things usually are.
    package var home: String?
    package var cacheHome: String?
    package var prefixes: [String] = []
    package var toolkits: [String] = []
    /// `PATH`, in folders: where Python is.
    package var path: [String] = []

    /// Nothing set: for tests.
    package init() {}

    /// What this process was started with.
    package static var current: CUDAEnvironment {
        func value(_ name: String) -> String? {
            guard let text = getenv(name), text[0] != 0 else { return nil }
            return String(cString: text)
        }
        var environment = CUDAEnvironment()
        environment.nvrtc = value("FLASHINFER_NVRTC")
        environment.nccl = value("FLASHINFER_NCCL")
        environment.bundle = value("FLASHINFER_BUNDLE")
        environment.cache = value("FLASHINFER_CACHE")
        environment.kernelTexts = value("FLASHINFER_KERNEL_TEXTS")
        environment.home = value("HOME")
        environment.cacheHome = value("XDG_CACHE_HOME")
        environment.prefixes = ["VIRTUAL_ENV", "CONDA_PREFIX"].compactMap(value)
        environment.toolkits = ["CUDA_HOME", "CUDA_PATH"].compactMap(value)
        environment.path = (value("PATH") ?? "").split(separator: ":").map(String.init)
        return environment
    }
}
