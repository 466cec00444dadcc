import FlashInferEngine
import Foundation
import TestSupport
import Testing

@Suite struct DecoderRunnerTests {
    private typealias Fixture = DecoderFixture

    @Test(arguments: TinyModelWriter.Architecture.allCases)
    func logitsEqualTheOracle(_ architecture: TinyModelWriter.Architecture) throws {
        let folder = try TemporaryFolder()
        for precision in [TinyModelWriter.Precision.float32, .q41, .q80] {
            let weights = try Fixture.weights(architecture, precision, in: folder)
            let runner = try DecoderRunner(weights, options: Fixture.options(), on: CPUDevice(threads: 2))
            let oracle = DecoderOracle(weights)
            let results = try Fixture.run(runner, Fixture.prompts, steps: 4)
            for (index, prompt) in Fixture.prompts.enumerated() {
                let result = try #require(results[RequestID(UInt64(index))])
                #expect(result.tokens.count == 4)
                for step in 0..<4 {
                    let exact = try oracle.logits(prompt + result.tokens[..<step])
                    let error = zip(result.logits[step], exact).map { abs(Double($0) - $1) }.max()!
                    // Activations are float32, or 16-bit integers in blocks: some 1e-5 of the largest logit, over a few layers.
                    let scale = exact.map(abs).max()!
                    #expect(
                        error < 2e-4 * scale + 1e-5,
                        "\(architecture) \(precision) prompt \(index) step \(step): \(error)")
                }
            }
        }
    }

    /// Each stored number is off by at most half a unit in its last place, 1/16 of it in E4M3; errors of keys and values average out
    /// over the elements of a head, so the logits still point the oracle's way.
    @Test(arguments: [DType.float8E4M3, .float8E5M2, .bfloat16, .float16])
    func narrowCachesStayNearTheOracle(_ cacheType: DType) throws {
        let folder = try TemporaryFolder()
        let weights = try Fixture.weights(.llama, .float32, in: folder)
        let runner = try DecoderRunner(
            weights, options: Fixture.options(cacheType: cacheType), on: CPUDevice(threads: 2))
        let results = try Fixture.run(runner, Fixture.prompts, steps: 3)
        for (index, prompt) in Fixture.prompts.enumerated() {
            let result = try #require(results[RequestID(UInt64(index))])
            for step in 0..<3 {
                let exact = try DecoderOracle(weights).logits(prompt + result.tokens[..<step])
                let pairs = zip(result.logits[step].map(Double.init), exact)
                let dot = pairs.reduce(0) { $0 + $1.0 * $1.1 }
                let norms = pairs.reduce((0.0, 0.0)) { ($0.0 + $1.0 * $1.0, $0.1 + $1.1 * $1.1) }
                let cosine = dot / (norms.0 * norms.1).squareRoot()
                #expect(cosine > (cacheType.byteCount == 1 ? 0.99 : 0.9999), "\(cacheType): \(cosine)")
            }
        }
    }

    /// Samples of one prompt, and prompts with a common start, read what they share once, and give the tokens that each gives alone.
    @Test(arguments: [TinyModelWriter.Architecture.llama, .qwen3]) func sharedPrefixesChangeNoToken(
        _ architecture: TinyModelWriter.Architecture
    ) throws {
        let folder = try TemporaryFolder()
        let weights = try Fixture.weights(architecture, .float32, in: folder)
        var options = Fixture.options(pages: 200, sequences: 12)
        options.maximumBatchTokens = 64
        let start = (0..<150).map { Int32($0 * 7 % 60) }
        // Six samples of one prompt, and other prompts with the same start between them.
        let prompts: [[Int32]] = (0..<12).map { index in
            index % 2 == 0 ? start + [5] : Array(start[..<100]) + [Int32(index), 9, 3]
        }
        let runner = try DecoderRunner(weights, options: options, on: CPUDevice(threads: 2))
        let together = try Fixture.run(runner, prompts, steps: 5)
        #expect(runner.sharedStepCount > 0)
        let alone = try DecoderRunner(weights, options: options, on: CPUDevice(threads: 2))
        for (index, prompt) in prompts.enumerated() {
            let own = try Fixture.run(alone, [prompt], steps: 5)[RequestID(0)]
            let found = try #require(together[RequestID(UInt64(index))])
            #expect(found.tokens == own?.tokens, "prompt \(index)")
        }
        #expect(alone.sharedStepCount == 0)
    }

    @Test func neighboursChangeNothingBitForBit() throws {
        let folder = try TemporaryFolder()
        let weights = try Fixture.weights(.llama, .q41, in: folder)
        let options = Fixture.options(batchInvariant: true, cacheType: .float16)
        let runner = try DecoderRunner(weights, options: options, on: CPUDevice(threads: 2))
        let together = try Fixture.run(runner, Fixture.prompts, steps: 6)
        for (index, prompt) in Fixture.prompts.enumerated() {
            let alone = try #require(try Fixture.run(runner, [prompt], steps: 6)[RequestID(0)])
            #expect(alone.tokens == together[RequestID(UInt64(index))]?.tokens)
            #expect(alone.logits == together[RequestID(UInt64(index))]?.logits)
        }
        let twice = try Fixture.run(runner, [Fixture.prompts[0], Fixture.prompts[0]], steps: 6)
        #expect(twice[RequestID(0)]?.tokens == together[RequestID(0)]?.tokens)
        #expect(twice[RequestID(1)]?.tokens == together[RequestID(0)]?.tokens)
    }

    /// Penalties are those of the definition, and log-probabilities those of the logits before them.
    @Test(arguments: [1, 1.3] as [Float])
    func penaltiesAndLogProbabilities(penalty: Float) throws {
        let folder = try TemporaryFolder()
        let runner = try DecoderRunner(
            Fixture.weights(.llama, .float32, in: folder), options: Fixture.options(), on: CPUDevice(threads: 2))
        var scheduler = try Fixture.scheduler(runner)
        for (index, prompt) in Fixture.prompts.enumerated() {
            _ = try scheduler.submit(
                Request(id: RequestID(UInt64(index)), promptTokens: prompt, maxTokens: 5 + index))
        }
        while let batch = scheduler.schedule() {
            let logits = try runner.logits(batch)
            let rows = batch.samplingEntries.map { entry in
                let sequence = scheduler.sequence(entry.id)!
                return SamplingRow(
                    id: entry.id,
                    parameters: SamplingParameters(
                        temperature: 0, repetitionPenalty: entry.id == RequestID(0) ? 1 : penalty),
                    seed: 0, drawIndex: sequence.generatedCount, penalizedTokens: sequence.tokens,
                    wantsLogProbability: entry.id != RequestID(1))
            }
            let sampled = try runner.run(batch, sampling: rows)
            for ((row, own), found) in zip(zip(rows, logits), sampled) {
                var penalised = own
                for token in Set(row.penalizedTokens).map({ Int($0) }) {
                    let factor = row.parameters.repetitionPenalty
                    penalised[token] = own[token] > 0 ? own[token] / factor : own[token] * factor
                }
                let token = penalised.firstIndex(of: penalised.max()!)!
                #expect(Int(found.token) == token)
                let top = Double(own.max()!)
                let exact = Double(own[token]) - top - log(own.reduce(0) { $0 + exp(Double($1) - top) })
                #expect((found.logProbability != nil) == row.wantsLogProbability)
                if let probability = found.logProbability {
                    #expect(abs(Double(probability) - exact) <= 1e-6 * max(1, abs(exact)))
                }
            }
            _ = try scheduler.complete(batch, sampled: sampled.map(\.token))
        }
    }

    @Test func sampledTokensDependOnSeedAndStepAlone() throws {
        let folder = try TemporaryFolder()
        let runner = try DecoderRunner(
            Fixture.weights(.qwen2, .float32, in: folder), options: Fixture.options(), on: CPUDevice(threads: 1))
        var scheduler = try Scheduler(
            configuration: SchedulerConfiguration(contextLength: 64, maxBatchTokens: 32, maxSequences: 4),
            pool: BlockPool(pageCount: 64, pageSize: 4))
        for id in 0..<2 as Range<UInt64> {
            _ = try scheduler.submit(Request(id: RequestID(id), promptTokens: [5, 6, 7], maxTokens: 4))
        }
        let scheduled = scheduler.schedule()
        let batch = try #require(scheduled)
        #expect(throws: FlashInferError.lengthMismatch("sampling", found: 0, expected: batch.sampledRows.count)) {
            try runner.run(batch, sampling: [])
        }
    }

    @Test func optionsOutOfRangeAreErrors() throws {
        let folder = try TemporaryFolder()
        let weights = try Fixture.weights(.llama, .float32, in: folder)
        let device = RecordingDevice()
        var wrong = Fixture.options()
        wrong.pageCount = 0
        #expect(throws: FlashInferError.invalidArgument("pageCount", found: "0", expected: "in 1 ... 16777216")) {
            try DecoderRunner(weights, options: wrong, on: device)
        }
        wrong = Fixture.options()
        wrong.cacheType = .int32
        #expect(throws: FlashInferError.self) { try DecoderRunner(weights, options: wrong, on: device) }
        wrong = Fixture.options()
        wrong.cacheScale = 0
        #expect(throws: FlashInferError.self) { try DecoderRunner(weights, options: wrong, on: device) }
        #expect(device.liveByteCount == 0)
    }

    @Test func aDecodeStepLaunchesTheSameOperationsInEveryLayer() throws {
        let folder = try TemporaryFolder()
        let device = RecordingDevice()
        let runner = try DecoderRunner(
            Fixture.weights(.llama, .q41, in: folder), options: Fixture.options(), on: device)
        var scheduler = try Scheduler(
            configuration: SchedulerConfiguration(contextLength: 64, maxBatchTokens: 32, maxSequences: 4),
            pool: BlockPool(pageCount: 64, pageSize: 4))
        _ = try scheduler.submit(Request(id: RequestID(0), promptTokens: [5, 6, 7], maxTokens: 4))
        let scheduled = scheduler.schedule()
        let batch = try #require(scheduled)
        _ = try runner.run(batch, sampling: [.greedy(RequestID(0))])
        let kinds = device.operations.map { "\($0)".prefix { $0 != "(" } }
        let layer = [
            "rmsNorm", "linear", "ropeAppendKV", "attention", "linear", "rmsNorm", "linear", "gatedActivation",
            "linear",
        ]
        // The tokens' rows, the layers, then the sampled rows.
        #expect(
            kinds.map(String.init) == ["embedding"] + layer + layer + ["embedding", "rmsNorm", "linear", "sample"])
    }
}
