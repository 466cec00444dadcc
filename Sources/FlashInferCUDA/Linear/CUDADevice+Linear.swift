public import FlashInferCore

extension CUDADevice {
    /// Puts weights on the device.
    public func makeWeights(_ parts: [WeightRows]) throws(FlashInferError) -> any DeviceWeights {
        throw noKernel("matrix products")
    }
}
