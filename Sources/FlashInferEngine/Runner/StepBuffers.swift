internal import FlashInfer

/// The activations of a step, allocated once for the largest batch: every step uses their first rows.
struct StepBuffers: Sendable {
    /// Rows that fit.
    let maximumRows: Int
    /// Rows of logits that fit.
    let maximumSamples: Int

    /// `[rows, hidden]`, float32: the residual stream.
    let hidden: SharedTensor
    /// `[rows, hidden]`: a norm's output, the input of projections.
    let normed: SharedTensor
    /// `[rows, hidden]`, float32: a block's output where that is normed before it joins the residual stream; else empty.
    let projected: SharedTensor
    /// `[rows, (heads + 2 · kvHeads) · headDim]`, float32.
    let qkv: SharedTensor
    /// `[rows, heads · headDim]`, of the type that attention takes; empty where that is float32.
    let narrowQueries: SharedTensor
    /// `[rows, heads · headDim]`
    let attention: SharedTensor
    /// `[rows, 2 · intermediate]`, float32.
    let gateUp: SharedTensor
    /// `[rows, intermediate]`
    let activated: SharedTensor
    /// `[samples, hidden]`, float32: the rows of the residual stream that are sampled.
    let sampled: SharedTensor
    /// `[samples, vocabulary]`, float32.
    let logits: SharedTensor
    /// `[5 · samples]`, bytes: for `n` rows, `n` int32 tokens and then `n` statuses, so that one download brings both.
    private let results: SharedTensor

    init(
        _ config: ModelConfig, types: ActivationTypes, rows: Int, samples: Int, on device: any Device
    ) throws(FlashInferError) {
        func tensor(_ dtype: DType, _ shape: Shape) throws(FlashInferError) -> SharedTensor {
            try SharedTensor(DeviceBuffer(on: device, dtype: dtype, shape: shape))
        }
        maximumRows = rows
        maximumSamples = samples
        hidden = try tensor(.float32, [rows, config.hiddenSize])
        normed = try tensor(types.linear, [rows, config.hiddenSize])
        projected = try tensor(.float32, [config.postNorms ? rows : 0, config.hiddenSize])
        qkv = try tensor(.float32, [rows, config.queryWidth + 2 * config.kvWidth])
        narrowQueries = try tensor(types.query, [types.query == .float32 ? 0 : rows, config.queryWidth])
        attention = try tensor(types.attention, [rows, config.queryWidth])
        gateUp = try tensor(.float32, [rows, 2 * config.intermediateSize])
        activated = try tensor(types.linear, [rows, config.intermediateSize])
        sampled = try tensor(.float32, [samples, config.hiddenSize])
        logits = try tensor(.float32, [samples, config.vocabularySize])
        results = try tensor(.uint8, [5 * samples])
    }

    /// Where `count` drawn tokens and their statuses go, and both together.
    func results(_ count: Int) throws(FlashInferError) -> (tokens: TensorView, status: TensorView, both: TensorView) {
        let both = results.view.slice(0..<5 * count)
        return (
            try TensorView(both.region, dtype: .int32, shape: [count], name: "tokens"),
            both.slice(4 * count..<5 * count), both
        )
    }
}

/// The types that the activations of a model have on a device.
struct ActivationTypes: Sendable, Equatable {
    /// Inputs of projections.
    var linear: DType
    /// Queries of attention.
    var query: DType
    /// Outputs of attention.
    var attention: DType

    /// What ranks exchange of a step with prompts in it: no wider than what is kept of it, as Hopper's kernels for long prompts write 16-bit
    /// types only. Captured steps, which have few rows, exchange float32.
    var states: DType { attention == .float16 || attention == .bfloat16 ? attention : .float32 }
}

extension ActivationTypes {
    /// What the device's products and attention take with the least rounding, and no conversion that can be spared.
    ///
    /// Attention's queries are float32 where the device takes them, else what the cache holds. With an 8-bit cache, whose numbers
    /// are exact in bfloat16 and meet bfloat16 queries at twice the rate, they are rounded to that everywhere.
    ///
    /// - Throws: what the device says of its attention where it takes none of them.
    init(
        weights: [any DeviceWeights], config: ModelConfig, cacheType: DType, pageSize: Int, on device: any Device
    ) throws(FlashInferError) {
        let inputs = Set(weights.map(\.inputType))
        linear = inputs.count == 1 ? inputs.first ?? .float32 : .float32
        let queries: [DType] =
            switch cacheType {
            case .float32: [.float32]
            case .float16, .bfloat16: [.float32, cacheType]
            default: [.bfloat16]
            }
        let geometry = try BatchGeometry.paged(
            pageIndptr: [0, 1], pageIndices: [0], lastPageLengths: [1], pageSize: pageSize, pageCount: 1)
        var failure: FlashInferError?
        for query in queries {
            for output in linear == .float32 ? [.float32] : [linear, .float32] {
                do throws(FlashInferError) {
                    _ = try device.kernelTraits(
                        for: AttentionProblem(
                            geometry: geometry, shape: config.attentionShape,
                            variant: config.attentionVariant(window: nil), queryType: query, kvType: cacheType,
                            outputType: output))
                    (self.query, attention) = (query, output)
                    return
                } catch {
                    failure = error
                }
            }
        }
        throw failure ?? .unsupported("a \(cacheType) cache", device: device.name, nearest: "float16")
    }
}

extension ModelConfig {
    /// The heads of attention.
    var attentionShape: AttentionShape {
        get throws(FlashInferError) {
            try AttentionShape(queryHeads: headCount, kvHeads: kvHeadCount, headDimQK: headDim)
        }
    }

    /// Causal attention, through a window of some keys to the left where that is given.
    func attentionVariant(window: Int?) -> AttentionVariant {
        AttentionVariant(
            mask: .causal, windowLeft: window, logitsSoftCap: attentionSoftCap, scale: attentionScale)
    }
}
