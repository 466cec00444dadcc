import ArgumentParser
import FlashInferEngine
import Foundation

/// `flashinfer generate`
struct GenerateCommand: AsyncParsableCommand {
    enum Form: String, EnumerableFlag {
        case chat, raw

        static func help(for value: Form) -> ArgumentHelp? {
            switch value {
            case .chat: "Put each prompt into the model's chat template (the default if it has one)."
            case .raw: "Continue each prompt as it stands."
            }
        }
    }

    static let configuration = CommandConfiguration(
        commandName: "generate",
        abstract: "Continue or answer one prompt or many.",
        discussion: """
            Prompts come from --prompt and --prompt-file, else from standard input. One prompt streams; many are served \
            together over one cache, and each is printed when it is complete.

              flashinfer generate --prompt "Why is the sky blue?"
              flashinfer generate model.gguf --raw --prompt "Once upon a time" -n 64
              flashinfer generate --json --prompt-file a.txt --prompt-file b.txt

            Started once for each of several ranks, by torchrun or Scripts/launch-ranks, each rank computes with a device of its own and \
            keeps a part of every text's keys, so that longer texts fit. The first rank's prompts are served, and it prints.

              Scripts/launch-ranks 2 flashinfer generate --prompt-file book.txt
            """)

    @Argument(help: "A model by name, a GGUF file or a Hugging Face folder.")
    var model = ModelLoading.defaultModel

    @Option(name: [.short, .long], parsing: .unconditionalSingleValue, help: "A prompt. May be given many times.")
    var prompt: [String] = []

    @Option(help: "A file that holds one prompt; - is standard input. May be given many times.")
    var promptFile: [String] = []

    @Flag var form: Form?

    @Option(parsing: .unconditional, help: "What the model is told before the prompt (with a chat template only).")
    var system: String?

    @Option(parsing: .unconditional, help: "The most prompts served at a time.")
    var parallel = 16

    @Flag(help: "Print one JSON object per prompt and line.")
    var json = false

    @OptionGroup(title: "Sampling")
    var sampling: SamplingFlags

    @OptionGroup(title: "Engine")
    var engine: EngineFlags

    @OptionGroup var output: OutputFlags

    func validate() throws {
        try require("--parallel", parallel, atLeast: 1)
        guard system == nil || form != .raw else { throw ValidationError("--system has no place in a --raw prompt.") }
    }

    func run() async throws {
        let ranks = try LaunchedRanks()
        // The first rank's prompts are everybody's.
        let prompts = ranks.isFirst ? try readPrompts() : []
        try await Interrupt.watching { [self] interrupt in
            let progress = ProgressLine(isQuiet: output.quiet || !ranks.isFirst)
            let model = try await ModelLoading.open(model, progress: progress)
            let tokens = try prompts.map { try encode($0, for: model) }
            let plan = ServingPlan(
                parallel: min(parallel, prompts.count), lengths: tokens.map { $0.count + sampling.maxTokens })
            try await model.serve(plan, engine, across: ranks, progress: progress) { served in
                try await answer(prompts, tokens, served, interrupt)
            }
        }
    }

    private func answer(
        _ prompts: [String], _ tokens: [[Int32]], _ served: Served, _ interrupt: Interrupt
    ) async throws {
        interrupt.setAction { Task { await served.engine.cancelAll() } }
        let run = GenerationRun(engine: served.engine, options: sampling.options)
        let start = ContinuousClock.now
        var statistics: [GenerationStatistics] = []
        var failures = 0
        if prompts.count == 1, !json {
            let answer = try await run.stream(tokens[0]) { Terminal.write($0) }
            Terminal.write("\n")
            if let summary = answer.summary { statistics.append(summary.statistics) }
        } else {
            await run.serve(tokens) { index, answer in
                if let summary = answer.summary { statistics.append(summary.statistics) }
                if answer.failure != nil { failures += 1 }
                show(answer, prompts, index)
            }
        }
        if !output.quiet, !statistics.isEmpty {
            Terminal.writeError("\n" + (await served.table(statistics, elapsed: .now - start)))
        }
        if interrupt.isSet { throw ExitCode(Interrupt.exitStatus) }
        if failures > 0 { throw ExitCode.failure }
    }

    private func show(_ answer: Answer, _ prompts: [String], _ index: Int) {
        if json {
            let record = AnswerRecord(index: index, prompt: prompts[index], answer: answer)
            // Strings and finite numbers always encode.
            if let line = try? record.line() { Terminal.write(line) }
        } else if let failure = answer.failure {
            Terminal.writeError("error: prompt \(index + 1): \(FlashInferCommand.describe(failure))\n")
        } else {
            let title = prompts[index].split(whereSeparator: \.isNewline).first.map { String($0.prefix(60)) } ?? ""
            Terminal.write("--- \(index + 1) of \(prompts.count): \(title)\n\(answer.text)\n")
        }
    }

    private func encode(_ prompt: String, for model: LanguageModel) throws -> [Int32] {
        guard form.map({ $0 == .chat }) ?? model.hasChatTemplate else {
            guard system == nil else { throw CommandError("the model has no chat template, so --system has no place") }
            return try model.tokenizer.encode(prompt)
        }
        let opening = system.map { [ChatMessage(role: "system", content: $0)] } ?? []
        return try model.tokens(of: opening + [ChatMessage(role: "user", content: prompt)])
    }

    private func readPrompts() throws -> [String] {
        if prompt.isEmpty, promptFile.isEmpty {
            guard !Terminal.inputIsTerminal else {
                throw CommandError("there is no prompt: give --prompt TEXT, --prompt-file FILE, or standard input")
            }
            return [try readStandardInput()]
        }
        return try prompt + promptFile.map { try $0 == "-" ? readStandardInput() : read($0) }
    }

    private func read(_ path: String) throws -> String {
        do {
            return try text(Data(contentsOf: URL(fileURLWithPath: path)), from: path)
        } catch let error as CocoaError {
            let reason = (error.underlying as? POSIXError).map { String(cString: strerror($0.code.rawValue)) }
            throw CommandError("cannot read the prompt file \(path)" + (reason.map { ": \($0)" } ?? ""))
        }
    }

    private func readStandardInput() throws -> String {
        try text(FileHandle.standardInput.readDataToEndOfFile(), from: "standard input")
    }

    private func text(_ data: Data, from source: String) throws -> String {
        guard let text = String(data: data, encoding: .utf8) else {
            throw CommandError("\(source) is not UTF-8 text")
        }
        // The newline that ends a file is the editor's, not the prompt's.
        let trimmed = text.hasSuffix("\n") ? String(text.dropLast()) : text
        guard !trimmed.isEmpty else { throw CommandError("the prompt from \(source) is empty") }
        return trimmed
    }
}
