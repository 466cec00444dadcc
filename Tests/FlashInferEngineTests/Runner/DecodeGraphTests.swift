import FlashInferEngine
import TestSupport
import Testing

/// Captured decode steps against direct ones, on a CPU that behaves as a GPU does.
@Suite struct DecodeGraphTests {
    private typealias Fixture = DecoderFixture

    /// Models of every family and place of the embedding, and cache types with and without narrow queries.
    struct Case: Sendable, CustomTestStringConvertible {
        var architecture: TinyModelWriter.Architecture
        var precision: TinyModelWriter.Precision
        var cacheType: DType
        var isTied: Bool

        var testDescription: String { "\(architecture) \(precision) \(cacheType)\(isTied ? " tied" : "")" }

        static let all = [
            Case(architecture: .llama, precision: .q41, cacheType: .float16, isTied: false),
            Case(architecture: .llama, precision: .float32, cacheType: .float32, isTied: true),
            Case(architecture: .qwen2, precision: .q80, cacheType: .bfloat16, isTied: true),
            Case(architecture: .qwen3, precision: .bfloat16, cacheType: .float8E4M3, isTied: false),
            Case(architecture: .gemma3, precision: .float16, cacheType: .float16, isTied: true),
        ]
    }

    /// Requests that end one after another: batches of 5, padded to 8, then of 4, 3, 2 and 1.
    private static let prompts: [[Int32]] = Fixture.prompts + [[12, 13], [50, 3, 3, 9, 17, 25]]

    private func runners(_ model: Case, in folder: TemporaryFolder) throws
        -> (direct: DecoderRunner, replaying: DecoderRunner, device: ReplayingDevice)
    {
        let weights = try Fixture.weights(
            model.architecture, model.precision, in: folder, tiedEmbeddings: model.isTied)
        let options = Fixture.options(pages: 128, sequences: 8, cacheType: model.cacheType)
        let device = ReplayingDevice()
        return (
            try DecoderRunner(weights, options: options, on: CPUDevice(threads: 2)),
            try DecoderRunner(weights, options: options, on: device), device
        )
    }

    @Test(arguments: Case.all)
    func replayedStepsGiveTheTokensOfDirectOnes(_ model: Case) throws {
        let folder = try TemporaryFolder()
        let (direct, replaying, device) = try runners(model, in: folder)
        let expected = try Fixture.tokens(direct, Self.prompts, steps: 6)
        #expect(try Fixture.tokens(replaying, Self.prompts, steps: 6) == expected)
        // The prompts take two steps. Then come four steps of 5 rows, of which the first runs directly, and one each of 4 and 3
        // rows (one bucket), of 2, and two of 1.
        #expect(device.captureCount == 3)
        #expect(device.replayCount == 5)
        // Everything is captured by the third time.
        for _ in 0..<2 { #expect(try Fixture.tokens(replaying, Self.prompts, steps: 6) == expected) }
        #expect(device.captureCount == 4)
    }

    @Test(arguments: Case.all)
    func replayedLogitsEqualDirectOnes(_ model: Case) throws {
        let folder = try TemporaryFolder()
        let (direct, replaying, device) = try runners(model, in: folder)
        let expected = try Fixture.run(direct, Self.prompts, steps: 8, chunk: 7)
        let results = try Fixture.run(replaying, Self.prompts, steps: 8, chunk: 7)
        #expect(device.replayCount > 0)
        for (id, request) in expected {
            let result = try #require(results[id])
            #expect(result.tokens == request.tokens)
            for (found, wanted) in zip(result.logits, request.logits) {
                // Only the cuts of attention differ, as padding changes the shares; what is summed is the same.
                let scale = wanted.map(abs).max()!
                #expect(zip(found, wanted).allSatisfy { abs($0 - $1) <= 1e-4 * scale }, "\(id)")
            }
        }
    }

    @Test func samplingAfterAReplayDrawsTheSameTokens() throws {
        let folder = try TemporaryFolder()
        let (direct, replaying, device) = try runners(Case.all[0], in: folder)
        for parameters in [
            SamplingParameters(temperature: 0.8, topK: 20, topP: 0.95), SamplingParameters(repetitionPenalty: 1.3),
        ] {
            #expect(
                try Fixture.tokens(replaying, Self.prompts, steps: 6, parameters: parameters)
                    == Fixture.tokens(direct, Self.prompts, steps: 6, parameters: parameters))
        }
        #expect(device.replayCount > 0)
    }

    /// Pages of one token: the first capture has room for 64 of them a request, and is made anew for 128 and 256.
    @Test func aTextThatOutgrowsItsCaptureIsCapturedAgain() throws {
        let folder = try TemporaryFolder()
        let weights = try Fixture.weights(.llama, .float32, in: folder)
        let options = Fixture.options(pageSize: 1, pages: 600, sequences: 2)
        let device = ReplayingDevice()
        let replaying = try DecoderRunner(weights, options: options, on: device)
        let direct = try DecoderRunner(weights, options: options, on: CPUDevice(threads: 2))
        let prompts = [Fixture.prompts[0], Fixture.prompts[2]]
        #expect(
            try Fixture.tokens(replaying, prompts, steps: 150) == Fixture.tokens(direct, prompts, steps: 150))
        #expect(device.captureCount == 3)
        // 149 decode steps of both, of which each capture takes one to warm up, and one of the longer request alone.
        #expect(device.replayCount == 146)
    }

    @Test func bucketsHoldTheirRowsAndWasteLittle() {
        #expect((1...8).map { DecodeGraphs.bucket(for: $0, limit: 256) } == [1, 2, 4, 4, 8, 8, 8, 8])
        #expect(
            [9, 16, 17, 25, 33, 48, 49, 64, 65, 97].map { DecodeGraphs.bucket(for: $0, limit: 256) }
                == [16, 16, 24, 32, 48, 48, 64, 64, 80, 112])
        for rows in 1...256 {
            let bucket = DecodeGraphs.bucket(for: rows, limit: 256)!
            #expect(bucket >= rows && bucket <= max(rows + 3, rows * 4 / 3 + 7))
            #expect(DecodeGraphs.bucket(for: bucket, limit: 256) == bucket)
        }
        #expect(DecodeGraphs.bucket(for: 5, limit: 6) == 6)
        #expect(DecodeGraphs.bucket(for: 7, limit: 6) == nil)
        #expect(DecodeGraphs.bucket(for: 0, limit: 6) == nil)
        #expect(DecodeGraphs.bucket(for: 257, limit: 1024) == nil)
    }
}
