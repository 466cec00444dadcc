internal import FlashInfer

/// The activations of a step, allocated once for the largest batch: every step uses their first rows.
struct StepBuffers: Sendable {
    /// Rows that fit.
    let maximumRows: Int
    /// Rows of logits that fit.
    let maximumSamples: Int

    /// `[rows, hidden]`: the residual stream.
    let hidden: SharedTensor
    /// `[rows, hidden]`: a norm's output, the input of projections.
    let normed: SharedTensor
    /// `[rows, (heads + 2 · kvHeads) · headDim]`
    let qkv: SharedTensor
    /// `[rows, heads · headDim]`, bfloat16: queries for an 8-bit cache; empty with others.
    let narrowQueries: SharedTensor
    /// `[rows, heads · headDim]`
    let attention: SharedTensor
    /// `[rows, 2 · intermediate]`
    let gateUp: SharedTensor
    /// `[rows, intermediate]`
    let activated: SharedTensor
    /// `[samples, vocabulary]`
    let logits: SharedTensor
    /// `[rows]`, int32.
    let positions: SharedTensor
    /// `[samples]`, int32: the rows to sample.
    let sampledRows: SharedTensor
    /// `[samples]`, int32: the tokens drawn.
    let tokens: SharedTensor
    /// `[samples]`, uint8.
    let status: SharedTensor

    init(
        _ config: ModelConfig, rows: Int, samples: Int, hasNarrowQueries: Bool, on device: any Device
    ) throws(FlashInferError) {
        func tensor(_ dtype: DType, _ shape: Shape) throws(FlashInferError) -> SharedTensor {
            try SharedTensor(DeviceBuffer(on: device, dtype: dtype, shape: shape))
        }
        maximumRows = rows
        maximumSamples = samples
        hidden = try tensor(.float32, [rows, config.hiddenSize])
        normed = try tensor(.float32, [rows, config.hiddenSize])
        qkv = try tensor(.float32, [rows, config.queryWidth + 2 * config.kvWidth])
        narrowQueries = try tensor(.bfloat16, [hasNarrowQueries ? rows : 0, config.queryWidth])
        attention = try tensor(.float32, [rows, config.queryWidth])
        gateUp = try tensor(.float32, [rows, 2 * config.intermediateSize])
        activated = try tensor(.float32, [rows, config.intermediateSize])
        logits = try tensor(.float32, [samples, config.vocabularySize])
        positions = try tensor(.int32, [rows])
        sampledRows = try tensor(.int32, [samples])
        tokens = try tensor(.int32, [samples])
        status = try tensor(.uint8, [samples])
    }
}
