import FlashInferEngine
import Foundation

/// What came of one prompt.
struct Answer: Sendable {
    var text = ""
    var tokens: [Int32] = []
    var summary: GenerationSummary?
    var failure: (any Error)?
}

/// Prompts on their way through an engine, and how their answers are printed.
struct GenerationRun: Sendable {
    let engine: Engine
    let options: GenerationOptions

    /// Serves one prompt and gives its text out as it comes.
    func stream(_ prompt: [Int32], onText: (String) -> Void) async throws -> Answer {
        var answer = Answer()
        for try await event in try await engine.submit(prompt, options: options) {
            switch event {
            case .token(let token):
                answer.tokens.append(token.id)
                answer.text += token.text
                if !token.text.isEmpty { onText(token.text) }
            case .finished(let summary): answer.summary = summary
            }
        }
        return answer
    }

    /// Serves all prompts together and gives each answer out when it is complete, on the calling task.
    func serve(_ prompts: [[Int32]], onAnswer: (Int, Answer) -> Void) async {
        await withTaskGroup(of: (Int, Answer).self) { group in
            // Submitted here, in order, so that the first prompts are served first.
            for (index, prompt) in prompts.enumerated() {
                do {
                    let stream = try await engine.submit(prompt, options: options)
                    group.addTask { (index, await Self.collect(stream)) }
                } catch {
                    onAnswer(index, Answer(failure: error))
                }
            }
            for await (index, answer) in group { onAnswer(index, answer) }
        }
    }

    private static func collect(_ stream: AsyncThrowingStream<GenerationEvent, any Error>) async -> Answer {
        var answer = Answer()
        do {
            for try await event in stream {
                switch event {
                case .token(let token):
                    answer.tokens.append(token.id)
                    answer.text += token.text
                case .finished(let summary): answer.summary = summary
                }
            }
        } catch {
            answer.failure = error
        }
        return answer
    }
}

/// One line of `--json` output.
struct AnswerRecord: Encodable {
    let index: Int
    let prompt: String
    let text: String
    let tokens: [Int32]
    let finishReason: String?
    let error: String?
    let promptTokens: Int?
    let cachedPromptTokens: Int?
    let preemptions: Int?
    let timeToFirstTokenMs: Double?
    let interTokenMedianMs: Double?
    let interTokenP90Ms: Double?
    let tokensPerSecond: Double?

    init(index: Int, prompt: String, answer: Answer) {
        let statistics = answer.summary?.statistics
        self.index = index
        self.prompt = prompt
        text = answer.text
        tokens = answer.tokens
        finishReason = answer.summary.map { Self.name(of: $0.reason) }
        error = answer.failure.map { FlashInferCommand.describe($0) }
        promptTokens = statistics?.counts.prompt
        cachedPromptTokens = statistics?.counts.cachedPrompt
        preemptions = statistics?.counts.preemptions
        timeToFirstTokenMs = statistics?.timeToFirstToken.map { $0 / .milliseconds(1) }
        interTokenMedianMs = statistics?.interTokenLatency(rank: 0.5).map { $0 / .milliseconds(1) }
        interTokenP90Ms = statistics?.interTokenLatency(rank: 0.9).map { $0 / .milliseconds(1) }
        tokensPerSecond = statistics?.tokensPerSecond
    }

    /// The record on one line, keys in snake case and in a fixed order.
    func line() throws -> String {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(self), as: UTF8.self) + "\n"
    }

    private static func name(of reason: FinishReason) -> String {
        switch reason {
        case .stopToken: "stop_token"
        case .stopString: "stop_string"
        case .maxTokens: "max_tokens"
        case .contextFull: "context_full"
        case .cancelled: "cancelled"
        }
    }
}
