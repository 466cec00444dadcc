internal import FlashInfer

/// A decoder of the Llama family on a device: weights, paged cache, activations, and the forward pass over them.
final class DecoderModel: Sendable {
    let config: ModelConfig
    let device: any Device
    let cache: PagedKVCache
    let buffers: StepBuffers
    let sampling: SamplingBuffers
    let inputs: StepInputs
    let types: ActivationTypes
    let planning: Planner.Mode
    /// How sequences' keys are spread over ranks; `nil` where all are here.
    let spread: KeySpread?

    private let embedding: TokenEmbedding
    private let layers: [DecoderLayer]
    private let outputNorm: SharedTensor
    private let output: any DeviceWeights

    /// Packs `weights` for the device and allocates cache and activations.
    ///
    /// - Parameters:
    ///   - ranks: who else has a part of the keys; `nil` for nobody.
    ///   - progress: called with the fraction of the weights that are packed.
    init(
        _ weights: ModelWeights, options: DecoderOptions, on device: any Device, across ranks: (any Communicator)?,
        progress: (Double) -> Void
    ) throws {
        let config = weights.config
        self.config = config
        self.device = device
        spread = try KeySpread(weights, options, on: device, across: ranks)
        if options.isBatchInvariant, case .cuda = device.id {
            // The library's products are summed in another order for another number of rows.
            throw FlashInferError.unsupported(
                "tokens that are the same bit for bit next to any neighbours", device: device.name,
                nearest: "the CPU's")
        }
        planning = options.isBatchInvariant ? .batchInvariant(splitSize: 512) : .balanced
        var layers: [DecoderLayer] = []
        for layer in 0..<config.layerCount {
            layers.append(try DecoderLayer(layer, of: weights, on: device))
            progress(Double(layer + 1) / Double(config.layerCount + 1))
        }
        self.layers = layers
        outputNorm = try SharedTensor(.init(vector: weights.tensor(.outputNorm), on: device))
        let head = try weights.tensor(.output)
        output = try device.makeWeights([head.weightRows])
        embedding = try TokenEmbedding(weights, output: output, on: device)
        types = try ActivationTypes(
            weights: layers.flatMap(\.weights) + [output], config: config, cacheType: options.cacheType,
            pageSize: options.pageSize, on: device)
        try spread?.requireKernels(config, types, options, on: device)
        cache = try PagedKVCache(
            on: device, layers: config.layerCount, pages: options.pageCount, pageSize: options.pageSize,
            heads: config.kvHeadCount, headDim: config.headDim, dtype: options.cacheType,
            scales: KVScales(key: options.cacheScale, value: options.cacheScale))
        inputs = try StepInputs(rows: options.maximumBatchTokens, pageSize: options.pageSize, on: device)
        buffers = try StepBuffers(
            config, types: types, rows: options.maximumBatchTokens,
            samples: min(options.maximumSequences, options.maximumBatchTokens), on: device)
        sampling = SamplingBuffers(samples: buffers.maximumSamples, on: device)
        progress(1)
    }

    /// Bytes of weights that one decode step reads.
    var weightByteCount: Int { layers.reduce(output.byteCount) { $0 + $1.weights.reduce(0) { $0 + $1.byteCount } } }

    /// Runs all layers over the batch's rows; afterwards `buffers.hidden` holds the residual stream.
    ///
    /// - Parameter kept: the plans of all such steps, where ranks have agreed on how their states meet.
    /// - Returns: whether prefixes that sequences share were read once for all of them.
    func forward(_ batch: StepBatch, plans kept: inout StepPlans?) throws -> Bool {
        let slots = try stage(batch, paddedTo: batch.rowCount)
        let shared = try SharedGeometry(geometry(of: batch, paddedTo: batch.rowCount), of: self)
        let plans: StepPlans
        if let kept {
            try kept.replan(shared)
            plans = kept
        } else {
            plans = try StepPlans(shared, of: self)
            if spread != nil { kept = plans }
        }
        try layers(rows: batch.rowCount, slots: slots, plans: plans)
        return shared.isShared
    }

    /// A batch's lengths and this rank's pages, followed by requests of one row and no keys up to `rows` rows.
    func geometry(of batch: StepBatch, paddedTo rows: Int) throws(FlashInferError) -> BatchGeometry {
        if let spread { return try spread.geometry(of: batch, pageCount: cache.pageCount, paddedTo: rows) }
        return try batch.geometry(pageCount: cache.pageCount, paddedTo: rows)
    }

    /// The logits and the most likely token of each row of a decode step that is staged and planned.
    ///
    /// Touches device memory alone, so that it can be captured. `buffers.logits` and `buffers.results(rows)` hold what it found.
    func decode(rows: Int, slots: KVSlots, plans: StepPlans) throws(FlashInferError) {
        try layers(rows: rows, slots: slots, plans: plans)
        let logits = try logits(of: buffers.hidden.view.slice(0..<rows))
        let (tokens, status, _) = try buffers.results(rows)
        try device.run(.argmax(ArgmaxOperation(input: logits, output: tokens, status: status)))
    }

    /// Sends what the layers read of a batch to the device.
    ///
    /// - Returns: where the keys and values go.
    func stage(_ batch: StepBatch, paddedTo rows: Int) throws -> KVSlots {
        let slots = try inputs.write(batch, spread?.slots(of: batch) ?? batch.slots, paddedTo: rows)
        if let hidden = try embedding.hostRows(batch.tokenIDs, paddedTo: rows) { try buffers.hidden.write(hidden) }
        return slots
    }

    /// Logits of some of the sampled rows of the step that ran forward: `[range, vocabulary]`.
    func logits(ofSampled range: Range<Int>, in batch: StepBatch) throws(FlashInferError) -> TensorView {
        let gathered = buffers.sampled.view.slice(0..<range.count)
        try device.run(
            .embedding(
                EmbeddingOperation(
                    table: buffers.hidden.view, ids: inputs.sampledRows(range, of: batch.rowCount), output: gathered)))
        let logits = try logits(of: gathered)
        if let cap = config.finalSoftCap { try softCap(logits, cap) }
        return logits
    }

    /// `cap · tanh(logit / cap)`: of few rows of few models, so done on the host.
    func softCap(_ logits: TensorView, _ cap: Float) throws(FlashInferError) {
        var values: [Float] = try device.read(logits)
        for index in values.indices {
            values[index] = cap * Float(ElementaryFunctions.tanh(Double(values[index] / cap)))
        }
        try device.write(values, to: logits)
    }

    private func logits(of hidden: TensorView) throws(FlashInferError) -> TensorView {
        let count = hidden.shape[0]
        let normed = buffers.normed.view.slice(0..<count)
        try norm(hidden, outputNorm, into: normed)
        let logits = buffers.logits.view.slice(0..<count)
        try device.run(.linear(LinearOperation(input: normed, weights: output, output: logits)))
        return logits
    }

    private func layers(rows: Int, slots: KVSlots, plans: StepPlans) throws(FlashInferError) {
        try embedding.run(inputs.ids(rows), into: buffers.hidden.view.slice(0..<rows), on: device)
        for (index, layer) in layers.enumerated() {
            try attend(index, layer, rows, slots, plans)
            try feedForward(layer, rows)
        }
    }

    private func attend(
        _ index: Int, _ layer: DecoderLayer, _ rows: Int, _ slots: KVSlots, _ plans: StepPlans
    ) throws(FlashInferError) {
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
        // Queries turn into the type that attention takes; keys and values go to the cache, rounded once.
        let turned =
            types.query == .float32
            ? queries : try buffers.narrowQueries.view.slice(0..<rows).reshaped(queries.shape)
        try device.run(
            .ropeAppendKV(
                RoPEAppendKVOperation(
                    queries: queries, keys: keys, values: values, queryOutput: turned,
                    positions: inputs.positions(rows),
                    parameters: config.rope.parameters(isSliding: config.window(ofLayer: index) != nil),
                    cache: cache.view(ofLayer: index), slots: slots)))
        let output = buffers.attention.view.slice(0..<rows)
        try plans.run(
            index, turned, cache.view(ofLayer: index),
            into: output.reshaped([rows, config.headCount, config.headDim]))
        try project(output, layer.attentionOutput, postNorm: layer.postAttentionNorm, rows)
    }

    private func feedForward(_ layer: DecoderLayer, _ rows: Int) throws(FlashInferError) {
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
    ) throws(FlashInferError) {
        let hidden = buffers.hidden.view.slice(0..<rows)
        guard let postNorm else {
            return try weights.run(input, into: hidden, accumulates: true, on: device)
        }
        let projected = buffers.projected.view.slice(0..<rows)
        try weights.run(input, into: projected, on: device)
        try norm(projected, postNorm, into: projected)
        try device.run(.add(AddOperation(first: hidden, second: projected, output: hidden)))
    }

    private func norm(
        _ input: TensorView, _ weight: SharedTensor, into output: TensorView
    ) throws(FlashInferError) {
        try device.run(
            .rmsNorm(
                RMSNormOperation(
                    input: input, weight: weight.view, output: output, epsilon: config.rmsNormEpsilon,
                    weightOffset: config.normWeightOffset)))
    }

    /// `[rows, count, headDim]` out of the fused projection's rows.
    private func heads(of qkv: TensorView, from column: Int, count: Int) throws(FlashInferError) -> TensorView {
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
