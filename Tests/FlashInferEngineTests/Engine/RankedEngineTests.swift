import FlashInferEngine
import TestSupport
import Testing

/// An engine whose cache lies on several ranks: what a user of it sees.
@Suite(.timeLimit(.minutes(2))) struct RankedEngineTests {
    private typealias Fixture = DecoderFixture

    private let folder: TemporaryFolder
    private let weights: ModelWeights

    init() throws {
        folder = try TemporaryFolder()
        weights = try Fixture.weights(.llama, .float32, in: folder)
    }

    /// An engine on rank 0; the others are threads that end with it.
    private func engine(ranks count: Int, pageSize: Int, pages: Int, sequences: Int = 8) throws -> Engine {
        let options = Fixture.options(pageSize: pageSize, pages: pages, sequences: sequences)
        let ranks = ThreadCommunicator.ranks(count)
        RankFixture.follow(ranks[1...], weights, options)
        let runner = try DecoderRunner(weights, options: options, on: CPUDevice(threads: 1), across: ranks[0])
        return try Engine(
            runner: runner,
            configuration: EngineConfiguration(
                scheduling: SchedulerConfiguration(
                    contextLength: 256, maxBatchTokens: options.maximumBatchTokens, maxSequences: sequences,
                    prefillChunk: 16),
                pageCount: pages, pageSize: runner.positionsPerPage, endOfSequenceTokens: []),
            makeDecoder: { NoText() })
    }

    private func transcripts(_ engine: Engine, _ prompts: [[Int32]], tokens: Int) async throws -> [Transcript] {
        let options = GenerationOptions(maxTokens: tokens)
        return try await withThrowingTaskGroup(of: (Int, Transcript).self) { group in
            for (index, prompt) in prompts.enumerated() {
                let stream = try await engine.submit(prompt, options: options)
                group.addTask { (index, try await Transcript(stream)) }
            }
            return try await group.reduce(into: []) { $0.append($1) }.sorted { $0.0 < $1.0 }.map(\.1)
        }
    }

    /// Twelve texts with a common start, come as they come, in a pool that holds some of them at a time.
    @Test(arguments: [2, 4]) func aCrowdInATinyPoolGetsTheTokensOfOneRank(ranks: Int) async throws {
        let start = RankFixture.prompt(32, seed: 1)
        let prompts = (0..<12).map { start + RankFixture.prompt(3 + $0 * 5, seed: $0) }
        let alone = try engine(ranks: 1, pageSize: 4, pages: 256)
        let expected = try await transcripts(alone, prompts, tokens: 24)
        let together = try engine(ranks: ranks, pageSize: 2, pages: 128 / (2 * ranks))
        let found = try await transcripts(together, prompts, tokens: 24)
        #expect(found.map(\.tokens) == expected.map(\.tokens))
        let counts = found.compactMap { $0.summary?.statistics.counts }
        #expect(counts.contains { $0.preemptions > 0 })
        #expect(counts.contains { $0.cachedPrompt >= 32 / (2 * ranks) * (2 * ranks) })
        let status = await together.status
        #expect(status.heldPages == 0)
        await together.finish()
    }

    /// A prompt that is too long for the cache of one rank, or of two, is not for four.
    @Test func aCacheOfMoreRanksHoldsLongerTexts() async throws {
        let prompt = RankFixture.prompt(200, seed: 7)
        let whole = try engine(ranks: 1, pageSize: 4, pages: 64)
        let expected = try await transcripts(whole, [prompt], tokens: 8)[0].tokens
        for ranks in [1, 2] {
            let engine = try engine(ranks: ranks, pageSize: 4, pages: 16)
            await #expect(throws: EngineError.scheduling(.promptTooLong(tokens: 200, limit: 64 * ranks))) {
                try await engine.submit(prompt)
            }
            await engine.finish()
        }
        let four = try engine(ranks: 4, pageSize: 4, pages: 16)
        #expect(try await transcripts(four, [prompt], tokens: 8)[0].tokens == expected)
        #expect(await four.status.peakHeldPages == 13)
        await four.finish()
    }

    @Test func cancelledRequestsLeaveTheRanksInStep() async throws {
        let engine = try engine(ranks: 2, pageSize: 4, pages: 64)
        let prompt = RankFixture.prompt(20, seed: 3)
        let expected = try await transcripts(engine, [prompt], tokens: 12)[0].tokens
        for _ in 0..<3 {
            var seen = 0
            for try await _ in try await engine.submit(prompt, options: GenerationOptions(maxTokens: 200)) {
                seen += 1
                if seen == 3 { break }
            }
            #expect(try await transcripts(engine, [prompt], tokens: 12)[0].tokens == expected)
        }
        await engine.finish()
        await #expect(throws: DecoderError.self) { try await transcripts(engine, [prompt], tokens: 12) }
    }

    @Test func aRankThatIsGoneEndsEveryRequest() async throws {
        let options = Fixture.options()
        var ranks = ThreadCommunicator.ranks(2, timeout: .seconds(20))
        let first = ranks.removeFirst()
        // The other rank is there for the start, and ends then.
        startThreads(ranks) { [weights] thread in
            _ = try? DecoderRunner(weights, options: options, on: CPUDevice(threads: 1), across: thread)
        }
        ranks = []
        let runner = try DecoderRunner(weights, options: options, on: CPUDevice(threads: 1), across: first)
        let engine = try Engine(
            runner: runner,
            configuration: EngineConfiguration(
                scheduling: SchedulerConfiguration(contextLength: 64, maxBatchTokens: 32, maxSequences: 4),
                pageCount: options.pageCount, pageSize: runner.positionsPerPage, endOfSequenceTokens: []),
            makeDecoder: { NoText() })
        await #expect {
            _ = try await Transcript(engine.submit([5, 6, 7]))
        } throws: { error in
            if case FlashInferError.rankFailure(rank: 1, _, _) = error { true } else { false }
        }
        await engine.finish()
    }
}

/// Tokens of the tiny models stand for no text.
private struct NoText: TextDecoder {
    mutating func append(_ token: Int32) -> String { "" }

    mutating func finish() -> String { "" }
}
