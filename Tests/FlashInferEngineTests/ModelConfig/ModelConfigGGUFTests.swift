import FlashInferEngine
import TestSupport
import Testing

struct ModelConfigGGUFTests {
    private func config(_ writer: GGUFWriter) throws -> ModelConfig {
        try ModelConfig(gguf: GGUFFile(MappedFile.guarded(writer.bytes())))
    }

    private func error(_ change: (inout GGUFWriter) -> Void) throws -> ModelConfigError? {
        var writer = TinyModelWriter().gguf()
        change(&writer)
        let file = try GGUFFile(MappedFile.guarded(writer.bytes()))
        do throws(ModelConfigError) {
            _ = try ModelConfig(gguf: file)
            return nil
        } catch {
            return error
        }
    }

    @Test func readsLlama() throws {
        let config = try config(TinyModelWriter().gguf())
        var expected = ModelConfig(
            architecture: .llama, layerCount: 2, hiddenSize: 32, intermediateSize: 64, headCount: 4, kvHeadCount: 2,
            headDim: 8, vocabularySize: 272, contextLength: 256, rmsNormEpsilon: 1e-5,
            rope: RopeConfig(theta: 10_000, pairing: .interleaved))
        expected.bosID = 1
        expected.eosIDs = [2]
        expected.padID = 0
        expected.addBos = false
        #expect(config == expected)
        #expect(config.queryWidth == 32 && config.kvWidth == 16)
        #expect(config.window(ofLayer: 0) == nil)
    }

    @Test func readsTheOtherFamilies() throws {
        let qwen2 = try config(TinyModelWriter(architecture: .qwen2).gguf())
        #expect(qwen2.attentionBias && !qwen2.qkNorm && qwen2.rope.pairing == .halfSplit)
        let qwen3 = try config(TinyModelWriter(architecture: .qwen3).gguf())
        #expect(!qwen3.attentionBias && qwen3.qkNorm && qwen3.rope.pairing == .halfSplit)
        var tiny = TinyModelWriter(architecture: .gemma3)
        tiny.layerCount = 7
        tiny.tiedEmbeddings = true
        let gemma = try config(tiny.gguf())
        #expect(gemma.tiedEmbeddings && gemma.qkNorm && gemma.postNorms)
        #expect(gemma.activation == .geluTanh)
        #expect(gemma.embeddingScale == Float(32).squareRoot())
        #expect(gemma.normWeightOffset == 0)
        #expect(gemma.rope == RopeConfig(theta: 10_000, localTheta: 10_000, pairing: .halfSplit))
        #expect((0..<7).map { gemma.window(ofLayer: $0) } == [16, 16, 16, 16, 16, nil, 16])
        tiny.layerCount = 3
        var writer = tiny.gguf()
        writer.set("gemma3.attention.sliding_window_pattern", .uint32(2))
        #expect(try self.config(writer).slidingWindow?.layers == [true, false, true])
        let flags: [GGUFWriter.Value] = [.bool(0), .bool(1), .bool(0)]
        writer.set("gemma3.attention.sliding_window_pattern", .array(type: 7, flags))
        #expect(try self.config(writer).slidingWindow?.layers == [false, true, false])
        writer.set("gemma3.attention.sliding_window_pattern", .array(type: 7, flags + flags))
        #expect(throws: ModelConfigError.self) { _ = try self.config(writer) }
    }

    /// What both layouts say of one model differs only where the files themselves do.
    @Test(arguments: TinyModelWriter.Architecture.allCases)
    func agreesWithTheFolder(architecture: TinyModelWriter.Architecture) throws {
        let writer = TinyModelWriter(architecture: architecture)
        let temporary = try TemporaryFolder()
        try writer.writeHuggingFace(to: temporary.path("m"))
        var folder = try ModelConfig(huggingFace: HuggingFaceFolder(path: temporary.path("m")))
        if architecture == .llama {
            #expect(folder.rope.pairing == .halfSplit)
            folder.rope.pairing = .interleaved
        }
        if architecture == .gemma3 {
            #expect(folder.normWeightOffset == 1)
            folder.normWeightOffset = 0
        }
        #expect(try folder == config(writer.gguf()))
    }

    @Test func collectsTheTokensThatEndATurn() throws {
        var writer = TinyModelWriter().gguf()
        writer.set("tokenizer.ggml.eos_token_id", .uint32(0))
        // The tiny vocabulary's token 2 is <|im_end|>, a control token.
        #expect(try config(writer).eosIDs == [0, 2])
        writer.set("tokenizer.ggml.eot_token_id", .uint32(5))
        #expect(try config(writer).eosIDs == [0, 5, 2])
        writer.set("tokenizer.ggml.bos_token_id", .uint32(.max))
        #expect(try config(writer).bosID == nil)
        writer.set("tokenizer.ggml.padding_token_id", .uint32(9_999))
        #expect(try config(writer).padID == nil)
    }

    @Test func readsRopeScaling() throws {
        var writer = TinyModelWriter().gguf()
        writer.set("llama.rope.scaling.type", .string("linear"))
        writer.set("llama.rope.scaling.factor", .float32(4))
        #expect(try config(writer).rope.scaling == .linear(factor: 4))
        writer.tensors.append(
            .init("rope_freqs.weight", shape: [4], bytes: TinyModelWriter.Precision.float32.encode([1, 2, 4, 8])))
        #expect(try config(writer).rope.scaling == .frequencyFactors([1, 2, 4, 8]))
        let file = try GGUFFile(MappedFile.guarded(writer.bytes()))
        _ = try ModelWeights(gguf: file, config: ModelConfig(gguf: file))
        writer.set("llama.rope.scaling.type", .string("yarn"))
        #expect(
            throws: ModelConfigError.unsupported(
                key: "llama.rope.scaling.type", value: "yarn", supported: "none, linear")
        ) {
            _ = try config(writer)
        }
    }

    @Test func namesWhatIsMissingOrUnknown() throws {
        for key in [
            "block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
            "attention.layer_norm_rms_epsilon",
        ] {
            #expect(try error { $0.remove("llama.\(key)") } == .missingKey("llama.\(key)"))
        }
        #expect(try error { $0.remove("general.architecture") } == .missingKey("general.architecture"))
        #expect(
            try error { $0.set("general.architecture", .string("mamba")) }
                == .unknownArchitecture("mamba", known: ["llama", "qwen2", "qwen3", "gemma3"]))
        #expect(
            try error { $0.set("general.architecture", .uint8(1)) }
                == .wrongType(key: "general.architecture", expected: "a string", found: "uint8 1"))
        #expect(
            try error { $0.set("llama.block_count", .string("two")) }
                == .wrongType(key: "llama.block_count", expected: "an integer", found: "string two"))
        #expect(
            try error { $0.tensors.removeAll { $0.name == "token_embd.weight" } }
                == .missingKey("tensor token_embd.weight"))
    }

    @Test func acceptsOneValueForAllLayers() throws {
        #expect(try error { $0.set("llama.attention.head_count_kv", .ints([2, 2])) } == nil)
        #expect(
            try error { $0.set("llama.attention.head_count_kv", .ints([2, 4])) }
                == .unsupported(
                    key: "llama.attention.head_count_kv", value: "different from layer to layer", supported: "one value"
                ))
    }

    @Test func refusesNonsense() throws {
        func invalid(_ key: String, _ value: GGUFWriter.Value) throws -> String? {
            switch try error({ $0.set("llama.\(key)", value) }) {
            case .invalidValue(let key, _, _)?: key
            case .unsupported(let key, _, _)?: key
            default: nil
            }
        }
        #expect(try invalid("block_count", .uint32(0)) == "llama.block_count")
        #expect(try invalid("block_count", .uint32(1_000_000_000)) == "llama.block_count")
        #expect(try invalid("block_count", .uint64(1 << 62)) == "llama.block_count")
        #expect(try invalid("embedding_length", .int32(-1)) == "llama.embedding_length")
        #expect(try invalid("feed_forward_length", .uint32(.max)) == "llama.feed_forward_length")
        #expect(try invalid("attention.head_count", .uint32(0)) == "llama.attention.head_count")
        #expect(try invalid("attention.head_count", .int32(-4)) == "llama.attention.head_count")
        #expect(try invalid("attention.head_count_kv", .uint32(0)) == "llama.attention.head_count_kv")
        #expect(try invalid("attention.head_count_kv", .uint32(3)) == "llama.attention.head_count_kv")
        #expect(try invalid("attention.head_count_kv", .uint32(8)) == "llama.attention.head_count_kv")
        #expect(try invalid("attention.key_length", .uint32(16)) == "llama.attention.value_length")
        #expect(try invalid("rope.dimension_count", .uint32(4)) == "llama.rope.dimension_count")
        #expect(try invalid("expert_count", .uint32(8)) == "llama.expert_count")
        #expect(try invalid("context_length", .uint32(0)) == "llama.context_length")
        #expect(
            try invalid("attention.layer_norm_rms_epsilon", .float32(.nan)) == "llama.attention.layer_norm_rms_epsilon")
        #expect(
            try invalid("attention.layer_norm_rms_epsilon", .float32(-1)) == "llama.attention.layer_norm_rms_epsilon")
        #expect(try invalid("rope.freq_base", .float32(.infinity)) == "llama.rope.freq_base")
        #expect(
            try error { $0.set("tokenizer.ggml.eos_token_id", .uint32(272)) }
                == .invalidValue(key: "tokenizer.ggml.eos_token_id", value: "272", requirement: "0 to 271"))
        let odd = try error {
            $0.set("llama.attention.key_length", .uint32(7))
            $0.set("llama.attention.value_length", .uint32(7))
        }
        #expect(odd == .invalidValue(key: "llama.attention.key_length", value: "7", requirement: "even"))
    }
}

extension GGUFWriter {
    /// Gives `key` a value, in the place of the one it has.
    mutating func set(_ key: String, _ value: Value) {
        remove(key)
        values.append((key, value))
    }

    /// Takes `key` away.
    mutating func remove(_ key: String) { values.removeAll { $0.key == key } }
}
