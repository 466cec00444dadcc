internal import FlashInfer

/// The activations of a step, allocated once for the largest batch: every step uses their first rows.
struct StepBuffers: ~Copyable, Sendable {
    /// Rows that fit.
    let maximumRows: Int
    /// Rows of logits that fit.
    let maximumSamples: Int

    /// `[rows, hidden]`: the residual stream.
    let hidden: DeviceBuffer
    /// `[rows, hidden]`: a norm's output, the input of projections.
    let normed: DeviceBuffer
    /// `[rows, (heads + 2 · kvHeads) · headDim]`
    let qkv: DeviceBuffer
    /// `[rows, heads · headDim]`
    let attention: DeviceBuffer
    /// `[rows, 2 · intermediate]`
    let gateUp: DeviceBuffer
    /// `[rows, intermediate]`
    let activated: DeviceBuffer
    /// `[samples, vocabulary]`
    let logits: DeviceBuffer
    /// `[rows]`, int32.
    let positions: DeviceBuffer
    /// `[rows]`, int32.
    let slots: DeviceBuffer
    /// `[samples]`, int32: rows to sample, then the tokens drawn.
    let sampledRows: DeviceBuffer
    let tokens: DeviceBuffer
    /// `[samples]`, uint8.
    let status: DeviceBuffer
    /// `[samples]`, float32.
    let logProbabilities: DeviceBuffer

    init(_ config: ModelConfig, rows: Int, samples: Int, on device: any Device) throws(FlashInferError) {
        maximumRows = rows
        maximumSamples = samples
        hidden = try DeviceBuffer(on: device, dtype: .float32, shape: [rows, config.hiddenSize])
        normed = try DeviceBuffer(on: device, dtype: .float32, shape: [rows, config.hiddenSize])
        qkv = try DeviceBuffer(on: device, dtype: .float32, shape: [rows, config.queryWidth + 2 * config.kvWidth])
        attention = try DeviceBuffer(on: device, dtype: .float32, shape: [rows, config.queryWidth])
        gateUp = try DeviceBuffer(on: device, dtype: .float32, shape: [rows, 2 * config.intermediateSize])
        activated = try DeviceBuffer(on: device, dtype: .float32, shape: [rows, config.intermediateSize])
        logits = try DeviceBuffer(on: device, dtype: .float32, shape: [samples, config.vocabularySize])
        positions = try DeviceBuffer(on: device, dtype: .int32, shape: [rows])
        slots = try DeviceBuffer(on: device, dtype: .int32, shape: [rows])
        sampledRows = try DeviceBuffer(on: device, dtype: .int32, shape: [samples])
        tokens = try DeviceBuffer(on: device, dtype: .int32, shape: [samples])
        status = try DeviceBuffer(on: device, dtype: .uint8, shape: [samples])
        logProbabilities = try DeviceBuffer(on: device, dtype: .float32, shape: [samples])
    }
}
