/// The engine's side of one request: its stream, its text, its clock.
struct Generation {
    let options: GenerationOptions
    let seed: UInt64
    private let events: AsyncThrowingStream<GenerationEvent, any Error>.Continuation
    private var decoder: any TextDecoder
    private var matcher: StopStringMatcher
    private let submitted = ContinuousClock.now
    private var latest: ContinuousClock.Instant?
    private var timeToFirstToken: Duration?
    private var interTokenLatencies: [Duration] = []

    init(
        options: GenerationOptions, seed: UInt64, decoder: any TextDecoder,
        events: AsyncThrowingStream<GenerationEvent, any Error>.Continuation
    ) {
        self.options = options
        self.seed = seed
        self.decoder = decoder
        self.events = events
        matcher = StopStringMatcher(options.stopStrings)
    }

    /// Sends `sampled` with the text it completes.
    ///
    /// - Parameter reason: why the scheduler ended the request with this token; nil if it goes on.
    /// - Returns: why the request ends with this token, stop strings considered; nil if it goes on.
    mutating func send(
        _ sampled: SampledToken, at now: ContinuousClock.Instant, ending reason: FinishReason?
    ) -> FinishReason? {
        recordTime(now)
        var raw = ""
        if case .stopToken = reason {} else { raw = decoder.append(sampled.token) }
        if reason != nil { raw += decoder.finish() }
        var (text, stopString) = matcher.append(raw)
        if reason != nil, stopString == nil { text += matcher.finish() }
        events.yield(
            .token(GeneratedToken(id: sampled.token, text: text, logProbability: sampled.logProbability)))
        return stopString.map { .stopString($0) } ?? reason
    }

    /// Sends the last event and closes the stream.
    func finish(_ reason: FinishReason, counts: SequenceCounts) {
        let statistics = GenerationStatistics(
            counts: counts, timeToFirstToken: timeToFirstToken, interTokenLatencies: interTokenLatencies,
            total: ContinuousClock.now - submitted)
        events.yield(.finished(GenerationSummary(reason: reason, statistics: statistics)))
        events.finish()
    }

    /// Closes the stream with an error.
    func fail(_ error: any Error) { events.finish(throwing: error) }

    private mutating func recordTime(_ now: ContinuousClock.Instant) {
        if let latest {
            interTokenLatencies.append(now - latest)
        } else {
            timeToFirstToken = now - submitted
        }
        latest = now
    }
}
