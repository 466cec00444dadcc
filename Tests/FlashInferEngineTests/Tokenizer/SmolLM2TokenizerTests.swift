import FlashInferEngine
import Foundation
import Testing

/// The real model's vocabulary and template, when the model is in the cache folder.
struct SmolLM2TokenizerTests {
    private static let store = ModelStore()
    private static let isThere = store.contains(ModelStore.smolLM2)

    private static func source() throws -> ModelSource {
        try ModelSource.open(store.location(of: ModelStore.smolLM2).path)
    }

    @Test(.enabled(if: isThere, "needs the model in the cache folder; `flashinfer demo` fetches it"))
    func promptsAreTheReferences() throws {
        let tokenizer = try Tokenizer(TokenizerDefinition(Self.source()))
        #expect(tokenizer.vocabularyCount == 49152 && tokenizer.bosID == 1 && tokenizer.eosID == 2)
        #expect(tokenizer.endIDs == [0, 2])
        let template = try ChatTemplate(#require(tokenizer.chatTemplate))
        let question = "What is the capital of France?"
        let chat = try template.render(messages: [ChatMessage(role: "user", content: question)])
        #expect(
            try tokenizer.encode(chat) == [
                1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712,
                8182,
                2, 198, 1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198,
            ])
        let bare = "<|im_start|>user\n\(question)<|im_end|>\n<|im_start|>assistant\n"
        #expect(
            try tokenizer.encode(bare)
                == [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198])
        #expect(try tokenizer.encode("Once upon a time") == [6403, 1980, 253, 655])
        #expect(
            tokenizer.decode([504, 3575, 282, 4649, 314, 7042, 30, 2], skipSpecialTokens: true)
                == "The capital of France is Paris.")
    }

    /// Prints figures: set FLASHINFER_TOKENIZER_TEXT to a text of some megabytes.
    @Test(
        .enabled(
            if: isThere && ProcessInfo.processInfo.environment["FLASHINFER_TOKENIZER_TEXT"] != nil,
            "a measurement; needs the model and a text"))
    func speed() throws {
        let path = ProcessInfo.processInfo.environment["FLASHINFER_TOKENIZER_TEXT"] ?? ""
        let text = String(decoding: try Data(contentsOf: URL(filePath: path)), as: UTF8.self)
        func seconds(_ body: () throws -> Void) rethrows -> Double {
            var best = Double.infinity
            for _ in 0..<7 {
                var start = timespec()
                var end = timespec()
                clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start)
                try body()
                clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end)
                best = min(best, Double(end.tv_sec - start.tv_sec) + Double(end.tv_nsec - start.tv_nsec) / 1e9)
            }
            return best
        }
        let source = try Self.source()
        let load = try seconds { _ = try Tokenizer(TokenizerDefinition(source)) }
        let tokenizer = try Tokenizer(TokenizerDefinition(source))
        var ids: [Int32] = []
        let encode = try seconds { ids = try tokenizer.encode(text) }
        let decode = seconds { _ = tokenizer.decode(ids) }
        let megabytes = Double(text.utf8.count) / 1e6
        print("load \(load * 1000) ms; \(megabytes) MB, \(ids.count) ids")
        print("encode \(megabytes / encode) MB/s, decode \(megabytes / decode) MB/s")
    }
}
