import FlashInferEngine
import Testing

/// The real model through the whole engine, where the user has fetched it (`flashinfer demo` does). The expected ids are
/// those of an exact float64 forward pass over the dequantised weights.
@Suite(.timeLimit(.minutes(2)), .enabled(if: ModelStore().contains(.smolLM2), "SmolLM2 is not in the user's cache"))
struct LanguageModelTests {
    static let question = "What is the capital of France?"
    /// The question as chat, with no system block.
    static let questionIDs: [Int32] = [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]
    /// "The capital of France is Paris.", then the end of the turn. No choice is closer than 1.59 to the next best.
    static let answerIDs: [Int32] = [504, 3575, 282, 4649, 314, 7042, 30, 2]

    /// What follows "Once upon a time". The closest call is a margin of 0.048 logits.
    static let storyIDs: [Int32] = [
        28, 260, 2240, 282, 23324, 27108, 436, 253, 15114, 39228, 28, 351, 25854, 41658, 284, 14055, 9018, 30,
        1249, 347, 260, 929, 3514, 411, 28, 260, 2240, 2585, 288, 5946, 624, 2798, 9615, 30, 378, 2268, 29,
        16591, 20215, 282, 260, 3925, 2591, 2585, 288, 25858, 28, 284, 260, 2268, 29, 16591, 10959, 282, 260,
        5065, 2585, 288, 25858, 30, 378, 2268, 29, 16591,
    ]

    @Test func chatTemplateAndTokenizerGiveTheReferenceIDs() throws {
        let model = try LanguageModel(named: "smollm2")
        #expect(model.name == "SmolLM2-135M-Instruct.Q4_1")
        #expect(model.endTokens.contains(2))
        let written = "<|im_start|>user\n\(Self.question)<|im_end|>\n<|im_start|>assistant\n"
        #expect(try model.tokenizer.encode(written) == Self.questionIDs)
        let system: [Int32] = [
            1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2,
            198,
        ]
        #expect(try model.tokens(of: [ChatMessage(role: "user", content: Self.question)]) == system + Self.questionIDs)
    }

    @Test func theQuestionGetsTheReferenceAnswer() async throws {
        let engine = try LanguageModel(named: "smollm2").makeEngine(on: Devices.makeDefault())
        let transcript = try await Transcript(engine.submit(Self.questionIDs))
        #expect(transcript.tokens == Self.answerIDs)
        #expect(transcript.text == "The capital of France is Paris.")
        #expect(transcript.summary?.reason == .stopToken(2))
    }

    /// The ids of the exact reference (weights dequantised, forward in float64), whose closest call is a margin of 0.048 logits.
    @Test func greedyIDsEqualTheExactReference() async throws {
        let model = try LanguageModel(named: "smollm2")
        let engine = try model.makeEngine(on: Devices.makeDefault())
        let templated = try model.tokens(of: [ChatMessage(role: "user", content: "What is the capital of France?")])
        #expect(templated.count == 37)
        #expect(try await Transcript(engine.submit(templated)).tokens == Self.answerIDs)
        let story = try await Transcript(
            engine.submit(
                model.tokenizer.encode("Once upon a time", addSpecialTokens: false), options: .init(maxTokens: 64)))
        #expect(story.tokens == Self.storyIDs)
    }

    @Test func aCrowdInATinyPoolGetsTheSameAnswer() async throws {
        // Twelve texts of 23 positions in 8 pages of 8: they share their first page, wait, and push each other out.
        var options = DecoderOptions()
        options.pageSize = 8
        options.pageCount = 8
        options.maximumBatchTokens = 24
        let engine = try LanguageModel(named: "smollm2").makeEngine(
            options, contextLength: 64, on: Devices.makeDefault())
        try await withThrowingTaskGroup(of: Transcript.self) { group in
            for _ in 0..<12 { group.addTask { try await Transcript(engine.submit(Self.questionIDs)) } }
            for try await transcript in group { #expect(transcript.tokens == Self.answerIDs) }
        }
        let status = await engine.status
        #expect(status.heldPages == 0)
        #expect(status.peakHeldPages <= 8)
    }

    @Test func contextsBeyondTheModelAreRefused() throws {
        #expect(throws: LanguageModelError.contextTooLong(requested: 8193, limit: 8192)) {
            try LanguageModel(named: "smollm2").makeEngine(contextLength: 8193, on: Devices.makeDefault())
        }
    }
}
