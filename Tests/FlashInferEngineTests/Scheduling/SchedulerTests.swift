import FlashInferEngine
import Testing

@Suite struct SchedulerTests {
    /// A scheduler with its fake model, and the tokens each request got.
    struct Bench {
        var scheduler: Scheduler
        var model: FakePagedModel
        var received: [RequestID: [Int32]] = [:]
        var reasons: [RequestID: FinishReason] = [:]
        var counts: [RequestID: SequenceCounts] = [:]

        init(pages: Int, pageSize: Int, _ configuration: SchedulerConfiguration) throws {
            let pool = try BlockPool(pageCount: pages, pageSize: pageSize)
            scheduler = try Scheduler(configuration: configuration, pool: pool)
            model = FakePagedModel(pool: pool)
        }

        /// Runs one step; false when there was nothing to do.
        mutating func step() throws -> Bool {
            guard let batch = scheduler.schedule() else { return false }
            let sampled = model.run(batch, pool: scheduler.pool) { Issue.record("\($0)") }
            for update in try scheduler.complete(batch, sampled: sampled) {
                received[update.id, default: []].append(update.token)
                reasons[update.id] = update.finishReason
                counts[update.id] = update.counts
            }
            try scheduler.checkInvariants()
            return true
        }
    }

    static func prompt(_ count: Int, seed: Int32 = 1) -> [Int32] {
        (0..<Int32(count)).map { ($0 &* 5 &+ seed &* 3) % 6 + 1 }
    }

    @Test func promptsThatCanNeverFitAreRefusedWithTheLimit() throws {
        var bench = try Bench(pages: 4, pageSize: 4, SchedulerConfiguration(contextLength: 100))
        #expect(throws: SchedulingError.promptTooLong(tokens: 17, limit: 16)) {
            try bench.scheduler.submit(Request(id: RequestID(1), promptTokens: Self.prompt(17), maxTokens: 1))
        }
        #expect(throws: SchedulingError.emptyPrompt) {
            try bench.scheduler.submit(Request(id: RequestID(1), promptTokens: [], maxTokens: 1))
        }
        #expect(throws: SchedulingError.invalidMaxTokens(0)) {
            try bench.scheduler.submit(Request(id: RequestID(1), promptTokens: [1], maxTokens: 0))
        }
        // A prompt that fills the pool can still predict one token, whose keys need no room.
        #expect(try bench.scheduler.submit(Request(id: RequestID(2), promptTokens: Self.prompt(16), maxTokens: 9)) == 1)
        #expect(throws: SchedulingError.duplicateRequest(RequestID(2))) {
            try bench.scheduler.submit(Request(id: RequestID(2), promptTokens: [1], maxTokens: 1))
        }
        while try bench.step() {}
        #expect(bench.reasons[RequestID(2)] == .contextFull)
    }

    @Test func configurationsOutOfRangeNameTheNumber() throws {
        let pool = try BlockPool(pageCount: 4, pageSize: 4)
        #expect(
            throws: SchedulingError.invalidConfiguration(
                name: "maxSequences", value: 9, requirement: "at most maxBatchTokens, 8")
        ) {
            try Scheduler(
                configuration: SchedulerConfiguration(contextLength: 8, maxBatchTokens: 8, maxSequences: 9), pool: pool)
        }
        #expect(throws: SchedulingError.self) {
            try Scheduler(configuration: SchedulerConfiguration(contextLength: 1), pool: pool)
        }
    }

    @Test func contextLengthEndsARequest() throws {
        var bench = try Bench(pages: 40, pageSize: 4, SchedulerConfiguration(contextLength: 20))
        #expect(try bench.scheduler.submit(Request(id: RequestID(1), promptTokens: Self.prompt(15), maxTokens: 9)) == 5)
        #expect(throws: SchedulingError.promptTooLong(tokens: 20, limit: 19)) {
            try bench.scheduler.submit(Request(id: RequestID(3), promptTokens: Self.prompt(20), maxTokens: 9))
        }
        while try bench.step() {}
        #expect(bench.received[RequestID(1)]?.count == 5)
        #expect(bench.reasons[RequestID(1)] == .contextFull)
    }

    @Test func decodesComeFirstAndPromptsAreChunked() throws {
        var bench = try Bench(
            pages: 64, pageSize: 4,
            SchedulerConfiguration(contextLength: 200, maxBatchTokens: 16, maxSequences: 8, prefillChunk: 12))
        try bench.scheduler.submit(Request(id: RequestID(1), promptTokens: Self.prompt(3), maxTokens: 50))
        #expect(try bench.step())
        try bench.scheduler.submit(Request(id: RequestID(2), promptTokens: Self.prompt(40, seed: 2), maxTokens: 5))
        let planned = bench.scheduler.schedule()
        let batch = try #require(planned)
        #expect(batch.entries.map(\.id) == [RequestID(1), RequestID(2)])
        #expect(batch.entries.map(\.tokenCount) == [1, 12])
        #expect(batch.entries.map(\.samples) == [true, false])
        #expect(batch.sampledRows == [0])
        #expect(batch.kvLastPageLengths == [4, 4])
        #expect(batch.queryIndptr == [0, 1, 13])
    }

    @Test func requestsWithACommonStartComputeItOnce() throws {
        var bench = try Bench(
            pages: 64, pageSize: 4, SchedulerConfiguration(contextLength: 200, maxBatchTokens: 256, maxSequences: 16))
        for id in 0..<8 {
            let tail = [Int32(id % 6 + 1), 3]
            try bench.scheduler.submit(
                Request(id: RequestID(UInt64(id)), promptTokens: Self.prompt(64) + tail, maxTokens: 1))
        }
        while try bench.step() {}
        // The first computes all 66, the others find 16 full pages.
        #expect(bench.model.computedTokens == 66 + 7 * 2)
        #expect(bench.counts[RequestID(0)]?.cachedPrompt == 0)
        #expect(bench.counts[RequestID(7)]?.cachedPrompt == 64)
    }

    @Test func aFullyCachedPromptStillComputesItsLastToken() throws {
        var bench = try Bench(pages: 16, pageSize: 4, SchedulerConfiguration(contextLength: 64))
        try bench.scheduler.submit(Request(id: RequestID(1), promptTokens: Self.prompt(16), maxTokens: 2))
        while try bench.step() {}
        try bench.scheduler.submit(Request(id: RequestID(2), promptTokens: Self.prompt(16), maxTokens: 2))
        while try bench.step() {}
        #expect(bench.counts[RequestID(2)]?.cachedPrompt == 12)
        #expect(bench.received[RequestID(1)] == bench.received[RequestID(2)])
    }

    @Test func aConversationFindsItsOwnAnswer() throws {
        var bench = try Bench(pages: 32, pageSize: 4, SchedulerConfiguration(contextLength: 128))
        try bench.scheduler.submit(Request(id: RequestID(1), promptTokens: Self.prompt(10), maxTokens: 11))
        while try bench.step() {}
        let turn = Self.prompt(10) + bench.received[RequestID(1)]! + [2, 2, 2]
        try bench.scheduler.submit(Request(id: RequestID(2), promptTokens: turn, maxTokens: 1))
        while try bench.step() {}
        // 10 + 11 tokens were known, 20 of them computed: five full pages.
        #expect(bench.counts[RequestID(2)]?.cachedPrompt == 20)
    }

    @Test func theYoungestIsPushedOutAndLosesNothing() throws {
        var bench = try Bench(pages: 8, pageSize: 2, SchedulerConfiguration(contextLength: 17))
        let prompts = (1...3).map { Self.prompt(4, seed: Int32($0)) }
        for (id, prompt) in prompts.enumerated() {
            try bench.scheduler.submit(Request(id: RequestID(UInt64(id)), promptTokens: prompt, maxTokens: 12))
        }
        while try bench.step() {}
        for (id, prompt) in prompts.enumerated() {
            let (tokens, _) = FakeLanguage.completion(of: prompt, limit: 12, cutBy: false)
            let received = bench.received[RequestID(UInt64(id))]!
            // These requests have no stop token: compare up to where the oracle's text stops.
            #expect(received.prefix(tokens.count) == tokens[...])
            #expect(received.count == 12)
        }
        #expect(bench.counts[RequestID(0)]?.preemptions == 0)
        #expect(bench.counts.values.map(\.preemptions).reduce(0, +) > 0)
        #expect(bench.scheduler.pool.peakHeldCount == 8)
    }

    @Test func aPoolThatHoldsEveryRequestToItsEndServesThemSideBySide() throws {
        // Two pages for each of four requests of 4 + 5 tokens, whose last token needs no room.
        var bench = try Bench(pages: 8, pageSize: 4, SchedulerConfiguration(contextLength: 20))
        for id: Int32 in 0..<4 {
            let request = Request(
                id: RequestID(UInt64(id)), promptTokens: Self.prompt(4, seed: id), maxTokens: 5)
            try bench.scheduler.submit(request)
        }
        #expect(try bench.step())
        #expect(bench.scheduler.runningCount == 4)
        while try bench.step() {}
        #expect(bench.counts.values.map(\.preemptions) == [0, 0, 0, 0])
    }

    @Test func wrongNumberOfSampledTokensIsAnError() throws {
        var bench = try Bench(pages: 8, pageSize: 2, SchedulerConfiguration(contextLength: 17))
        try bench.scheduler.submit(Request(id: RequestID(0), promptTokens: [1, 2], maxTokens: 3))
        let planned = bench.scheduler.schedule()
        let batch = try #require(planned)
        #expect(throws: SchedulingError.sampledTokenCount(expected: 1, found: 2)) {
            try bench.scheduler.complete(batch, sampled: [1, 1])
        }
        #expect(bench.scheduler.isStepInFlight)
        bench.scheduler.abandonStep()
        while try bench.step() {}
        #expect(bench.received[RequestID(0)]?.count == 3)
    }
}
