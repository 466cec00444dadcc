public import FlashInferCore

extension CUDADevice {
    /// Enqueues an operation.
    public func execute(_ operation: Operation) throws(FlashInferError) {
        switch operation {
        case .attention: throw noKernel("attention")
        case .mergeStates: throw noKernel("merging states")
        case .rmsNorm: throw noKernel("RMS normalisation")
        case .rope: throw noKernel("RoPE")
        case .gatedActivation: throw noKernel("gated activations")
        case .add: throw noKernel("addition")
        case .convert: throw noKernel("conversion")
        case .embedding: throw noKernel("embedding")
        case .softmax: throw noKernel("softmax")
        case .argmax: throw noKernel("argmax")
        case .logProbability: throw noKernel("log-probabilities")
        case .sample: throw noKernel("sampling")
        case .appendKV: throw noKernel("cache append")
        case .copyPages: throw noKernel("page copies")
        case .linear(let operation): try execute(operation)
        }
    }

    /// An operation that has no kernel here.
    func noKernel(_ operation: String) -> FlashInferError {
        .unsupported(operation, device: name, nearest: "the same operation on the CPU")
    }
}
