internal import FlashInfer

/// The rows that tokens enter the residual stream with.
///
/// Where operations read the host's memory they come from the model file itself, of which a step touches a few rows. Elsewhere
/// they lie on the device: the output's weights where those are the same tensor, so that they are there once.
struct TokenEmbedding: Sendable {
    private let rows: WeightTensor
    private let scale: Float
    private let table: (any DeviceWeights)?

    init(_ weights: ModelWeights, output: any DeviceWeights, on device: any Device) throws {
        rows = try weights.tensor(.tokenEmbedding)
        scale = weights.config.embeddingScale
        let head = try weights.tensor(.output)
        if device.readsHostMemory {
            table = nil
        } else if output.table != nil, head.bytes.baseAddress == rows.bytes.baseAddress {
            table = output
        } else {
            table = try device.makeWeights([rows.weightRows])
        }
    }

    /// `[rows, hidden]` in float32 for the host to send, zeros after the tokens'; `nil` where ``run(_:into:on:)`` gathers them.
    func hostRows(_ tokens: [Int32], paddedTo count: Int) throws(FlashInferError) -> [Float]? {
        guard table?.table == nil else { return nil }
        let width = rows.columns
        var elements = [Float](repeating: 0, count: tokens.count * width)
        try rows.weightRows.gather(tokens, into: &elements)
        if scale != 1 { for index in elements.indices { elements[index] *= scale } }
        return elements + [Float](repeating: 0, count: (count - tokens.count) * width)
    }

    /// Gathers the rows of `ids` where they lie on the device.
    func run(_ ids: TensorView, into hidden: TensorView, on device: any Device) throws(FlashInferError) {
        guard let table = table?.table else { return }
        try device.run(.embedding(EmbeddingOperation(table: table, ids: ids, output: hidden, scale: scale)))
    }
}
