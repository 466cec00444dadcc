internal import CUDAKernels
internal import FlashInferCore

extension CUDADevice {
    /// Normalises rows.
    func execute(_ operation: RMSNormOperation) throws(FlashInferError) {
        try enqueue(NormKernel.lower(operation))
    }

    /// Normalises rows about their mean.
    func execute(_ operation: LayerNormOperation) throws(FlashInferError) {
        try enqueue(NormKernel.lower(operation))
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

    /// Converts to 8 bits.
    func execute(_ operation: QuantizeOperation) throws(FlashInferError) {
        try enqueue(GatedActivationKernel.lower(operation))
    }

    /// Packs flags into bits.
    func execute(_ operation: PackBitsOperation) throws(FlashInferError) {
        try enqueue(PackBitsKernel.lower(operation))
    }

    /// Gathers rows of a table. A row of an id that is outside of the table becomes NaN.
    func execute(_ operation: EmbeddingOperation) throws(FlashInferError) {
        try enqueue(EmbeddingKernel.lower(operation))
    }

    /// Turns queries and keys.
    func execute(_ operation: RoPEOperation) throws(FlashInferError) {
        let angles = try angles(operation.parameters, headDim: operation.queries.shape[2], operation.table)
        if operation.normalization == nil {
            for launch in try RoPEKernel.lower(operation, angles: angles) { try enqueue(launch) }
        } else {
            for launch in try RoPEPartsKernel.lower(operation, angles: angles) { try enqueue(launch) }
        }
    }

    /// Where kernels find by how much pairs turn: in a caller's table, or in one of fractions of a turn.
    func angles(
        _ parameters: RoPEParameters, headDim: Int, _ table: TensorView?
    ) throws(FlashInferError) -> fi_rope_angles {
        if let table { return try fi_rope_angles(table: table) }
        return fi_rope_angles(turns: try operations.turns(parameters, headDim: headDim))
    }

    /// Merges states of attention.
    func execute(_ operation: MergeStatesOperation) throws(FlashInferError) {
        try enqueue(MergeStatesKernel.lower(operation))
    }
}
