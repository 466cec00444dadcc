import Foundation

extension TinyModelWriter {
    /// The model's weights as safetensors; the block formats, which safetensors lack, become float32.
    public func safetensors() -> SafetensorsWriter {
        let (stored, type): (Precision, String) =
            switch precision {
            case .float16: (.float16, "F16")
            case .bfloat16: (.bfloat16, "BF16")
            case .float32, .q40, .q41, .q80: (.float32, "F32")
            }
        return SafetensorsWriter(
            weights().map { weight in
                let isVector = weight.shape.count == 1
                return SafetensorsWriter.Tensor(
                    weight.huggingFaceName, type: isVector ? "F32" : type, shape: weight.shape,
                    bytes: (isVector ? .float32 : stored).encode(weight.values))
            })
    }

    /// `config.json`.
    public var configJSON: String {
        var members = [
            "\"model_type\":\"\(architecture == .gemma3 ? "gemma3_text" : architecture.rawValue)\"",
            "\"num_hidden_layers\":\(layerCount)",
            "\"max_position_embeddings\":\(contextLength)",
            "\"hidden_size\":\(hiddenSize)",
            "\"intermediate_size\":\(intermediateSize)",
            "\"num_attention_heads\":\(headCount)",
            "\"num_key_value_heads\":\(kvHeadCount)",
            "\"head_dim\":\(headDim)",
            "\"vocab_size\":\(vocabularySize)",
            "\"rms_norm_eps\":1e-05",
            "\"rope_theta\":\(ropeTheta)",
            "\"tie_word_embeddings\":\(tiedEmbeddings)",
            "\"bos_token_id\":1", "\"eos_token_id\":[2]", "\"pad_token_id\":0",
        ]
        if architecture == .gemma3 {
            members.append("\"sliding_window\":\(slidingWindow)")
            members.append("\"query_pre_attn_scalar\":\(headDim)")
        }
        return "{\(members.joined(separator: ","))}"
    }

    /// Writes the model as a Hugging Face folder to `folder`, which is made; in several files when `shards` is above 1.
    public func writeHuggingFace(to folder: String, shards: Int = 1) throws {
        let url = URL(fileURLWithPath: folder, isDirectory: true)
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        func write(_ name: String, _ bytes: some Sequence<UInt8>) throws {
            try Data(bytes).write(to: url.appendingPathComponent(name))
        }
        try write("config.json", configJSON.utf8)
        try write("tokenizer.json", TinyVocabulary.tokenizerJSON.utf8)
        try write("tokenizer_config.json", TinyVocabulary.tokenizerConfigJSON.utf8)
        try write("generation_config.json", "{\"eos_token_id\":2}".utf8)
        let all = safetensors().tensors
        guard shards > 1 else {
            try write("model.safetensors", SafetensorsWriter(all).bytes())
            return
        }
        var places: [String] = []
        for shard in 0..<shards {
            let name = "model-0000\(shard + 1)-of-0000\(shards).safetensors"
            let tensors = all.enumerated().filter { $0.offset % shards == shard }.map(\.element)
            try write(name, SafetensorsWriter(tensors).bytes())
            places += tensors.map { "\"\($0.name)\":\"\(name)\"" }
        }
        try write(
            "model.safetensors.index.json",
            "{\"metadata\":{\"total_size\":1},\"weight_map\":{\(places.joined(separator: ","))}}".utf8)
    }
}
