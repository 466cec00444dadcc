public import FlashInferCore

extension CUDADevice {
    /// The tiles of the attention kernels.
    public func kernelTraits(for problem: AttentionProblem) throws(FlashInferError) -> KernelTraits {
        throw noKernel("attention")
    }
}
