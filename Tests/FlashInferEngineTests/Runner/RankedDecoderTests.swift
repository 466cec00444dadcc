import FlashInferEngine
import TestSupport
import Testing

/// Decoders whose keys are spread over ranks against one that has them all.
@Suite(.timeLimit(.minutes(2))) struct RankedDecoderTests {
    private typealias Fixture = DecoderFixture

    struct Case: Sendable, CustomTestStringConvertible {
        var architecture = TinyModelWriter.Architecture.llama
        var precision = TinyModelWriter.Precision.float32
        var ranks: Int
        var pageSize = 4
        var chunk = 32

        var testDescription: String {
            "\(architecture) \(precision), \(ranks) ranks, pages of \(pageSize), chunks of \(chunk)"
        }

        static let all = [
            Case(ranks: 2), Case(ranks: 4), Case(ranks: 3, pageSize: 1, chunk: 7), Case(ranks: 2, pageSize: 16),
            Case(architecture: .qwen2, ranks: 2, chunk: 5), Case(architecture: .qwen3, ranks: 4, pageSize: 2),
            Case(architecture: .qwen3, precision: .q80, ranks: 2, chunk: 11),
        ]
    }

    @Test(arguments: Case.all)
    func logitsAreThoseOfOneRank(_ model: Case) throws {
        let folder = try TemporaryFolder()
        let weights = try Fixture.weights(model.architecture, model.precision, in: folder)
        let prompts = Fixture.prompts + [RankFixture.prompt(150, seed: 1), RankFixture.prompt(33, seed: 2)]
        let options = Fixture.options(pageSize: model.pageSize, pages: 256)
        let expected = try RankFixture.onRanks(1, weights, options) {
            try Fixture.run($0, prompts, steps: 12, chunk: model.chunk)
        }
        let found = try RankFixture.onRanks(model.ranks, weights, options) {
            try Fixture.run($0, prompts, steps: 12, chunk: model.chunk)
        }
        for (id, request) in expected {
            let result = try #require(found[id])
            #expect(result.tokens == request.tokens)
            for (found, wanted) in zip(result.logits, request.logits) {
                // The same products of the same numbers; attention is summed in another order, in float32.
                let scale = wanted.map(abs).max()!
                let bound: Float = model.precision == .float32 ? 1e-4 : 2e-3
                #expect(zip(found, wanted).allSatisfy { abs($0 - $1) <= bound * scale }, "\(id)")
            }
        }
    }

    @Test func sampledTokensAreThoseOfOneRank() throws {
        let folder = try TemporaryFolder()
        let weights = try Fixture.weights(.llama, .float32, in: folder)
        for parameters in [
            SamplingParameters(temperature: 0.8, topK: 20, topP: 0.95), SamplingParameters(repetitionPenalty: 1.3),
        ] {
            let run: @Sendable (DecoderRunner) throws -> [RequestID: [Int32]] = {
                try Fixture.tokens($0, Fixture.prompts, steps: 9, parameters: parameters)
            }
            #expect(
                try RankFixture.onRanks(2, weights, Fixture.options(), run)
                    == RankFixture.onRanks(1, weights, Fixture.options(), run))
        }
    }

    /// A pool of 20 pages of 2 tokens on each of 4 ranks holds two of the texts at a time.
    @Test func sequencesThatArePushedOutComeToTheSame() throws {
        let folder = try TemporaryFolder()
        let weights = try Fixture.weights(.llama, .float32, in: folder)
        let start = RankFixture.prompt(40, seed: 5)
        let prompts = (0..<5).map { start + RankFixture.prompt(8 + $0, seed: 6 + $0) }
        let expected = try RankFixture.onRanks(1, weights, Fixture.options(pages: 128)) {
            try Fixture.tokens($0, prompts, steps: 30)
        }
        let found = try RankFixture.onRanks(4, weights, Fixture.options(pageSize: 2, pages: 20)) {
            try Fixture.tokens($0, prompts, steps: 30)
        }
        #expect(found == expected)
    }

    /// Decode steps are captured with their collectives, on all ranks at the same step.
    @Test func replayedStepsGiveTheTokensOfDirectOnes() throws {
        let folder = try TemporaryFolder()
        let weights = try Fixture.weights(.llama, .float32, in: folder)
        let prompts = Fixture.prompts + [[12, 13], [50, 3, 3, 9, 17, 25]]
        let options = Fixture.options(pageSize: 2, pages: 128, sequences: 8)
        let expected = try RankFixture.onRanks(1, weights, options) { try Fixture.tokens($0, prompts, steps: 6) }
        let (found, again, replays) = try RankFixture.onRanks(
            2, weights, options, device: { _ in ReplayingDevice(threads: 1) },
            join: { ReplayingRanks(threads: $0, replaying: $1 as! ReplayingDevice) }
        ) { runner in
            let found = try Fixture.tokens(runner, prompts, steps: 6)
            return (found, try Fixture.tokens(runner, prompts, steps: 6), runner.replaysGraphs)
        }
        #expect(found == expected)
        #expect(again == expected)
        #expect(replays)
    }

    // MARK: What is refused

    @Test func ranksWithOtherOptionsAreToldApart() throws {
        let folder = try TemporaryFolder()
        let weights = try Fixture.weights(.llama, .float32, in: folder)
        let errors = RankFixture.errors([
            (weights, Fixture.options()), (weights, Fixture.options()), (weights, Fixture.options(pageSize: 8)),
        ])
        let expected = FlashInferError.rankMismatch(
            "the page size", rank: 2, found: "8", expected: "4, as on rank 0")
        #expect(errors == [expected, expected, expected])
    }

    @Test func ranksWithOtherModelsAreToldApart() throws {
        let folders = try (0..<3).map { _ in try TemporaryFolder() }
        let weights = try Fixture.weights(.llama, .float32, in: folders[0])
        for others in [
            try Fixture.weights(.llama, .bfloat16, in: folders[1]),
            try Fixture.weights(.llama, .float32, in: folders[2], seed: 4),
        ] {
            for error in RankFixture.errors([(weights, Fixture.options()), (others, Fixture.options())]) {
                guard case .rankMismatch("the model", rank: 1, let found, let expected)? = error else {
                    Issue.record("\(String(describing: error))")
                    continue
                }
                #expect(!expected.hasPrefix(found) && found.hasPrefix("llama of 2 layers"))
            }
        }
    }

    @Test func whatRanksCannotDoIsSaidBeforeAnythingRuns() throws {
        let folder = try TemporaryFolder()
        let windows = try Fixture.weights(.gemma3, .float32, in: folder)
        let plain = try Fixture.weights(.llama, .float32, in: try TemporaryFolder())
        for (weights, options, what) in [
            (windows, Fixture.options(), "sliding windows"), (plain, Fixture.options(batchInvariant: true), "same bit"),
        ] {
            for error in RankFixture.errors([(weights, options), (weights, options)]) {
                guard case .unsupported(let feature, _, _)? = error else {
                    Issue.record("\(String(describing: error))")
                    continue
                }
                #expect(feature.contains(what))
            }
        }
    }

    // MARK: Rank 0 and the others

    @Test func othersWaitAsLongAsRankZeroHasNothingToDo() throws {
        let folder = try TemporaryFolder()
        let weights = try Fixture.weights(.llama, .float32, in: folder)
        let tokens: [[RequestID: [Int32]]?] = try onThreads(ThreadCommunicator.ranks(2, timeout: .seconds(4))) {
            thread in
            let runner = try DecoderRunner(
                weights, options: Fixture.options(), on: CPUDevice(threads: 1), across: thread,
                idleInterval: .milliseconds(100))
            if thread.rank > 0 {
                try runner.follow()
                return nil
            }
            defer { runner.finish() }
            let first = try Fixture.tokens(runner, Fixture.prompts, steps: 2)
            pause(seconds: 4.5)
            #expect(try Fixture.tokens(runner, Fixture.prompts, steps: 2) == first)
            return first
        }
        #expect(tokens[0]?.count == Fixture.prompts.count)
    }

    @Test func nothingIsComputedAfterTheEnd() throws {
        let folder = try TemporaryFolder()
        let weights = try Fixture.weights(.llama, .float32, in: folder)
        try RankFixture.onRanks(2, weights, Fixture.options()) { runner in
            runner.finish()
            runner.finish()
            #expect {
                try Fixture.tokens(runner, Fixture.prompts, steps: 2)
            } throws: {
                if case DecoderError.finished = $0 { true } else { false }
            }
        }
    }

    @Test func stepsAreReadAsTheyWereWritten() throws {
        var scheduler = try Scheduler(
            configuration: SchedulerConfiguration(contextLength: 256, maxBatchTokens: 32, maxSequences: 4),
            pool: BlockPool(pageCount: 64, pageSize: 4))
        for (index, prompt) in (Fixture.prompts + [RankFixture.prompt(90, seed: 3)]).enumerated() {
            _ = try scheduler.submit(Request(id: RequestID(UInt64(index)), promptTokens: prompt, maxTokens: 9))
        }
        var steps = 0
        while let batch = scheduler.schedule() {
            let bytes = StepMessage.step(batch).bytes
            guard case .step(let read)? = StepMessage(bytes) else {
                Issue.record("step \(steps) cannot be read")
                break
            }
            #expect(read.slots == batch.slots && read.tokenIDs == batch.tokenIDs && read.positions == batch.positions)
            #expect(read.kvIndices == batch.kvIndices && read.kvIndptr == batch.kvIndptr)
            #expect(read.queryIndptr == batch.queryIndptr && read.sampledRows == batch.sampledRows)
            #expect(read.kvLastPageLengths == batch.kvLastPageLengths && read.pageSize == batch.pageSize)
            // Nothing that is cut short, or goes on, is a step.
            for count in 0..<bytes.count { #expect(StepMessage(Array(bytes[..<count])) == nil) }
            #expect(StepMessage(bytes + [0, 0, 0, 0]) == nil)
            _ = try scheduler.complete(batch, sampled: batch.sampledRows.map { _ in 5 })
            steps += 1
        }
        #expect(steps > 9)
        #expect(StepMessage(StepMessage.wait.bytes) == .wait)
        #expect(StepMessage(StepMessage.end.bytes) == .end)
        #expect(StepMessage([9, 0, 0, 0]) == nil)
    }
}
