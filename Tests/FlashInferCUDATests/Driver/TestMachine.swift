import CCUDA
import FlashInferCUDA
import Testing

/// What the machine that runs the tests has, so that tests that need more say so instead of passing.
enum TestMachine {
    /// The first GPU, shared by the tests that need one; nil where there is none that kernels can be had for.
    static let gpu: CUDADevice? = {
        guard let device = try? CUDADevice(), (try? device.requireKernels()) != nil else { return nil }
        return device
    }()

    /// The compiler, where there is one.
    static let nvrtc: NVRTC? = try? NVRTC()

    static var hasGPU: Bool { gpu != nil }
    static var hasCompiler: Bool { nvrtc != nil }

    static let needsGPU: Comment = "needs a GPU with NVRTC or a bundle; 'flashinfer doctor' says what is missing"
    static let needsCompiler: Comment = "needs NVRTC: pip install nvidia-cuda-nvrtc, or FLASHINFER_NVRTC"
}
