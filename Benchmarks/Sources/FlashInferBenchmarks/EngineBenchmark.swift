import ArgumentParser
import FlashInferEngine
import Foundation

struct EngineBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "engine",
        abstract: "Tokens per second of a real model: prefill, decode at several contexts, many sequences at once.",
        discussion: """
            The shapes of llama-bench and llama-batched-bench: prefill of --prompt tokens in one step; 64 decode steps \
            of one sequence after each --contexts; 64 decode steps of several sequences that share a 512-token prompt. \
            Scheduler and sampler are included; text is not. Without a model, the demo's, from the user's cache folder.
            """)

    @OptionGroup var common: CommonOptions

    @Option(help: "A GGUF file or Hugging Face folder, or a catalogue name.")
    var model = "smollm2"

    @Option(help: "Where the model runs: auto, cpu, cuda or cuda:N.")
    var device = "cpu"

    @Option(help: "The type of the KV cache.")
    var cacheType = "float16"

    @Option(help: "Prompt lengths to prefill.")
    var prompts: [Int] = [512, 2048]

    @Option(help: "Contexts to decode after.")
    var contexts: [Int] = [64, 512, 2048]

    @Option(help: "Sequences to decode at once.")
    var batches: [Int] = [1, 8, 16]

    struct Row: Codable {
        var work: String
        var tokensPerSecond: Double
        var millisecondsPerStep: Double
    }

    struct Report: Codable {
        var device: String
        var model: String
        var cacheType: String
        var date: String
        var rows: [Row]
    }

    func run() throws {
        guard let dtype = DType(cacheType), dtype.isCacheType else {
            throw ValidationError(
                "--cache-type must be a cache type such as float16, bfloat16 or int8, not \(cacheType)")
        }
        var options = DecoderOptions()
        options.cacheType = dtype
        options.maximumBatchTokens = max(512, prompts.max() ?? 0, contexts.max() ?? 0)
        options.pageCount = 1024
        guard let choice = DeviceChoice(self.device) else {
            throw ValidationError("--device must be auto, cpu, cuda or cuda:N, not \(self.device)")
        }
        let device = try choice.makeDevice(threads: common.threads)
        let source = try ModelSource.open(ModelStore().locate(model).path)
        let runner = try DecoderRunner(source.weights(source.config()), options: options, on: device)
        print(
            "device: \(device.name), model: \(model), cache: \(dtype), weights read per token: "
                + "\((Double(runner.weightByteCount) / 1e6).fixed(1)) MB")
        var rows: [Row] = []
        for length in prompts { rows.append(try prefill(length, runner)) }
        for context in contexts { rows.append(try decode(context: context, sequences: 1, shared: false, runner)) }
        for count in batches { rows.append(try decode(context: 512, sequences: count, shared: true, runner)) }
        var table = Table(headings: ["work", "tokens/s", "ms a step"])
        for row in rows {
            table.rows.append([row.work, row.tokensPerSecond.fixed(1), row.millisecondsPerStep.fixed(3)])
        }
        table.print()
        try writeJSON(
            Report(
                device: device.name, model: model, cacheType: "\(dtype)",
                date: ISO8601DateFormatter().string(from: Date()), rows: rows), to: common.json)
    }

    /// One step of `length` new tokens.
    private func prefill(_ length: Int, _ runner: DecoderRunner) throws -> Row {
        let times = try time(runs: common.runs) {
            var bench = try StepBench(runner, batchTokens: length)
            try bench.submit(length: length, maxTokens: 1)
            try bench.step()
        }
        return Row(
            work: "prefill \(length)", tokensPerSecond: Double(length) / times.median,
            millisecondsPerStep: times.median * 1e3)
    }

    /// 64 steps of `sequences` sequences after `context` tokens each.
    private func decode(context: Int, sequences: Int, shared: Bool, _ runner: DecoderRunner) throws -> Row {
        let steps = 64
        let times = try (0..<max(3, common.runs / 2)).map { _ in
            var bench = try StepBench(runner, batchTokens: max(512, context))
            for _ in 0..<sequences {
                try bench.submit(length: context, maxTokens: steps + 8)
                // The first prompt is computed before the others come, so that they find its pages.
                while bench.hasPrompts { try bench.step() }
            }
            try bench.alignToOneTokenEach(sequences)
            let duration = try ContinuousClock().measure { for _ in 0..<steps { try bench.step() } }
            return Double(duration.components.seconds) + Double(duration.components.attoseconds) * 1e-18
        }
        let perStep = times.median / Double(steps)
        let name = shared ? "decode x \(sequences), shared prompt 512" : "decode, context \(context)"
        return Row(
            work: name, tokensPerSecond: Double(sequences) / perStep, millisecondsPerStep: perStep * 1e3)
    }
}

/// A scheduler and a runner, stepped by hand.
private struct StepBench {
    private var scheduler: Scheduler
    private let runner: DecoderRunner
    private var next: UInt64 = 0
    private(set) var hasPrompts = false

    init(_ runner: DecoderRunner, batchTokens: Int) throws {
        self.runner = runner
        scheduler = try Scheduler(
            configuration: SchedulerConfiguration(
                contextLength: runner.config.contextLength, maxBatchTokens: batchTokens, prefillChunk: batchTokens),
            pool: BlockPool(pageCount: runner.options.pageCount, pageSize: runner.options.pageSize))
    }

    /// Asks for `maxTokens` tokens after `length` fixed prompt tokens. Nothing stops a sequence early.
    mutating func submit(length: Int, maxTokens: Int) throws {
        let prompt = (0..<length).map { Int32(100 + ($0 * 7919) % 40_000) }
        _ = try scheduler.submit(Request(id: RequestID(next), promptTokens: prompt, maxTokens: maxTokens))
        next += 1
        hasPrompts = true
    }

    /// One step of whatever is there.
    mutating func step() throws {
        guard let batch = scheduler.schedule() else { throw ValidationError("the scheduler has nothing to do") }
        let sampled = try runner.run(batch, sampling: batch.samplingEntries.map { .greedy($0.id) })
        _ = try scheduler.complete(batch, sampled: sampled.map(\.token))
        hasPrompts = batch.entries.contains { !$0.samples }
    }

    /// Checks that the next steps compute one token of each of `count` sequences.
    func alignToOneTokenEach(_ count: Int) throws {
        guard scheduler.runningCount == count else {
            throw ValidationError("only \(scheduler.runningCount) of \(count) sequences are running")
        }
    }
}
