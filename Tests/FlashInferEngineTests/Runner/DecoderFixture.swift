import FlashInferEngine
import TestSupport

/// Tiny models, and requests stepped through a runner by hand.
enum DecoderFixture {
    static let prompts: [[Int32]] = [
        [5, 9, 2, 40, 17, 3, 8, 21, 60, 11, 12, 13, 14, 7, 19, 33, 2, 2, 5, 44, 31], [7], [30, 31, 5, 9],
    ]

    /// A model in a file of `folder`.
    static func weights(
        _ architecture: TinyModelWriter.Architecture, _ precision: TinyModelWriter.Precision,
        in folder: TemporaryFolder,
        headDim: Int? = nil, tiedEmbeddings: Bool = false, seed: UInt64 = 3
    ) throws -> ModelWeights {
        var writer = TinyModelWriter(architecture: architecture, precision: precision, seed: seed)
        writer.tiedEmbeddings = tiedEmbeddings
        // Blocks of 32 weights need a query width of at least that.
        if precision != .float32 { writer.headDim = 16 }
        if let headDim { writer.headDim = headDim }
        let path = folder.path("model.gguf")
        try writer.writeGGUF(to: path)
        let file = try GGUFFile(path: path)
        return try ModelWeights(gguf: file, config: ModelConfig(gguf: file))
    }

    static func options(
        pageSize: Int = 4, pages: Int = 64, sequences: Int = 4, batchInvariant: Bool = false,
        cacheType: DType = .float32
    ) -> DecoderOptions {
        var options = DecoderOptions()
        options.pageSize = pageSize
        options.pageCount = pages
        options.maximumBatchTokens = 32
        options.maximumSequences = sequences
        options.cacheType = cacheType
        options.isBatchInvariant = batchInvariant
        return options
    }

    struct Result: Sendable {
        var logits: [[Float]] = []
        var tokens: [Int32] = []
    }

    /// A scheduler over all of the runner's pages.
    static func scheduler(_ runner: DecoderRunner, chunk: Int = 32, context: Int = 256) throws -> Scheduler {
        try Scheduler(
            configuration: SchedulerConfiguration(
                contextLength: context, maxBatchTokens: runner.options.maximumBatchTokens,
                maxSequences: runner.options.maximumSequences, prefillChunk: chunk),
            pool: BlockPool(pageCount: runner.options.pageCount, pageSize: runner.positionsPerPage))
    }

    /// Each request's logits at each of its sampled steps, and its greedy tokens.
    static func run(
        _ runner: DecoderRunner, _ prompts: [[Int32]], steps: Int, chunk: Int = 32
    ) throws -> [RequestID: Result] {
        var scheduler = try scheduler(runner, chunk: chunk)
        for (index, prompt) in prompts.enumerated() {
            _ = try scheduler.submit(
                Request(id: RequestID(UInt64(index)), promptTokens: prompt, maxTokens: steps))
        }
        var results: [RequestID: Result] = [:]
        while let batch = scheduler.schedule() {
            let logits = try runner.logits(batch)
            let tokens = logits.map { row in Int32(row.firstIndex(of: row.max()!)!) }
            for (entry, index) in zip(batch.samplingEntries, 0...) {
                results[entry.id, default: Result()].logits.append(logits[index])
                results[entry.id]!.tokens.append(tokens[index])
            }
            _ = try scheduler.complete(batch, sampled: tokens)
        }
        return results
    }

    /// Each request's sampled tokens, by ``DecoderRunner/run(_:sampling:)``; request `index` ends after `steps + index` tokens, so
    /// that batches shrink.
    static func tokens(
        _ runner: DecoderRunner, _ prompts: [[Int32]], steps: Int, parameters: SamplingParameters = .greedy
    ) throws -> [RequestID: [Int32]] {
        var scheduler = try scheduler(runner)
        for (index, prompt) in prompts.enumerated() {
            _ = try scheduler.submit(
                Request(id: RequestID(UInt64(index)), promptTokens: prompt, maxTokens: steps + index))
        }
        var results: [RequestID: [Int32]] = [:]
        while let batch = scheduler.schedule() {
            let sampled = try runner.run(
                batch,
                sampling: batch.samplingEntries.map { entry in
                    let sequence = scheduler.sequence(entry.id)!
                    return SamplingRow(
                        id: entry.id, parameters: parameters, seed: 7, drawIndex: sequence.generatedCount,
                        penalizedTokens: sequence.tokens, wantsLogProbability: false)
                })
            for (entry, token) in zip(batch.samplingEntries, sampled) {
                results[entry.id, default: []].append(token.token)
            }
            _ = try scheduler.complete(batch, sampled: sampled.map(\.token))
        }
        return results
    }
}
