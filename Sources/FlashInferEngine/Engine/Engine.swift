internal import FlashInferCore

/// Serves many requests at once from one model over one paged cache: continuous batching, prefix reuse, preemption.
///
/// ```swift
/// let engine = try Engine(runner: runner, configuration: configuration) { decoder }
/// for try await event in try await engine.submit(tokens, options: GenerationOptions(maxTokens: 64)) {
///     if case .token(let token) = event { print(token.text, terminator: "") }
/// }
/// ```
///
/// All decisions are made by the pure ``Scheduler``; this actor owns it, feeds the runner on a thread of its own, and
/// turns tokens into text. It works while there are requests and does nothing at all when there are none. To cancel a
/// request, cancel the task that reads its stream, or drop the stream: its pages are free before the next step.
public actor Engine {
    /// The size and the limits.
    public nonisolated let configuration: EngineConfiguration
    private let runner: any ModelRunner
    private let makeDecoder: @Sendable () -> any TextDecoder
    private let executor = ThreadExecutor()

    private var scheduler: Scheduler
    private var generations: [RequestID: Generation] = [:]
    private var isLooping = false
    private var violation: InvariantViolation?
    private var nextID: UInt64 = 0
    private var steps = 0
    private var computedTokens = 0

    /// Makes an idle engine.
    ///
    /// - Parameters:
    ///   - runner: the model; its cache must have the configuration's pages.
    ///   - configuration: the size and the limits.
    ///   - makeDecoder: makes the text decoder of each request.
    /// - Throws: ``EngineError/scheduling(_:)`` when a number of the configuration is out of range.
    public init(
        runner: any ModelRunner, configuration: EngineConfiguration,
        makeDecoder: @escaping @Sendable () -> any TextDecoder
    ) throws(EngineError) {
        self.runner = runner
        self.configuration = configuration
        self.makeDecoder = makeDecoder
        do {
            let pool = try BlockPool(pageCount: configuration.pageCount, pageSize: configuration.pageSize)
            scheduler = try Scheduler(configuration: configuration.scheduling, pool: pool)
        } catch { throw .scheduling(error) }
    }

    /// What the engine is doing now.
    public var status: EngineStatus {
        EngineStatus(
            running: scheduler.runningCount, waiting: scheduler.waitingCount, pageCount: configuration.pageCount,
            heldPages: scheduler.pool.heldCount, peakHeldPages: scheduler.pool.peakHeldCount,
            cachedPages: scheduler.pool.cachedCount, steps: steps, computedTokens: computedTokens)
    }

    /// Submits a request.
    ///
    /// - Parameters:
    ///   - promptTokens: the token ids to continue, at least one.
    ///   - options: the limits and the sampling.
    /// - Returns: the request's events: tokens, then one `finished`; or an error of the model runner. The stream
    ///   buffers without bound, so a slow reader holds up nobody.
    /// - Throws: ``EngineError`` when the request is malformed or can never fit.
    public func submit(
        _ promptTokens: [Int32], options: GenerationOptions = GenerationOptions()
    ) throws(EngineError) -> AsyncThrowingStream<GenerationEvent, any Error> {
        if let violation { throw .inconsistent(violation) }
        try validate(promptTokens, options)
        let id = RequestID(nextID)
        let request = Request(
            id: id, promptTokens: promptTokens, maxTokens: options.maxTokens,
            stopTokens: options.stopTokens ?? configuration.endOfSequenceTokens, sampling: options.sampling)
        do { try scheduler.submit(request) } catch { throw .scheduling(error) }
        nextID += 1
        let (stream, events) = AsyncThrowingStream.makeStream(of: GenerationEvent.self)
        events.onTermination = { [weak self] termination in
            guard case .cancelled = termination, let self else { return }
            Task { await self.cancel(id) }
        }
        generations[id] = Generation(
            options: options, seed: options.sampling.seed ?? .random(in: .min ... .max), decoder: makeDecoder(),
            events: events)
        startLoop()
        return stream
    }

    /// Ends every request now with ``FinishReason/cancelled``; each stream still gets its `finished` event.
    public func cancelAll() {
        for id in scheduler.unfinished { cancel(id) }
    }

    /// Ends every request, and lets the other ranks go, where there are any: they return from ``LanguageModel/follow(_:on:across:progress:)``.
    ///
    /// An engine that runs by itself can go on without this.
    public func finish() {
        cancelAll()
        runner.finish()
    }

    private func cancel(_ id: RequestID) {
        guard let counts = scheduler.abort(id) else { return }
        generations.removeValue(forKey: id)?.finish(.cancelled, counts: counts)
    }

    private func validate(_ promptTokens: [Int32], _ options: GenerationOptions) throws(EngineError) {
        do { try options.sampling.validate() } catch { throw .sampling(error) }
        if let position = options.stopStrings.firstIndex(where: \.isEmpty) {
            throw .emptyStopString(position: position)
        }
        let size = runner.vocabularySize
        if let position = promptTokens.firstIndex(where: { $0 < 0 || Int($0) >= size }) {
            throw .promptTokenOutOfRange(position: position, token: promptTokens[position], vocabularySize: size)
        }
    }
}

// MARK: - The loop

extension Engine {
    /// Starts the loop unless it is running. It holds the engine while there is work, and ends when there is none.
    private func startLoop() {
        guard !isLooping else { return }
        isLooping = true
        Task(executorPreference: executor) { await self.loop() }
    }

    private func loop() async {
        while let batch = scheduler.schedule() {
            assert((try? scheduler.checkInvariants()) != nil)
            do {
                // The actor is free for submissions and cancellations while the runner computes.
                let sampled = try await runner.step(batch, sampling: samplingRows(of: batch))
                try complete(batch, sampled)
            } catch {
                failAll(error)
            }
        }
        isLooping = false
        do { try scheduler.checkInvariants() } catch { violation = error }
    }

    private func samplingRows(of batch: StepBatch) -> [SamplingRow] {
        batch.samplingEntries.map { entry in
            let sequence = scheduler.sequence(entry.id)!
            let generation = generations[entry.id]!
            let parameters = sequence.request.sampling
            return SamplingRow(
                id: entry.id, parameters: parameters, seed: generation.seed, drawIndex: sequence.generatedCount,
                penalizedTokens: parameters.repetitionPenalty == 1 ? [] : sequence.tokens,
                wantsLogProbability: generation.options.wantsLogProbabilities)
        }
    }

    private func complete(_ batch: StepBatch, _ sampled: [SampledToken]) throws(EngineError) {
        steps += 1
        computedTokens += batch.rowCount
        let size = runner.vocabularySize
        if let wrong = sampled.first(where: { $0.token < 0 || Int($0.token) >= size }) {
            throw .sampledTokenOutOfRange(token: wrong.token, vocabularySize: size)
        }
        let updates: [SequenceUpdate]
        do {
            updates = try scheduler.complete(batch, sampled: sampled.map(\.token))
        } catch { throw .scheduling(error) }
        let now = ContinuousClock.now
        for update in updates {
            let ending = generations[update.id]!.send(
                sampled[update.sampledIndex], at: now, ending: update.finishReason)
            guard let ending else { continue }
            // A stop string: the scheduler does not know yet.
            if update.finishReason == nil { scheduler.abort(update.id) }
            generations.removeValue(forKey: update.id)!.finish(ending, counts: update.counts)
        }
    }

    /// Ends every request with `error`. What the failed step left in the pages cannot be trusted, so nothing is kept.
    private func failAll(_ error: any Error) {
        if scheduler.isStepInFlight { scheduler.abandonStep() }
        for id in scheduler.unfinished {
            scheduler.abort(id)
            generations.removeValue(forKey: id)?.fail(error)
        }
        scheduler.forgetAllPrefixes()
    }
}
