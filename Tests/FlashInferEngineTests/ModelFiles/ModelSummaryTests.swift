import FlashInferEngine
import TestSupport
import Testing

struct ModelSummaryTests {
    private func text(_ writer: GGUFWriter, tensors: Bool = true) throws -> String {
        let source = ModelSource.gguf(try GGUFFile(MappedFile.guarded(writer.bytes(), path: "tiny.gguf")))
        return ModelSummary(source).text(tensors: tensors)
    }

    @Test func showsWhatAFileHolds() throws {
        let lines = try text(TinyModelWriter(precision: .q41).gguf()).split(separator: "\n").map(String.init)
        #expect(lines[0].hasPrefix("tiny.gguf: GGUF version 3, alignment 32, "))
        #expect(lines.contains("  architecture       llama"))
        #expect(lines.contains("  heads              4 query, 2 key/value, dim 8, scale 0.35355338"))
        #expect(lines.contains("  tokenizer.ggml.token_type               [int32]   3, 3, 3, 1, ... 268 more"))
        #expect(lines.contains("  blk.0.attn_k.weight       Q4_1  16 x 32   320 B"))
        #expect(lines.contains { $0.hasPrefix("  Q4_1  16 tensors") })
        #expect(lines.last?.hasPrefix("  all") == true)
    }

    @Test func canLeaveOutTheTensors() throws {
        #expect(try !text(TinyModelWriter().gguf(), tensors: false).contains("blk.0.attn_k.weight"))
    }

    @Test func showsFilesTheEngineCannotRun() throws {
        var writer = GGUFWriter()
        writer.values = [("general.architecture", .string("mamba"))]
        let mamba = try text(writer)
        #expect(
            mamba.contains(
                "cannot run this model: the model's architecture is \"mamba\"; known are llama, qwen2, qwen3, gemma3"))
        writer = TinyModelWriter().gguf()
        writer.tensors.removeLast()
        writer.tensors.removeLast()
        #expect(try text(writer).contains("cannot run this model: the model has no tensor \"output_norm.weight\""))
    }

    @Test func escapesWhatCouldSteerATerminal() throws {
        var writer = GGUFWriter()
        writer.values = [("a\u{1b}[2J", .string("b\u{1b}[31m\nc\u{202e}d\u{9b}e"))]
        let text = try text(writer)
        #expect(text.contains("a\\u{1b}[2J"))
        #expect(text.contains("b\\u{1b}[31m\\nc\\u{202e}d\\u{9b}e"))
        #expect(!text.unicodeScalars.contains { $0.value == 0x1b || $0.value == 0x9b || $0.value == 0x202e })
    }

    @Test func showsFolders() throws {
        let temporary = try TemporaryFolder()
        try TinyModelWriter(architecture: .gemma3, precision: .bfloat16).writeHuggingFace(
            to: temporary.path("m"), shards: 2)
        let text = ModelSummary(try ModelSource.open(temporary.path("m"))).text()
        #expect(text.contains("Hugging Face folder, 2 safetensors file(s)"))
        #expect(text.contains("window             16 keys in 2 of 2 layers"))
        #expect(text.contains("extras             q, k norms, post norms, embedding x 5.656854, norm weights + 1.0"))
        #expect(text.contains("  model.layers.0.self_attn.k_proj.weight"))
        #expect(text.contains("  hidden_size              number  32"))
    }
}
