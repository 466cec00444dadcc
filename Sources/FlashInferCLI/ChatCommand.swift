import ArgumentParser
import FlashInferEngine
import Foundation

/// `flashinfer chat`
struct ChatCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chat",
        abstract: "Talk with a model.",
        discussion: """
            The conversation so far stays in the cache, so that each turn computes only what is new. Ctrl-C stops an \
            answer; at the prompt it ends the program, as does Ctrl-D.

              /reset          forget the conversation
              /system TEXT    start over with this system message; without TEXT, with none of your own
              /exit           end
            """)

    @Argument(help: "A model by name, a GGUF file or a Hugging Face folder.")
    var model = ModelLoading.defaultModel

    @Option(parsing: .unconditional, help: "What the model is told before the conversation.")
    var system: String?

    @OptionGroup(title: "Sampling")
    var sampling: SamplingFlags

    @OptionGroup(title: "Engine")
    var engine: EngineFlags

    @OptionGroup var output: OutputFlags

    /// What a line typed by the user asks for.
    private enum Input {
        case message(String)
        case reset
        case system(String?)
        case exit
        case nothing
        case unknown(String)

        init(_ line: String?) {
            guard let line = line?.trimmingCharacters(in: .whitespaces) else {
                self = .exit
                return
            }
            guard line.hasPrefix("/") else {
                self = line.isEmpty ? .nothing : .message(line)
                return
            }
            let words = line.split(separator: " ", maxSplits: 1)
            switch words[0] {
            case "/exit", "/quit": self = .exit
            case "/reset": self = .reset
            case "/system": self = .system(words.count > 1 ? String(words[1]) : nil)
            default: self = .unknown(String(words[0]))
            }
        }
    }

    func run() async throws {
        try await Interrupt.watching { [self] interrupt in
            let ranks = try LaunchedRanks()
            let progress = ProgressLine(isQuiet: output.quiet || !ranks.isFirst)
            let model = try await ModelLoading.open(model, progress: progress)
            guard model.hasChatTemplate else { throw LanguageModelError.noChatTemplate(model: model.name) }
            let length = engine.maxContext ?? min(model.config.contextLength, 4096)
            let plan = ServingPlan(parallel: 1, lengths: [length])
            try await model.serve(plan, engine, across: ranks, progress: progress) { served in
                try await converse(model, served, interrupt)
            }
        }
    }

    private func converse(_ model: LanguageModel, _ served: Served, _ interrupt: Interrupt) async throws {
        var opening = system.map { [ChatMessage(role: "system", content: $0)] } ?? []
        var messages = opening
        if !output.quiet {
            Terminal.writeError("\(served.model) on \(served.device). /exit ends, /reset starts over.\n")
        }
        while true {
            switch Input(readInput(interrupt)) {
            case .exit: return
            case .nothing: continue
            case .unknown(let command):
                Terminal.writeError("error: no command \(command): there are /reset, /system TEXT and /exit\n")
            case .reset:
                messages = opening
                note("the conversation starts over")
            case .system(let text):
                opening = text.map { [ChatMessage(role: "system", content: $0)] } ?? []
                messages = opening
                note("the conversation starts over" + (text == nil ? "" : " with this system message"))
            case .message(let text):
                let turn = messages + [ChatMessage(role: "user", content: text)]
                do {
                    let reply = try await answer(turn, model, served, interrupt)
                    messages = turn + [ChatMessage(role: "assistant", content: reply)]
                } catch let error as EngineError {
                    // The turn is not kept, so the user can reset or ask for something shorter.
                    Terminal.writeError("error: \(error)\n")
                }
            }
        }
    }

    private func note(_ text: String) {
        if !output.quiet { Terminal.writeError("[\(text)]\n") }
    }

    /// Waits for a line; Ctrl-C ends the program here.
    private func readInput(_ interrupt: Interrupt) -> String? {
        interrupt.setAction {
            Terminal.writeError("\n")
            _exit(Interrupt.exitStatus)
        }
        if Terminal.inputIsTerminal { Terminal.writeError("> ") }
        return readLine()
    }

    private func answer(
        _ messages: [ChatMessage], _ model: LanguageModel, _ served: Served, _ interrupt: Interrupt
    ) async throws -> String {
        interrupt.setAction { Task { await served.engine.cancelAll() } }
        let tokens = try model.tokens(of: messages)
        let run = GenerationRun(engine: served.engine, options: sampling.options)
        let answer = try await run.stream(tokens) { Terminal.write($0) }
        Terminal.write("\n")
        interrupt.reset()
        if let statistics = answer.summary?.statistics { note(Self.line(statistics)) }
        return answer.text
    }

    /// A turn's figures on one line.
    private static func line(_ statistics: GenerationStatistics) -> String {
        let counts = statistics.counts
        var parts = ["\(counts.prompt) prompt tokens, \(counts.cachedPrompt) cached"]
        if let first = statistics.timeToFirstToken {
            parts.append("first token after \(StatisticsTable.decimal(first / .milliseconds(1))) ms")
        }
        parts.append("\(counts.generated) tokens")
        if let rate = statistics.tokensPerSecond { parts.append("\(StatisticsTable.decimal(rate)) tokens/s") }
        return parts.joined(separator: "; ")
    }
}
