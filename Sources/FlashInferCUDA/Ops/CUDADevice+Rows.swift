internal import CUDAKernels
internal import FlashInferCore

extension CUDADevice {
    /// Normalises rows.
    func execute(_ operation: RMSNormOperation) throws(FlashInferError) {
        try enqueue(RMSNormKernel.lower(operation))
    }

    /// Applies a gated activation.
    func execute(_ operation: GatedActivationOperation) throws(FlashInferError) {
        try enqueue(GatedActivationKernel.lower(operation))
    }

    /// Adds or scales.
    func execute(_ operation: AddOperation) throws(FlashInferError) {
        try enqueue(AddKernel.lower(operation))
    }

    /// Converts element types.
    func execute(_ operation: ConvertOperation) throws(FlashInferError) {
        try enqueue(ConvertKernel.lower(operation))
    }

    /// Gathers rows of a table. A row of an id that is outside of the table becomes NaN.
    func execute(_ operation: EmbeddingOperation) throws(FlashInferError) {
        try enqueue(EmbeddingKernel.lower(operation))
    }

    /// Turns queries and keys.
    func execute(_ operation: RoPEOperation) throws(FlashInferError) {
        let turns = try operations.turns(operation.parameters, headDim: operation.queries.shape[2])
        for launch in try RoPEKernel.lower(operation, turns: turns) { try enqueue(launch) }
    }

    /// Merges states of attention.
    func execute(_ operation: MergeStatesOperation) throws(FlashInferError) {
        try enqueue(MergeStatesKernel.lower(operation))
    }
}
