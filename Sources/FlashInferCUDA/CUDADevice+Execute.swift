public import FlashInferCore

extension CUDADevice {
    /// Enqueues an operation.
    public func execute(_ operation: Operation) throws(FlashInferError) {
        try queue.gate.inside { () throws(FlashInferError) in try enqueue(operation) }
    }

    /// Enqueues attention.
    public func execute(attention operation: AttentionOperation) throws(FlashInferError) {
        try queue.gate.inside { () throws(FlashInferError) in try execute(operation) }
    }

    /// Enqueues an operation, or a part of one, from inside the queue's gate.
    func enqueue(_ operation: Operation) throws(FlashInferError) {
        switch operation {
        case .attention(let operation): try execute(operation)
        case .mla(let operation): try execute(operation.attention)
        case .mergeStates(let operation): try execute(operation)
        case .rmsNorm(let operation): try execute(operation)
        case .layerNorm(let operation): try execute(operation)
        case .rope(let operation): try execute(operation)
        case .splitRoPE(let operation): try execute(operation)
        case .gatedActivation(let operation): try execute(operation)
        case .add(let operation): try execute(operation)
        case .convert(let operation): try execute(operation)
        case .quantize(let operation): try execute(operation)
        case .packBits(let operation): try execute(operation)
        case .embedding(let operation): try execute(operation)
        case .softmax(let operation): try execute(operation)
        case .argmax(let operation): try execute(operation)
        case .logProbability(let operation): try execute(operation)
        case .sample(let operation): try execute(operation)
        case .filter(let operation): try execute(operation)
        case .topK(let operation): try execute(operation)
        case .selectPages(let operation): try execute(operation)
        case .updatePageBounds(let operation): try execute(operation)
        case .scorePages(let operation): try execute(operation)
        case .adjustLogits(let operation): try execute(operation)
        case .verifyDrafts(let operation): try execute(operation)
        case .appendKV(let operation): try execute(operation)
        case .ropeAppendKV(let operation): try execute(operation)
        case .copyPages(let operation): try execute(operation)
        case .linear(let operation): try execute(operation)
        }
    }

    /// An operation that has no kernel here.
    func noKernel(_ operation: String) -> FlashInferError {
        .unsupported(operation, device: name, nearest: "the same operation on the CPU")
    }
}
