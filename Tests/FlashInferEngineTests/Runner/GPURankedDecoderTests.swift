import FlashInferEngine
import TestSupport
import Testing

/// Decoders whose keys are spread over ranks with real GPUs.
@Suite(
    .serialized, .timeLimit(.minutes(5)), .enabled(if: EngineTestMachine.hasGPU, EngineTestMachine.needsGPU))
struct GPURankedDecoderTests {
    private typealias Fixture = DecoderFixture

    struct Case: Sendable, CustomTestStringConvertible {
        var architecture: TinyModelWriter.Architecture
        var precision: TinyModelWriter.Precision
        var cacheType: DType

        var testDescription: String { "\(architecture) \(precision) \(cacheType)" }

        static let all = [
            Case(architecture: .llama, precision: .q41, cacheType: .float16),
            Case(architecture: .qwen3, precision: .bfloat16, cacheType: .bfloat16),
        ]
    }

    private static let prompts = Fixture.prompts + [RankFixture.prompt(120, seed: 1), RankFixture.prompt(33, seed: 2)]

    /// Logits at every step, chunks of prompts beside others' decode, against the oracle.
    private func check(_ model: Case, _ weights: ModelWeights, _ results: [RequestID: DecoderFixture.Result]) throws {
        let oracle = DecoderOracle(weights)
        for (index, prompt) in Self.prompts.enumerated() {
            let result = try #require(results[RequestID(UInt64(index))])
            for step in result.tokens.indices {
                let exact = try oracle.logits(prompt + result.tokens[..<step])
                let error = zip(result.logits[step], exact).map { abs(Double($0) - $1) }.max()!
                // As on one GPU, and a rounding more of each rank's states.
                let unit = model.precision == .bfloat16 || model.cacheType == .bfloat16 ? 0x1p-8 : 0x1p-11
                #expect(error < 12 * unit * exact.map(abs).max()!, "\(model) prompt \(index) step \(step)")
            }
        }
    }

    /// Two and three ranks of one GPU, by way of the host.
    @Test(arguments: Case.all, [2, 3])
    func ranksOfOneGPUAreNearTheOracle(_ model: Case, ranks: Int) throws {
        let folder = try TemporaryFolder()
        let weights = try Fixture.weights(model.architecture, model.precision, in: folder, headDim: 64)
        let options = Fixture.options(pageSize: 16, cacheType: model.cacheType)
        let results = try RankFixture.onRanks(
            ranks, weights, options, device: { _ in try DeviceChoice.cuda(0).makeDevice() },
            join: { try Communicators.join($0, on: $1, transport: .host) }
        ) { try Fixture.run($0, Self.prompts, steps: 8, chunk: 7) }
        try check(model, weights, results)
    }

    private static let hasTwoGPUs = (try? DeviceChoice.cuda(1).makeDevice()) != nil

    /// Decode steps are captured with their collectives.
    @Test(.enabled(if: hasTwoGPUs, "needs two GPUs, and NCCL"), arguments: Case.all)
    func twoGPUsAreNearTheOracleAndReplay(_ model: Case) throws {
        let folder = try TemporaryFolder()
        let weights = try Fixture.weights(model.architecture, model.precision, in: folder, headDim: 64)
        let options = Fixture.options(pageSize: 16, pages: 128, sequences: 8, cacheType: model.cacheType)
        let results = try RankFixture.onRanks(
            2, weights, options, device: { try DeviceChoice.cuda($0).makeDevice() },
            join: { try Communicators.join($0, on: $1) }
        ) { runner in
            let first = try Fixture.tokens(runner, Self.prompts, steps: 12)
            for _ in 0..<2 { #expect(try Fixture.tokens(runner, Self.prompts, steps: 12) == first) }
            #expect(runner.replaysGraphs)
            return try Fixture.run(runner, Self.prompts, steps: 8, chunk: 7)
        }
        try check(model, weights, results)
    }
}
