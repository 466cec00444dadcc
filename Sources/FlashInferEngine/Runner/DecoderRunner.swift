public import FlashInfer
internal import Synchronization

/// A real model behind ``ModelRunner``: a Llama-family decoder on a device, with its paged cache.
///
/// ```swift
/// let weights = try ModelWeights(gguf: file, config: ModelConfig(gguf: file))
/// let runner = try DecoderRunner(weights, options: DecoderOptions(), on: Devices.makeDefault())
/// ```
public final class DecoderRunner: ModelRunner {
    /// The model's settings.
    public let config: ModelConfig
    /// How memory was laid out.
    public let options: DecoderOptions
    /// Bytes of packed weights that one decode step reads.
    public let weightByteCount: Int
    /// Bytes of the KV cache.
    public let cacheByteCount: Int

    /// The model, and what was recorded of it.
    private struct State {
        let model: DecoderModel
        var graphs = DecodeGraphs()
        /// Steps outside of graphs whose sequences' shared prefixes were read once.
        var sharedSteps = 0

        mutating func forward(_ batch: StepBatch) throws {
            if try model.forward(batch) { sharedSteps += 1 }
        }
    }

    /// Steps whose sequences' shared prefixes were read once for all of them.
    package var sharedStepCount: Int { state.withLock { $0.sharedSteps + $0.graphs.sharedSteps } }

    // One step runs at a time: the activations are shared.
    private let state: Mutex<State>

    /// Packs the weights for `device` and allocates cache and activations.
    ///
    /// - Parameter progress: called with the fraction of the weights that are packed.
    /// - Throws: ``FlashInferError`` for options out of range, unsupported formats and lack of memory;
    ///   ``ModelWeightsError`` for missing weights.
    public init(
        _ weights: ModelWeights, options: DecoderOptions = DecoderOptions(), on device: any Device,
        progress: (Double) -> Void = { _ in }
    ) throws {
        try options.validate()
        let model = try DecoderModel(weights, options: options, on: device, progress: progress)
        config = weights.config
        self.options = options
        weightByteCount = model.weightByteCount
        cacheByteCount = model.cache.byteCount
        state = Mutex(State(model: model))
    }

    /// The number of token ids.
    public var vocabularySize: Int { config.vocabularySize }

    /// Computes the batch's rows and samples the rows it names; see ``ModelRunner/step(_:sampling:)``.
    public func step(_ batch: StepBatch, sampling: [SamplingRow]) async throws -> [SampledToken] {
        try run(batch, sampling: sampling)
    }

    /// As ``step(_:sampling:)``, for callers that are not asynchronous: benchmarks and tests.
    public func run(_ batch: StepBatch, sampling: [SamplingRow]) throws -> [SampledToken] {
        guard batch.rowCount <= options.maximumBatchTokens else {
            throw FlashInferError.capacityExceeded(
                "rows of a step", required: batch.rowCount, capacity: options.maximumBatchTokens)
        }
        guard sampling.count == batch.sampledRows.count else {
            throw FlashInferError.lengthMismatch("sampling", found: sampling.count, expected: batch.sampledRows.count)
        }
        return try state.withLock { state in
            let model = state.model
            if let rows = try state.graphs.run(batch, on: model) {
                return try model.tokens(sampling[...], afterDecodeOf: rows)
            }
            try state.forward(batch)
            var tokens: [SampledToken] = []
            for start in stride(from: 0, to: sampling.count, by: model.buffers.maximumSamples) {
                let range = start..<min(start + model.buffers.maximumSamples, sampling.count)
                let logits = try model.logits(ofSampled: range, in: batch)
                tokens += try model.sample(logits, sampling[range])
            }
            return tokens
        }
    }

    /// The logits that follow the batch's sampled rows, row after row: for tests and evaluation.
    public func logits(_ batch: StepBatch) throws -> [[Float]] {
        try state.withLock { state in
            let model = state.model
            if try state.graphs.run(batch, on: model) != nil {
                return try batch.sampledRows.indices.map { index in
                    let logits = model.buffers.logits.view.slice(index..<index + 1)
                    if let cap = model.config.finalSoftCap { try model.softCap(logits, cap) }
                    return try model.device.read(logits)
                }
            }
            try state.forward(batch)
            return try batch.sampledRows.indices.map { index in
                try model.device.read(model.logits(ofSampled: index..<index + 1, in: batch))
            }
        }
    }
}
