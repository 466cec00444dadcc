import FlashInferEngine
import TestSupport
import Testing

struct ModelConfigHuggingFaceTests {
    private func config(
        _ text: String, generation: String = "{}", tokenizer: String = "{}"
    ) throws -> ModelConfig {
        func parse(_ text: String) throws -> JSONNode { try JSONNode(parsing: MappedFile.guarded(Array(text.utf8))) }
        return try ModelConfig(config: parse(text), generation: parse(generation), tokenizer: parse(tokenizer))
    }

    private static let smallest = [
        "model_type": "\"llama\"", "num_hidden_layers": "2", "hidden_size": "64", "intermediate_size": "128",
        "num_attention_heads": "4", "vocab_size": "100", "max_position_embeddings": "512", "rms_norm_eps": "1e-6",
    ]

    private func config(_ changes: [String: String?]) throws -> ModelConfig {
        var members = Self.smallest
        for (key, value) in changes { members[key] = value }
        return try config("{\(members.map { "\"\($0)\":\($1)" }.joined(separator: ","))}")
    }

    private func error(_ changes: [String: String?]) -> ModelConfigError? {
        do {
            _ = try config(changes)
            return nil
        } catch {
            return error as? ModelConfigError
        }
    }

    @Test func fillsInTheDefaults() throws {
        let config = try config([:])
        #expect(config.architecture == .llama)
        #expect(config.kvHeadCount == 4 && config.headDim == 16)
        #expect(config.rope == RopeConfig(theta: 10_000, pairing: .halfSplit))
        #expect(!config.tiedEmbeddings && config.activation == .silu)
        #expect(config.eosIDs.isEmpty && config.bosID == nil && config.addBos == nil)
    }

    @Test func readsLlama31() throws {
        let config = try config([
            "rope_theta": "500000.0", "head_dim": "32",
            "rope_scaling":
                #"{"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192,"rope_type":"llama3"}"#,
        ])
        #expect(
            config.rope.scaling
                == .llama3(factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext: 8192))
        #expect(config.rope.theta == 500_000)
        #expect(config.headDim == 32 && config.queryWidth == 128)
    }

    @Test func readsMistralAndQwen() throws {
        let mistral = try config(["model_type": "\"mistral\"", "sliding_window": "256"])
        #expect(mistral.architecture == .llama)
        #expect(mistral.window(ofLayer: 1) == 256)
        #expect(try config(["model_type": "\"mistral\"", "sliding_window": "null"]).slidingWindow == nil)
        let off = ["model_type": "\"qwen2\"", "sliding_window": "256", "use_sliding_window": "false"]
        #expect(try config(off).slidingWindow == nil)
        #expect(try config(off).attentionBias)
        let on = off.merging(["use_sliding_window": "true", "max_window_layers": "1"]) { $1 }
        #expect(try config(on).slidingWindow == .init(size: 256, layers: [false, true]))
        let qwen3 = try config(["model_type": "\"qwen3\""])
        #expect(qwen3.headDim == 128 && qwen3.qkNorm && !qwen3.attentionBias)
    }

    /// The text part of a multi-modal file names little and leaves the rest to the family's defaults.
    @Test func readsGemma() throws {
        let inner =
            #"{"hidden_size":2560,"intermediate_size":10240,"num_hidden_layers":12,"sliding_window":1024,"#
            + #""rope_scaling":{"factor":8.0,"rope_type":"linear"}}"#
        let gemma = try config("{\"model_type\":\"gemma3\",\"eos_token_id\":[1,106],\"text_config\":\(inner)}")
        #expect(gemma.headCount == 8 && gemma.kvHeadCount == 4 && gemma.headDim == 256)
        #expect(gemma.vocabularySize == 262_208 && gemma.contextLength == 131_072 && gemma.rmsNormEpsilon == 1e-6)
        #expect(
            gemma.rope
                == RopeConfig(theta: 1_000_000, localTheta: 10_000, scaling: .linear(factor: 8), pairing: .halfSplit))
        #expect(gemma.attentionScale == 0.0625)
        #expect(gemma.slidingWindow?.layers.filter { !$0 }.count == 2)
        #expect(gemma.slidingWindow?.layers[5] == false)
        #expect(gemma.tiedEmbeddings && gemma.eosIDs == [1, 106])
    }

    @Test func readsTheNewerSpellings() throws {
        let parameters =
            #"{"full_attention":{"rope_type":"linear","factor":2,"rope_theta":7000},"sliding_attention":{"rope_type":"default","rope_theta":300}}"#
        let gemma = try config([
            "model_type": "\"gemma3_text\"", "rope_parameters": parameters, "sliding_window": "8",
            "layer_types": "[\"full_attention\",\"sliding_attention\"]", "query_pre_attn_scalar": "64",
        ])
        #expect(
            gemma.rope == RopeConfig(theta: 7000, localTheta: 300, scaling: .linear(factor: 2), pairing: .halfSplit))
        #expect(gemma.slidingWindow == .init(size: 8, layers: [false, true]))
        #expect(gemma.attentionScale == 0.125)
        let llama = try config(["rope_parameters": #"{"rope_type":"default","rope_theta":42}"#])
        #expect(llama.rope == RopeConfig(theta: 42, pairing: .halfSplit))
    }

    @Test func prefersTheGenerationSettings() throws {
        let text =
            "{\(Self.smallest.map { "\"\($0)\":\($1)" }.joined(separator: ",")),\"eos_token_id\":7,\"bos_token_id\":1,\"pad_token_id\":-1}"
        let config = try config(
            text, generation: #"{"eos_token_id":[9,7],"bos_token_id":2}"#, tokenizer: #"{"add_bos_token":true}"#)
        #expect(config.eosIDs == [9, 7])
        #expect(config.bosID == 2)
        #expect(config.padID == nil)
        #expect(config.addBos == true)
    }

    @Test func namesWhatIsMissing() {
        for key in Self.smallest.keys { #expect(error([key: nil]) == .missingKey(key)) }
    }

    @Test func refusesWhatItCannotDo() {
        func key(_ changes: [String: String?]) -> String? {
            switch error(changes) {
            case .unsupported(let key, _, _)?, .invalidValue(let key, _, _)?, .wrongType(let key, _, _)?: key
            default: nil
            }
        }
        #expect(
            error(["model_type": "\"bert\""])
                == .unknownArchitecture("bert", known: ["llama", "mistral", "qwen2", "qwen3", "gemma3_text", "gemma3"]))
        #expect(key(["attention_bias": "true"]) == "attention_bias")
        #expect(key(["mlp_bias": "true"]) == "mlp_bias")
        #expect(key(["hidden_act": "\"relu\""]) == "hidden_act")
        #expect(key(["partial_rotary_factor": "0.5"]) == "partial_rotary_factor")
        #expect(key(["rope_scaling": #"{"type":"yarn"}"#]) == "rope_scaling.rope_type")
        #expect(error(["rope_scaling": #"{"type":"linear"}"#]) == .missingKey("rope_scaling.factor"))
        #expect(key(["rope_scaling": "3"]) == "rope_scaling")
        #expect(key(["hidden_size": "\"big\""]) == "hidden_size")
        #expect(key(["hidden_size": "64.5"]) == "hidden_size")
        #expect(key(["hidden_size": "1e30"]) == "hidden_size")
        #expect(key(["num_attention_heads": "0"]) == "num_attention_heads")
        #expect(key(["num_key_value_heads": "3"]) == "num_key_value_heads")
        #expect(
            error(["num_key_value_heads": "3"])
                == .invalidValue(
                    key: "num_key_value_heads", value: "3", requirement: "a divisor of num_attention_heads 4"))
        #expect(key(["num_hidden_layers": "1000000000"]) == "num_hidden_layers")
        #expect(key(["head_dim": "15"]) == "head_dim")
        #expect(key(["rms_norm_eps": "0"]) == "rms_norm_eps")
        #expect(key(["eos_token_id": "100"]) == "eos_token_id")
        #expect(key(["eos_token_id": "\"a\""]) == "eos_token_id")
        #expect(key(["model_type": "\"gemma3_text\"", "layer_types": "[]"]) == "layer_types")
        #expect(key(["model_type": "\"gemma3_text\"", "layer_types": "[\"chunked\",\"a\"]"]) == "layer_types")
    }
}
