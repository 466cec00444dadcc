import FlashInferEngine
import Testing

@Suite(.timeLimit(.minutes(1))) struct EngineTests {
    static func prompt(_ seed: UInt64) -> [Int32] {
        var random = SchedulingRandom(seed: seed)
        return (0..<Int.random(in: 1...30, using: &random)).map { _ in Int32.random(in: 1...6, using: &random) }
    }

    @Test func oneRequestGetsItsTokensItsTextAndItsStatistics() async throws {
        let (engine, _) = try Engine.fake()
        let prompt: [Int32] = [1, 2, 3, 4, 5]
        let (tokens, reason) = FakeLanguage.completion(of: prompt, limit: 20, cutBy: false)
        let transcript = try await Transcript(engine.submit(prompt, options: GenerationOptions(maxTokens: 20)))
        #expect(transcript.tokens == tokens)
        #expect(transcript.text == FakeDecoder.text(tokens.filter { $0 != FakeLanguage.stopToken }))
        let summary = try #require(transcript.summary)
        #expect(summary.reason == reason)
        #expect(summary.statistics.counts.generated == tokens.count)
        #expect(summary.statistics.counts.prompt == 5)
        #expect(summary.statistics.interTokenLatencies.count == tokens.count - 1)
        #expect(try #require(summary.statistics.timeToFirstToken) <= summary.statistics.total)
        let status = await engine.status
        #expect(status.running == 0 && status.waiting == 0 && status.heldPages == 0)
        #expect(status.peakHeldPages == (5 + tokens.count - 1 + 3) / 4)
    }

    @Test func manyRequestsInASmallPoolAllGetTheirOwnText() async throws {
        let (engine, runner) = try Engine.fake(pages: 24, pageSize: 4, context: 64, budget: 16)
        try await withThrowingTaskGroup(of: Int.self) { group in
            for seed in 0..<60 {
                group.addTask {
                    let prompt = Self.prompt(UInt64(seed % 25))
                    let options = GenerationOptions(maxTokens: 30, stopTokens: [])
                    let transcript = try await Transcript(engine.submit(prompt, options: options))
                    let oracle = (0..<30).reduce(into: prompt) { tokens, _ in
                        tokens.append(FakeLanguage.next(after: tokens))
                    }
                    #expect(transcript.tokens == Array(oracle[prompt.count...]))
                    #expect(transcript.summary?.reason == .maxTokens)
                    return try #require(transcript.summary).statistics.counts.preemptions
                }
            }
            let preemptions = try await group.reduce(0, +)
            #expect(preemptions > 0)
        }
        #expect(runner.largestBatch > 1)
        #expect(await engine.status.heldPages == 0)
    }

    @Test func stopStringsCutTheTextExactly() async throws {
        let (engine, _) = try Engine.fake()
        let prompt: [Int32] = [3, 1]
        let options = GenerationOptions(maxTokens: 40, stopTokens: [])
        let whole = try await Transcript(engine.submit(prompt, options: options)).text
        for start in 1..<10 {
            let stop = String(whole.dropFirst(start).prefix(3))
            let cut = try #require(whole.firstRange(of: stop))
            var options = options
            options.stopStrings = ["zzz", stop]
            let transcript = try await Transcript(engine.submit(prompt, options: options))
            #expect(transcript.text == whole[..<cut.lowerBound])
            #expect(transcript.summary?.reason == .stopString(stop))
            #expect(transcript.summary?.statistics.counts.generated == transcript.tokens.count)
        }
        #expect(await engine.status.heldPages == 0)
    }

    @Test func malformedRequestsAreRefusedBeforeTheyReachTheRunner() async throws {
        let (engine, runner) = try Engine.fake(pages: 4, context: 200)
        await #expect(throws: EngineError.promptTokenOutOfRange(position: 1, token: 7, vocabularySize: 7)) {
            _ = try await engine.submit([1, 7])
        }
        await #expect(throws: EngineError.promptTokenOutOfRange(position: 0, token: -1, vocabularySize: 7)) {
            _ = try await engine.submit([-1])
        }
        await #expect(throws: EngineError.emptyStopString(position: 1)) {
            _ = try await engine.submit([1], options: GenerationOptions(stopStrings: ["a", ""]))
        }
        await #expect(throws: EngineError.scheduling(.promptTooLong(tokens: 17, limit: 16))) {
            _ = try await engine.submit(Array(repeating: 1, count: 17))
        }
        await #expect(throws: EngineError.self) {
            _ = try await engine.submit([1], options: GenerationOptions(sampling: .init(temperature: .nan)))
        }
        await #expect(throws: EngineError.self) {
            _ = try await engine.submit([1], options: GenerationOptions(sampling: .init(temperature: 1, topP: 1.5)))
        }
        #expect(runner.samplingRows.isEmpty)
    }

    @Test(arguments: [FakeRunner.Fault.throwing(step: 3), .tooFewTokens(step: 3), .wildToken(step: 3)])
    func aFailingRunnerEndsEveryRequestAndTheNextOnesAreServed(_ fault: FakeRunner.Fault) async throws {
        let (engine, _) = try Engine.fake(sequences: 2, fault: fault, pause: .milliseconds(2))
        let options = GenerationOptions(maxTokens: 30, stopTokens: [])
        let streams = try await [1, 2, 3, 4].asyncMap { try await engine.submit([$0], options: options) }
        for stream in streams {
            await #expect(throws: (any Error).self) { _ = try await Transcript(stream) }
        }
        #expect(await engine.status.heldPages == 0)
        #expect(await engine.status.cachedPages == 0)
        let transcript = try await Transcript(engine.submit([1], options: options))
        #expect(transcript.tokens.count == 30)
    }

    // In the next three, the runner blocks in its third step, so that what happens meanwhile is certain.

    @Test func cancellingTheReaderFreesThePages() async throws {
        let runner = GatedRunner(freeSteps: 2)
        let engine = try Engine(runner: runner, configuration: .fake, makeDecoder: { FakeDecoder() })
        let reader = Task {
            let options = GenerationOptions(maxTokens: 90, stopTokens: [])
            return try await Transcript(engine.submit([1, 2, 3], options: options))
        }
        while !runner.isBlocked { await Task.yield() }
        reader.cancel()
        #expect(try await reader.value.tokens.count <= 2)
        while await engine.status.running > 0 { await Task.yield() }
        #expect(await engine.status.heldPages == 0)
        runner.open()
    }

    @Test func droppingTheStreamFreesThePages() async throws {
        let runner = GatedRunner(freeSteps: 2)
        let engine = try Engine(runner: runner, configuration: .fake, makeDecoder: { FakeDecoder() })
        do { _ = try await engine.submit([1, 2, 3], options: GenerationOptions(maxTokens: 90, stopTokens: [])) }
        while await engine.status.running + engine.status.waiting > 0 { await Task.yield() }
        #expect(await engine.status.heldPages == 0)
        #expect(await engine.status.steps <= 2)
        runner.open()
    }

    @Test func cancelAllStillReportsStatistics() async throws {
        let runner = GatedRunner(freeSteps: 2)
        var configuration = EngineConfiguration.fake
        configuration.scheduling.maxSequences = 1
        let engine = try Engine(runner: runner, configuration: configuration, makeDecoder: { FakeDecoder() })
        let options = GenerationOptions(maxTokens: 90, stopTokens: [])
        let running = try await engine.submit([1, 2, 3], options: options)
        let waiting = try await engine.submit([3, 2, 1], options: options)
        while !runner.isBlocked { await Task.yield() }
        await engine.cancelAll()
        let transcript = try await Transcript(running)
        #expect(transcript.summary?.reason == .cancelled)
        #expect(transcript.tokens.count == 2)
        #expect(transcript.summary?.statistics.counts.generated == 2)
        #expect(try await Transcript(waiting).summary?.statistics.timeToFirstToken == nil)
        runner.open()
    }

    /// More runners block their threads than the cooperative pool has, until an ordinary task lets them go on: if they
    /// blocked the pool's threads, that task would never run.
    @Test func blockingRunnersDoNotStarveOtherTasks() async throws {
        let gates = (0..<64).map { _ in GatedRunner() }
        let engines = try gates.map { try Engine(runner: $0, configuration: .fake, makeDecoder: { FakeDecoder() }) }
        let streams = try await engines.asyncMap {
            try await $0.submit([1, 2, 3], options: GenerationOptions(maxTokens: 1))
        }
        while !gates.allSatisfy({ $0.isBlocked }) { await Task.yield() }
        await Task { for gate in gates { gate.open() } }.value
        for stream in streams { #expect(try await Transcript(stream).tokens.count == 1) }
    }

    @Test func samplingRowsCarrySeedDrawAndHistory() async throws {
        let (engine, runner) = try Engine.fake()
        let sampling = SamplingParameters(temperature: 1, repetitionPenalty: 1.1, seed: 99)
        let options = GenerationOptions(
            maxTokens: 4, sampling: sampling, stopTokens: [], wantsLogProbabilities: true)
        let transcript = try await Transcript(engine.submit([1, 2], options: options))
        let rows = runner.samplingRows
        #expect(rows.map(\.seed) == [99, 99, 99, 99])
        #expect(rows.map(\.drawIndex) == [0, 1, 2, 3])
        #expect(rows.map(\.penalizedTokens) == (0..<4).map { [1, 2] + transcript.tokens.prefix($0) })
        #expect(rows.filter(\.wantsLogProbability).count == 4)
    }

    @Test func anIdleEngineIsFreed() async throws {
        weak var released: Engine?
        do {
            let (engine, _) = try Engine.fake()
            released = engine
            _ = try await Transcript(engine.submit([1], options: GenerationOptions(maxTokens: 3)))
        }
        for _ in 0..<1000 where released != nil { try await Task.sleep(for: .milliseconds(1)) }
        #expect(released == nil)
    }
}

extension Array {
    fileprivate func asyncMap<Result>(_ transform: (Element) async throws -> Result) async rethrows -> [Result] {
        var results: [Result] = []
        for element in self { results.append(try await transform(element)) }
        return results
    }
}
