// Many prompts at once through the engine: continuous batching, one paged cache, prefixes shared.
//
//   swift run -c release flashinfer demo           (once: fetches the model into your cache folder)
//   swift run -c release BatchGeneration [MODEL]

import FlashInferEngine
import Foundation

@main
enum BatchGeneration {
    static func main() async {
        do {
            try await generate()
        } catch {
            // A model that is not here is no reason for a backtrace.
            FileHandle.standardError.write(Data("error: \(error)\n".utf8))
            exit(1)
        }
    }

    private static func generate() async throws {
        let name = CommandLine.arguments.dropFirst().first ?? "smollm2"
        let model = try LanguageModel(named: name)
        let engine = try model.makeEngine(on: Devices.makeDefault())

        let questions = [
            "What is the capital of France?", "Name three primary colours.", "Why is the sky blue?",
            "Write a haiku about rain.",
        ]
        // Every request runs at once; each has a stream of its own.
        let answers = try await withThrowingTaskGroup(of: (Int, String, GenerationSummary?).self) { group in
            for (index, question) in questions.enumerated() {
                let prompt = try model.tokens(of: [ChatMessage(role: "user", content: question)])
                group.addTask {
                    var text = ""
                    var summary: GenerationSummary?
                    for try await event in try await engine.submit(prompt, options: .init(maxTokens: 48)) {
                        switch event {
                        case .token(let token): text += token.text
                        case .finished(let end): summary = end
                        }
                    }
                    return (index, text, summary)
                }
            }
            var answers: [(Int, String, GenerationSummary?)] = []
            for try await answer in group { answers.append(answer) }
            return answers.sorted { $0.0 < $1.0 }
        }
        for (index, text, summary) in answers {
            print("> \(questions[index])\n\(text)")
            if let summary {
                let counts = summary.statistics.counts
                print(
                    "  (\(counts.generated) tokens, \(counts.cachedPrompt) of \(counts.prompt) prompt tokens reused)\n")
            }
        }
    }
}
