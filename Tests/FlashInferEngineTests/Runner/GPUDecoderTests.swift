import FlashInferEngine
import Foundation
import TestSupport
import Testing

/// The first GPU that can run a model, and the real model for it.
enum EngineTestMachine {
    static let hasGPU = (try? DeviceChoice.cuda(0).makeDevice()) != nil
    static let needsGPU: Comment =
        "needs a GPU with NVRTC or a bundle, and cuBLASLt; 'flashinfer doctor' says what is missing"

    /// `$FLASHINFER_TEST_MODEL`, or the catalogue's SmolLM2 where the user has fetched it: the same Q4_1 file.
    static let model: String? = {
        if let path = ProcessInfo.processInfo.environment["FLASHINFER_TEST_MODEL"], !path.isEmpty { return path }
        return ModelStore().contains(.smolLM2) ? "smollm2" : nil
    }()
    static let needsModel: Comment =
        "needs SmolLM2: 'flashinfer demo' fetches it, or $FLASHINFER_TEST_MODEL is its file"
}

/// The decoder on a real GPU. Steps of one token a request are captured from the second of their size on.
@Suite(
    .serialized, .timeLimit(.minutes(5)), .enabled(if: EngineTestMachine.hasGPU, EngineTestMachine.needsGPU))
struct GPUDecoderTests {
    private typealias Fixture = DecoderFixture

    /// A device of its own for each test: a capture keeps other threads off.
    private func device() throws -> any Device { try DeviceChoice.cuda(0).makeDevice() }

    struct Case: Sendable, CustomTestStringConvertible {
        var architecture: TinyModelWriter.Architecture
        var precision: TinyModelWriter.Precision
        var cacheType: DType
        var isTied: Bool

        var testDescription: String { "\(architecture) \(precision) \(cacheType)\(isTied ? " tied" : "")" }

        /// Every family, weight type on the GPU, place of the embedding and kind of cache.
        static let all =
            TinyModelWriter.Architecture.allCases.flatMap { architecture in
                [
                    Case(architecture: architecture, precision: .q41, cacheType: .float16, isTied: false),
                    Case(architecture: architecture, precision: .bfloat16, cacheType: .bfloat16, isTied: true),
                ]
            } + [
                Case(architecture: .llama, precision: .float32, cacheType: .float16, isTied: true),
                Case(architecture: .llama, precision: .q80, cacheType: .float8E4M3, isTied: false),
                Case(architecture: .qwen3, precision: .bfloat16, cacheType: .float16, isTied: false),
            ]
    }

    @Test(arguments: Case.all)
    func logitsAreNearTheOracle(_ model: Case) throws {
        let folder = try TemporaryFolder()
        let weights = try Fixture.weights(
            model.architecture, model.precision, in: folder, headDim: 64, tiedEmbeddings: model.isTied)
        let options = Fixture.options(pageSize: 16, cacheType: model.cacheType)
        let runner = try DecoderRunner(weights, options: options, on: device())
        let oracle = DecoderOracle(weights)
        // Chunks of 7 tokens: the first prompt takes three steps, beside others' decode.
        let results = try Fixture.run(runner, Fixture.prompts, steps: 8, chunk: 7)
        for (index, prompt) in Fixture.prompts.enumerated() {
            let result = try #require(results[RequestID(UInt64(index))])
            #expect(result.tokens.count == 8)
            for step in 0..<8 {
                let exact = try oracle.logits(prompt + result.tokens[..<step])
                let found = result.logits[step].map(Double.init)
                let place = "\(model.testDescription) prompt \(index) step \(step)"
                if model.cacheType.byteCount == 1 {
                    // A stored number is off by up to 1/16, and errors average out over a head: as on the CPU.
                    let dot = zip(found, exact).reduce(0) { $0 + $1.0 * $1.1 }
                    let norms = [found, exact].map { $0.reduce(0) { $0 + $1 * $1 }.squareRoot() }
                    #expect(dot > 0.99 * norms[0] * norms[1], "\(place): \(dot / norms[0] / norms[1])")
                    continue
                }
                let error = zip(found, exact).map { abs($0 - $1) }.max()!
                let scale = exact.map(abs).max()!
                // Inputs of products, queries, keys and values are rounded to 8 or 11 bits, some ten roundings on the way of
                // a logit.
                let unit = model.precision == .bfloat16 || model.cacheType == .bfloat16 ? 0x1p-8 : 0x1p-11
                #expect(error < 10 * unit * scale, "\(place): \(error / scale)")
            }
        }
    }

    /// A batch that shrinks from 5 to 1 in buckets of 8, 4, 2 and 1, and twice more when all are captured.
    @Test func replayedStepsGiveTheTokensOfTheirFirstRun() throws {
        let folder = try TemporaryFolder()
        let weights = try Fixture.weights(.llama, .q41, in: folder, headDim: 64)
        let options = Fixture.options(pageSize: 16, pages: 128, sequences: 8, cacheType: .float16)
        let runner = try DecoderRunner(weights, options: options, on: device())
        let prompts: [[Int32]] = Fixture.prompts + [[12, 13], [50, 3, 3, 9, 17, 25]]
        let first = try Fixture.tokens(runner, prompts, steps: 12)
        for _ in 0..<2 { #expect(try Fixture.tokens(runner, prompts, steps: 12) == first) }
    }

    @Test func aTextThatOutgrowsItsCaptureGoesOn() throws {
        let folder = try TemporaryFolder()
        let weights = try Fixture.weights(.llama, .float32, in: folder, headDim: 64)
        let options = Fixture.options(pageSize: 1, pages: 600, sequences: 2, cacheType: .float16)
        let runner = try DecoderRunner(weights, options: options, on: device())
        let oracle = DecoderOracle(weights)
        let results = try Fixture.run(runner, [Fixture.prompts[0]], steps: 150)
        let result = try #require(results[RequestID(0)])
        for step in [0, 40, 60, 107, 149] {
            let exact = try oracle.logits(Fixture.prompts[0] + result.tokens[..<step])
            let error = zip(result.logits[step], exact).map { abs(Double($0) - $1) }.max()!
            #expect(error < 10 * 0x1p-11 * exact.map(abs).max()!, "step \(step)")
        }
    }

    @Test func sampledTokensDependOnTheSeedAlone() throws {
        let folder = try TemporaryFolder()
        let weights = try Fixture.weights(.llama, .q80, in: folder, headDim: 64)
        let options = Fixture.options(pageSize: 16, pages: 128, sequences: 8, cacheType: .float16)
        let runner = try DecoderRunner(weights, options: options, on: device())
        for parameters in [
            SamplingParameters(temperature: 0.8, topK: 20, topP: 0.95), SamplingParameters(repetitionPenalty: 1.3),
        ] {
            let first = try Fixture.tokens(runner, Fixture.prompts, steps: 8, parameters: parameters)
            #expect(try Fixture.tokens(runner, Fixture.prompts, steps: 8, parameters: parameters) == first)
        }
    }

    @Test func whatTheGPUHasNotIsSaidAtTheStart() throws {
        let folder = try TemporaryFolder()
        let weights = try Fixture.weights(.llama, .q80, in: folder, headDim: 64)
        for options in [
            Fixture.options(pageSize: 16, cacheType: .float32),
            Fixture.options(pageSize: 16, batchInvariant: true, cacheType: .float16),
        ] {
            #expect {
                _ = try DecoderRunner(weights, options: options, on: device())
            } throws: { error in
                if case FlashInferError.unsupported = error { true } else { false }
            }
        }
    }
}

/// The real model on a real GPU: the ids that the CPU's tests check against the exact reference.
@Suite(
    .serialized, .timeLimit(.minutes(5)), .enabled(if: EngineTestMachine.hasGPU, EngineTestMachine.needsGPU),
    .enabled(if: EngineTestMachine.model != nil, EngineTestMachine.needsModel))
struct GPULanguageModelTests {
    private func model() throws -> LanguageModel { try LanguageModel(named: EngineTestMachine.model!) }

    @Test func theQuestionGetsTheReferenceAnswer() async throws {
        let engine = try model().makeEngine(on: DeviceChoice.cuda(0).makeDevice())
        for _ in 0..<2 {
            let transcript = try await Transcript(engine.submit(LanguageModelTests.questionIDs))
            #expect(transcript.tokens == LanguageModelTests.answerIDs)
            #expect(transcript.text == "The capital of France is Paris.")
        }
    }

    @Test func greedyIDsEqualTheExactReference() async throws {
        let model = try model()
        let engine = try model.makeEngine(on: DeviceChoice.cuda(0).makeDevice())
        let story = try await Transcript(
            engine.submit(
                model.tokenizer.encode("Once upon a time", addSpecialTokens: false), options: .init(maxTokens: 64)))
        #expect(story.tokens == LanguageModelTests.storyIDs)
    }

    @Test func aCrowdInATinyPoolGetsTheSameAnswer() async throws {
        var options = DecoderOptions()
        options.pageSize = 8
        options.pageCount = 8
        options.maximumBatchTokens = 24
        let engine = try model().makeEngine(
            options, contextLength: 64, on: DeviceChoice.cuda(0).makeDevice())
        try await withThrowingTaskGroup(of: Transcript.self) { group in
            for _ in 0..<12 { group.addTask { try await Transcript(engine.submit(LanguageModelTests.questionIDs)) } }
            for try await transcript in group { #expect(transcript.tokens == LanguageModelTests.answerIDs) }
        }
    }

    /// Weights are dequantised on all processors and sent as they come: SmolLM2's 135 million in about a second with a context.
    @Test func loadingIsQuick() throws {
        let (model, device) = try (model(), DeviceChoice.cuda(0).makeDevice())
        let time = try ContinuousClock().measure { _ = try model.makeEngine(on: device) }
        #expect(time < .seconds(3), "loading took \(time)")
        print("GPU load: \(time)")
    }
}
