public import FlashInfer
internal import Synchronization

/// A real model behind ``ModelRunner``: a Llama-family decoder on a device, with its paged cache.
///
/// ```swift
/// let weights = try ModelWeights(gguf: file, config: ModelConfig(gguf: file))
/// let runner = try DecoderRunner(weights, options: DecoderOptions(), on: Devices.makeDefault())
/// ```
///
/// Several ranks, each with a device of its own, can hold a part of every sequence's keys each, so that together they have room for texts
/// as many times as long. Rank 0 schedules, computes its part of every step and samples; the others ``follow()``.
public final class DecoderRunner: ModelRunner {
    /// The model's settings.
    public let config: ModelConfig
    /// How memory was laid out.
    public let options: DecoderOptions
    /// Bytes of packed weights that one decode step reads.
    public let weightByteCount: Int
    /// Bytes of the KV cache, on this rank.
    public let cacheByteCount: Int
    /// The positions that a page of the pool stands for: the page size times the number of ranks.
    public let positionsPerPage: Int

    /// The model, and what was recorded of it.
    private struct State {
        let model: DecoderModel
        var graphs = DecodeGraphs()
        /// Plans of steps outside of graphs, where ranks have agreed on them.
        var plans: StepPlans?
        /// Steps outside of graphs whose sequences' shared prefixes were read once.
        var sharedSteps = 0
        /// Whether the other ranks were told that there are no more steps.
        var isFinished = false

        /// Computes the batch's rows on this rank, once the others know of them.
        ///
        /// - Returns: the rows of a decode step, whose logits and most likely tokens are there; `nil` for other steps.
        mutating func compute(_ batch: StepBatch) throws -> Int? {
            if let ranks = model.spread?.ranks, ranks.rank == 0 {
                guard !isFinished else { throw DecoderError.finished }
                _ = try ranks.gatherMessages(StepMessage.step(batch).bytes)
            }
            do {
                let rows = try graphs.run(batch, on: model)
                if rows == nil, try model.forward(batch, plans: &plans) { sharedSteps += 1 }
                try model.spread?.ranks.finishCollectives()
                return rows
            } catch {
                // The others are on their way to a collective to which this rank does not come.
                model.spread?.ranks.leave()
                throw error
            }
        }
    }

    /// Steps whose sequences' shared prefixes were read once for all of them.
    package var sharedStepCount: Int { state.withLock { $0.sharedSteps + $0.graphs.sharedSteps } }

    /// Whether decode steps have been captured.
    package var replaysGraphs: Bool { state.withLock { $0.graphs.hasCaptures } }

    // One step runs at a time: the activations are shared.
    private let state: Mutex<State>
    private let ranks: (any Communicator)?

    /// Packs the weights for `device` and allocates cache and activations.
    ///
    /// - Parameters:
    ///   - ranks: who else has a part of every sequence's keys, all of them making the same runner now; `nil` for nobody.
    ///   - progress: called with the fraction of the weights that are packed.
    /// - Throws: ``FlashInferError`` for options out of range, unsupported formats and lack of memory, and for ranks that have different
    ///   models or options; ``ModelWeightsError`` for missing weights.
    public convenience init(
        _ weights: ModelWeights, options: DecoderOptions = DecoderOptions(), on device: any Device,
        across ranks: (any Communicator)? = nil, progress: (Double) -> Void = { _ in }
    ) throws {
        // A quarter of the time that ranks wait for each other unless told otherwise.
        try self.init(
            weights, options: options, on: device, across: ranks, idleInterval: .seconds(15), progress: progress)
    }

    package init(
        _ weights: ModelWeights, options: DecoderOptions, on device: any Device, across ranks: (any Communicator)?,
        idleInterval: Duration, progress: (Double) -> Void = { _ in }
    ) throws {
        try options.validate()
        let model = try DecoderModel(weights, options: options, on: device, across: ranks, progress: progress)
        config = weights.config
        self.options = options
        weightByteCount = model.weightByteCount
        cacheByteCount = model.cache.byteCount
        positionsPerPage = model.spread?.positionsPerPage ?? options.pageSize
        self.ranks = model.spread?.ranks
        state = Mutex(State(model: model))
        if let ranks = self.ranks, ranks.rank == 0 { sayWait(every: idleInterval) }
    }

    deinit {
        // What captured the ranks' collectives goes before their communicator.
        state.withLock {
            $0.graphs = DecodeGraphs()
            $0.plans = nil
        }
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
            if let rows = try state.compute(batch) { return try model.tokens(sampling[...], afterDecodeOf: rows) }
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
            if try state.compute(batch) != nil {
                return try batch.sampledRows.indices.map { index in
                    let logits = model.buffers.logits.view.slice(index..<index + 1)
                    if let cap = model.config.finalSoftCap { try model.softCap(logits, cap) }
                    return try model.device.read(logits)
                }
            }
            return try batch.sampledRows.indices.map { index in
                try model.device.read(model.logits(ofSampled: index..<index + 1, in: batch))
            }
        }
    }
}

// MARK: - Ranks

extension DecoderRunner {
    /// Computes this rank's part of the steps that rank 0 takes, until that finishes.
    ///
    /// - Throws: ``FlashInferError/rankFailure(rank:call:message:)`` where a rank is gone, and what a step throws; nothing can be computed
    ///   any more then, on any rank.
    /// - Precondition: this is a rank other than 0.
    public func follow() throws {
        guard let ranks, ranks.rank > 0 else { preconditionFailure("ranks other than 0 follow") }
        while true {
            switch StepMessage(try ranks.gatherMessages([])[0]) {
            case .wait: continue
            case .end: return
            case .step(let batch):
                try state.withLock { state in
                    _ = try state.compute(batch)
                    // Here is where this rank would learn that its device has failed since.
                    try state.model.device.synchronize()
                }
            case nil:
                throw FlashInferError.rankMismatch(
                    "the version of the engine", rank: ranks.rank, found: "one that cannot read rank 0's steps",
                    expected: "rank 0's")
            }
        }
    }

    /// Tells the other ranks that there are no more steps, so that they stop following; no step can be computed afterwards.
    public func finish() {
        guard let ranks, ranks.rank == 0 else { return }
        state.withLock { state in
            guard !state.isFinished else { return }
            state.isFinished = true
            // Where a rank is gone, the others know it already.
            _ = try? ranks.gatherMessages(StepMessage.end.bytes)
        }
    }

    /// Lets the other ranks know, as long as this runner lives, that rank 0 is there even while it has nothing to do.
    private func sayWait(every interval: Duration) {
        repeatOnThread(every: interval) { [weak self] in self?.saysWait() ?? false }
    }

    /// Says it, unless a step says the same.
    ///
    /// - Returns: whether there is a point in saying it again.
    private func saysWait() -> Bool {
        let isLive = state.withLockIfAvailable { state in
            guard !state.isFinished, let ranks else { return false }
            return (try? ranks.gatherMessages(StepMessage.wait.bytes)) != nil
        }
        return isLive ?? true
    }
}
