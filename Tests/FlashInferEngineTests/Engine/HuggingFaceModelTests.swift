import FlashInferEngine
import TestSupport
import Testing

/// A Hugging Face folder from its files to its words, which its parts' own tests do not go through.
struct HuggingFaceModelTests {
    @Test(arguments: [1, 3]) func aFolderSpeaksAsTheFileDoes(shards: Int) async throws {
        let temporary = try TemporaryFolder()
        var writer = TinyModelWriter()
        writer.precision = .float32
        try writer.writeHuggingFace(to: temporary.path("m"), shards: shards)
        try temporary.write("m/chat_template.jinja", "{{ messages[0].content }}".utf8)
        try writer.writeGGUF(to: temporary.path("m.gguf"))

        let folder = try LanguageModel(path: temporary.path("m"))
        let file = try LanguageModel(path: temporary.path("m.gguf"))
        let text = "abc abc"
        let ids = try folder.tokenizer.encode(text)
        #expect(!ids.isEmpty)
        #expect(folder.tokenizer.decode(ids).contains("abc"))
        #expect(try ids == folder.tokens(of: [ChatMessage(role: "user", content: text)]))

        var options = DecoderOptions()
        options.pageCount = 8
        let engines = try [folder, file].map { model in
            try model.makeEngine(options, contextLength: 32, on: CPUDevice(threads: 1))
        }
        let spoken = try await Transcript(engines[0].submit(ids, options: .init(maxTokens: 6)))
        let written = try await Transcript(engines[1].submit(ids, options: .init(maxTokens: 6)))
        #expect(spoken.tokens == written.tokens)
        #expect(spoken.summary != nil)
    }

    /// What is read of a file outlives the mapping.
    @Test func aCopyOutlivesItsFile() throws {
        let temporary = try TemporaryFolder()
        let bytes = (0..<100_000).map { UInt8(truncatingIfNeeded: $0) }
        try temporary.write("bytes", bytes)
        #expect(try MappedFile(path: temporary.path("bytes")).copy() == bytes)
        try temporary.write("nothing", [])
        #expect(try MappedFile(path: temporary.path("nothing")).copy().isEmpty)
    }
}
