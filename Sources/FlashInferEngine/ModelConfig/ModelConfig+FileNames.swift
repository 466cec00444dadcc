extension ModelConfig {
    /// Throws as ``validate()`` does, but names settings as the file does that they were read from, where that has names for them.
    func validate(named fileNames: @autoclosure () -> [String: String]) throws(ModelConfigError) {
        do throws(ModelConfigError) {
            try validate()
        } catch {
            guard case .invalidValue(let key, let value, let requirement) = error else { throw error }
            let names = fileNames()
            // Requirements name other settings: "a divisor of headCount 9".
            let words = requirement.split(separator: " ").map { names[String($0)] ?? String($0) }
            throw .invalidValue(key: names[key] ?? key, value: value, requirement: words.joined(separator: " "))
        }
    }

    /// The names of `config.json` and `generation_config.json`.
    static let huggingFaceNames = [
        "layerCount": "num_hidden_layers", "hiddenSize": "hidden_size", "intermediateSize": "intermediate_size",
        "headCount": "num_attention_heads", "kvHeadCount": "num_key_value_heads", "headDim": "head_dim",
        "vocabularySize": "vocab_size", "contextLength": "max_position_embeddings", "rmsNormEpsilon": "rms_norm_eps",
        "attentionScale": "query_pre_attn_scalar", "attentionSoftCap": "attn_logit_softcapping",
        "finalSoftCap": "final_logit_softcapping", "rope.theta": "rope_theta",
        "rope.localTheta": "rope_local_base_freq", "rope.scaling.factor": "rope_scaling.factor",
        "rope.scaling.lowFrequencyFactor": "rope_scaling.low_freq_factor",
        "rope.scaling.highFrequencyFactor": "rope_scaling.high_freq_factor", "lowFrequencyFactor": "low_freq_factor",
        "rope.scaling.originalContext": "rope_scaling.original_max_position_embeddings",
        "slidingWindow.size": "sliding_window", "slidingWindow.layers": "layer_types", "bosID": "bos_token_id",
        "eosIDs": "eos_token_id", "padID": "pad_token_id",
    ]

    /// The names of a GGUF file's metadata, where `name` gives those of an architecture's own settings.
    static func ggufNames(_ name: (String) -> String) -> [String: String] {
        let settings = [
            "layerCount": "block_count", "hiddenSize": "embedding_length", "intermediateSize": "feed_forward_length",
            "headCount": "attention.head_count", "kvHeadCount": "attention.head_count_kv",
            "headDim": "attention.key_length", "contextLength": "context_length",
            "rmsNormEpsilon": "attention.layer_norm_rms_epsilon", "attentionSoftCap": "attn_logit_softcapping",
            "finalSoftCap": "final_logit_softcapping", "rope.theta": "rope.freq_base",
            "rope.localTheta": "rope.freq_base_swa", "rope.scaling.factor": "rope.scaling.factor",
            "slidingWindow.size": "attention.sliding_window",
            "slidingWindow.layers": "attention.sliding_window_pattern",
        ]
        let tokens = ["bosID": "bos", "eosIDs": "eos", "padID": "padding"]
        return settings.mapValues(name)
            .merging(tokens.mapValues { "tokenizer.ggml.\($0)_token_id" }) { own, _ in own }
            .merging(["rope.scaling.frequencyFactors": "tensor rope_freqs.weight"]) { own, _ in own }
    }
}
