internal import FlashInfer

/// A decoder of the Llama family on a device: weights, paged cache, activations, and the forward pass over them.
final class DecoderModel: Sendable {
    let config: ModelConfig
    let device: any Device
    let cache: PagedKVCache
    let buffers: StepBuffers

    private let embedding: WeightTensor
    private let layers: [DecoderLayer]
    private let outputNorm: SharedTensor
    private let output: any DeviceWeights
    private let planning: Planner.Mode

    /// Packs `weights` for the device and allocates cache and activations.
    ///
    /// - Parameter progress: called with the fraction of the weights that are packed.
    init(
        _ weights: ModelWeights, options: DecoderOptions, on device: any Device, progress: (Double) -> Void
    ) throws {
        let config = weights.config
        self.config = config
        self.device = device
        planning = options.isBatchInvariant ? .batchInvariant(splitSize: 512) : .balanced
        embedding = try weights.tensor(.tokenEmbedding)
        var layers: [DecoderLayer] = []
        for layer in 0..<config.layerCount {
            layers.append(try DecoderLayer(layer, of: weights, on: device))
            progress(Double(layer + 1) / Double(config.layerCount + 1))
        }
        self.layers = layers
        outputNorm = try SharedTensor(.init(vector: weights.tensor(.outputNorm), on: device))
        let head = try weights.tensor(.output)
        output = try device.makeWeights([head.weightRows])
        cache = try PagedKVCache(
            on: device, layers: config.layerCount, pages: options.pageCount, pageSize: options.pageSize,
            heads: config.kvHeadCount, headDim: config.headDim, dtype: options.cacheType,
            scales: KVScales(key: options.cacheScale, value: options.cacheScale))
        buffers = try StepBuffers(
            config, rows: options.maximumBatchTokens, samples: options.maximumSequences,
            hasNarrowQueries: options.cacheType.byteCount == 1, on: device)
        progress(1)
    }

    /// Bytes of weights that one decode step reads.
    var weightByteCount: Int {
        layers.reduce(output.byteCount) {
            $0 + $1.qkv.byteCount + $1.attentionOutput.byteCount + $1.gateUp.byteCount + $1.down.byteCount
        }
    }

    /// Runs all layers over the batch's rows; afterwards `buffers.hidden` holds the residual stream.
    func forward(_ batch: StepBatch) throws {
        let rows = batch.rowCount
        try embed(batch.tokenIDs)
        try buffers.positions.write(batch.positions)
        let slots = try KVSlots(slots: batch.slots, pageSize: batch.pageSize)
        let plans = try StepPlans(batch, of: self, mode: planning)
        for (index, layer) in layers.enumerated() {
            try attend(index, layer, rows, slots, plans)
            try feedForward(layer, rows)
        }
    }

    /// Logits of some rows of the residual stream: `[sampled, vocabulary]`.
    func logits(ofRows sampled: ArraySlice<Int32>) throws -> TensorView {
        let count = sampled.count
        try buffers.sampledRows.write(Array(sampled))
        let gathered = buffers.normed.view.slice(0..<count)
        try device.run(
            .embedding(
                EmbeddingOperation(
                    table: buffers.hidden.view, ids: buffers.sampledRows.view.slice(0..<count), output: gathered)))
        try norm(gathered, outputNorm, into: gathered)
        let logits = buffers.logits.view.slice(0..<count)
        try device.run(.linear(LinearOperation(input: gathered, weights: output, output: logits)))
        if let cap = config.finalSoftCap { try softCap(logits, cap) }
        return logits
    }

    /// `cap · tanh(logit / cap)`: of few rows of few models, so done on the host.
    private func softCap(_ logits: TensorView, _ cap: Float) throws {
        var values: [Float] = try device.read(logits)
        for index in values.indices {
            values[index] = cap * Float(ElementaryFunctions.tanh(Double(values[index] / cap)))
        }
        try device.write(values, to: logits)
    }

    /// Token embeddings are read from the model file itself: a step touches a few rows of them.
    private func embed(_ tokens: [Int32]) throws {
        let width = config.hiddenSize
        var rows = [Float](repeating: 0, count: tokens.count * width)
        try embedding.weightRows.gather(tokens, into: &rows)
        if config.embeddingScale != 1 { for index in rows.indices { rows[index] *= config.embeddingScale } }
        try buffers.hidden.write(rows)
    }

    private func attend(
        _ index: Int, _ layer: DecoderLayer, _ rows: Int, _ slots: KVSlots, _ plans: StepPlans
    ) throws {
        let (hidden, normed, qkv) = (
            buffers.hidden.view.slice(0..<rows), buffers.normed.view.slice(0..<rows), buffers.qkv.view.slice(0..<rows)
        )
        try norm(hidden, layer.attentionNorm, into: normed)
        try layer.qkv.run(normed, into: qkv, bias: layer.qkvBias?.view, on: device)
        let queries = try heads(of: qkv, from: 0, count: config.headCount)
        let keys = try heads(of: qkv, from: config.queryWidth, count: config.kvHeadCount)
        let values = try heads(of: qkv, from: config.queryWidth + config.kvWidth, count: config.kvHeadCount)
        if let queryNorm = layer.queryNorm { try norm(queries, queryNorm, into: queries) }
        if let keyNorm = layer.keyNorm { try norm(keys, keyNorm, into: keys) }
        try device.run(
            .rope(
                RoPEOperation(
                    queries: queries, keys: keys, positions: buffers.positions.view.slice(0..<rows),
                    parameters: config.rope.parameters(isSliding: config.window(ofLayer: index) != nil))))
        try device.run(
            .appendKV(
                AppendKVOperation(keys: keys, values: values, cache: cache.view(ofLayer: index), slots: slots)))
        let output = buffers.attention.view.slice(0..<rows)
        try plans.run(
            index, narrowed(queries), cache.view(ofLayer: index),
            into: output.reshaped([rows, config.headCount, config.headDim]))
        try project(output, layer.attentionOutput, postNorm: layer.postAttentionNorm, rows)
    }

    /// The queries in the type that attention takes: as they are, or for an 8-bit cache, whose numbers are exact in bfloat16
    /// and meet bfloat16 queries at twice the rate, rounded to that.
    private func narrowed(_ queries: TensorView) throws -> TensorView {
        guard queryType == .bfloat16 else { return queries }
        let narrow = try buffers.narrowQueries.view.slice(0..<queries.shape[0]).reshaped(queries.shape)
        try device.run(.convert(ConvertOperation(input: queries, output: narrow)))
        return narrow
    }

    /// The type of the queries that attention takes.
    var queryType: DType { cache.view(ofLayer: 0).keys.dtype.byteCount == 1 ? .bfloat16 : .float32 }

    private func feedForward(_ layer: DecoderLayer, _ rows: Int) throws {
        let (hidden, normed, gateUp) = (
            buffers.hidden.view.slice(0..<rows), buffers.normed.view.slice(0..<rows),
            buffers.gateUp.view.slice(0..<rows)
        )
        let width = config.intermediateSize
        try norm(hidden, layer.feedForwardNorm, into: normed)
        try layer.gateUp.run(normed, into: gateUp, on: device)
        let activated = buffers.activated.view.slice(0..<rows)
        try device.run(
            .gatedActivation(
                GatedActivationOperation(
                    gate: gateUp.slice(0..<width, along: 1), up: gateUp.slice(width..<2 * width, along: 1),
                    output: activated, activation: config.activation == .silu ? .silu : .geluTanh)))
        try project(activated, layer.down, postNorm: layer.postFeedForwardNorm, rows)
    }

    /// Adds a block's projection to the residual stream, normed once more where the model says so.
    private func project(
        _ input: TensorView, _ weights: FusedProjection, postNorm: SharedTensor?, _ rows: Int
    ) throws {
        let hidden = buffers.hidden.view.slice(0..<rows)
        guard let postNorm else {
            return try weights.run(input, into: hidden, accumulates: true, on: device)
        }
        let normed = buffers.normed.view.slice(0..<rows)
        try weights.run(input, into: normed, on: device)
        try norm(normed, postNorm, into: normed)
        try device.run(.add(AddOperation(first: hidden, second: normed, output: hidden)))
    }

    private func norm(_ input: TensorView, _ weight: SharedTensor, into output: TensorView) throws {
        try device.run(
            .rmsNorm(
                RMSNormOperation(
                    input: input, weight: weight.view, output: output, epsilon: config.rmsNormEpsilon,
                    weightOffset: config.normWeightOffset)))
    }

    /// `[rows, count, headDim]` out of the fused projection's rows.
    private func heads(of qkv: TensorView, from column: Int, count: Int) throws -> TensorView {
        try TensorView(
            qkv.region, byteOffset: qkv.byteOffset + column * qkv.dtype.byteCount, dtype: qkv.dtype,
            shape: [qkv.shape[0], count, config.headDim], strides: [qkv.strides[0], config.headDim, 1], name: "heads")
    }
}

extension RopeConfig {
    /// The settings as the kernels take them.
    func parameters(isSliding: Bool) -> RoPEParameters {
        let pairing: RoPEParameters.Pairing = self.pairing == .interleaved ? .interleaved : .halfSplit
        if isSliding, let localTheta { return RoPEParameters(theta: localTheta, pairing: pairing) }
        let scaling: RoPEParameters.Scaling =
            switch self.scaling {
            case .none: .none
            case .linear(let factor): .linear(factor: factor)
            case .frequencyFactors(let factors): .perPair(factors: factors)
            case .llama3(let factor, let low, let high, let original):
                .llama3(
                    factor: factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalContext: original)
            }
        return RoPEParameters(theta: theta, pairing: pairing, scaling: scaling)
    }
}
