extension ModelConfig {
    /// Reads the settings from a folder's `config.json` and `generation_config.json`, and validates them.
    ///
    /// Keys that a family's own configuration class leaves out have that class's default.
    public init(huggingFace folder: HuggingFaceFolder) throws(ModelConfigError) {
        try self.init(
            config: folder.config, generation: folder.generationConfig, tokenizer: folder.tokenizerConfig)
    }

    /// Reads the settings from the texts of the three files.
    package init(config root: JSONNode, generation: JSONNode, tokenizer: JSONNode) throws(ModelConfigError) {
        let keys = try HuggingFaceSettings(root)
        let isGemma = keys.architecture == .gemma3
        let hiddenSize = try keys.required("hidden_size")
        let headCount = try keys.required("num_attention_heads", default: isGemma ? 8 : nil)
        guard headCount > 0 else {
            throw .invalidValue(key: "num_attention_heads", value: "\(headCount)", requirement: "above 0")
        }
        let usualDim: Int =
            switch keys.architecture {
            case .gemma3: 256
            case .qwen3: 128
            case .llama, .qwen2: hiddenSize / headCount
            }
        try self.init(
            architecture: keys.architecture,
            layerCount: keys.required("num_hidden_layers"),
            hiddenSize: hiddenSize,
            intermediateSize: keys.required("intermediate_size"),
            headCount: headCount,
            kvHeadCount: keys.int("num_key_value_heads") ?? (isGemma ? 4 : headCount),
            headDim: keys.int("head_dim") ?? usualDim,
            vocabularySize: keys.required("vocab_size", default: isGemma ? 262_208 : nil),
            contextLength: keys.required("max_position_embeddings", default: isGemma ? 131_072 : nil),
            rmsNormEpsilon: keys.requiredFloat("rms_norm_eps", default: isGemma ? 1e-6 : nil),
            rope: keys.rope())
        try keys.mustBeFalse("mlp_bias")
        if keys.architecture != .qwen2 { try keys.mustBeFalse("attention_bias") }
        attentionBias = keys.architecture == .qwen2
        qkNorm = keys.architecture == .qwen3 || isGemma
        tiedEmbeddings = try keys.bool("tie_word_embeddings") ?? isGemma
        activation = try keys.activation()
        attentionSoftCap = try keys.float("attn_logit_softcapping")
        finalSoftCap = try keys.float("final_logit_softcapping")
        try validate(named: Self.huggingFaceNames)
        slidingWindow = try keys.window(layerCount: layerCount)
        if isGemma {
            embeddingScale = Float(hiddenSize).squareRoot()
            normWeightOffset = 1
            postNorms = true
            attentionScale = 1 / (try keys.float("query_pre_attn_scalar") ?? 256).squareRoot()
        }
        try setTokens(keys, generation: generation, tokenizer: tokenizer)
        try validate(named: Self.huggingFaceNames)
    }

    private mutating func setTokens(
        _ keys: HuggingFaceSettings, generation: JSONNode, tokenizer: JSONNode
    ) throws(ModelConfigError) {
        let generation = HuggingFaceSettings(section: generation, architecture: architecture)
        bosID = try (generation.tokens("bos_token_id") + keys.tokens("bos_token_id")).first
        padID = try (generation.tokens("pad_token_id") + keys.tokens("pad_token_id"))
            .first { 0..<vocabularySize ~= $0 }
        // The generation settings come first: they are what the model's makers run it with.
        for id in try generation.tokens("eos_token_id") + keys.tokens("eos_token_id") where !eosIDs.contains(id) {
            eosIDs.append(id)
        }
        addBos = tokenizer["add_bos_token"]?.bool
    }
}

/// The members of `config.json`, or of its part about text.
private struct HuggingFaceSettings {
    let architecture: ModelConfig.Architecture
    private let section: JSONNode
    /// Members that a multi-modal model keeps outside the text part.
    private let outer: JSONNode

    /// The names that Hugging Face gives to the families.
    private static let names: [(String, ModelConfig.Architecture)] = [
        ("llama", .llama), ("mistral", .llama), ("qwen2", .qwen2), ("qwen3", .qwen3), ("gemma3_text", .gemma3),
        ("gemma3", .gemma3),
    ]

    init(_ root: JSONNode) throws(ModelConfigError) {
        guard let value = root["model_type"] else { throw .missingKey("model_type") }
        guard let name = value.string else {
            throw .wrongType(key: "model_type", expected: "a string", found: value.kind)
        }
        guard let architecture = Self.names.first(where: { $0.0 == name })?.1 else {
            throw .unknownArchitecture(name, known: Self.names.map(\.0))
        }
        self.init(section: root["text_config"] ?? root, outer: root, architecture: architecture)
    }

    init(section: JSONNode, outer: JSONNode = .null, architecture: ModelConfig.Architecture) {
        self.section = section
        self.outer = outer
        self.architecture = architecture
    }

    /// A member, nil when it is missing or null.
    private func value(_ key: String) -> JSONNode? {
        if let value = section[key], value != .null { return value }
        if let value = outer[key], value != .null { return value }
        return nil
    }

    func int(_ key: String) throws(ModelConfigError) -> Int? {
        guard let value = value(key) else { return nil }
        guard let number = value.int else {
            throw .wrongType(key: key, expected: "a whole number", found: value.kind)
        }
        return number
    }

    func float(_ key: String) throws(ModelConfigError) -> Float? {
        guard let value = value(key) else { return nil }
        guard let number = value.double else { throw .wrongType(key: key, expected: "a number", found: value.kind) }
        return Float(number)
    }

    func bool(_ key: String) throws(ModelConfigError) -> Bool? {
        guard let value = value(key) else { return nil }
        guard let bool = value.bool else { throw .wrongType(key: key, expected: "a boolean", found: value.kind) }
        return bool
    }

    /// A whole number, or the family's default; throws when there is neither.
    func required(_ key: String, default usual: Int? = nil) throws(ModelConfigError) -> Int {
        guard let value = try int(key) ?? usual else { throw .missingKey(key) }
        return value
    }

    /// A number, or the family's default; throws when there is neither.
    func requiredFloat(_ key: String, default usual: Float? = nil) throws(ModelConfigError) -> Float {
        guard let value = try float(key) ?? usual else { throw .missingKey(key) }
        return value
    }

    func mustBeFalse(_ key: String) throws(ModelConfigError) {
        if try bool(key) == true { throw .unsupported(key: key, value: "true", supported: "false") }
    }

    /// One token or a list of them; none when the member is missing.
    func tokens(_ key: String) throws(ModelConfigError) -> [Int] {
        guard let value = value(key) else { return [] }
        if let id = value.int { return [id] }
        guard let elements = value.array, elements.allSatisfy({ $0.int != nil }) else {
            throw .wrongType(key: key, expected: "a token or a list of tokens", found: value.kind)
        }
        return elements.compactMap(\.int)
    }

    func activation() throws(ModelConfigError) -> ModelConfig.Activation {
        let key = value("hidden_activation") == nil ? "hidden_act" : "hidden_activation"
        switch value(key)?.string {
        case nil: return architecture == .gemma3 ? .geluTanh : .silu
        case "silu"?, "swish"?: return .silu
        case "gelu_pytorch_tanh"?: return .geluTanh
        case let other?: throw .unsupported(key: key, value: other, supported: "silu, gelu_pytorch_tanh")
        }
    }
}

// Which layers see how far.
extension HuggingFaceSettings {
    func window(layerCount: Int) throws(ModelConfigError) -> ModelConfig.SlidingWindow? {
        if architecture == .qwen2 || architecture == .qwen3, try bool("use_sliding_window") != true { return nil }
        guard let size = try int("sliding_window") ?? (architecture == .gemma3 ? 4096 : nil) else { return nil }
        let layers = try layerTypes(layerCount: layerCount)
        return layers.contains(true) ? ModelConfig.SlidingWindow(size: size, layers: layers) : nil
    }

    private func layerTypes(layerCount: Int) throws(ModelConfigError) -> [Bool] {
        guard let value = value("layer_types") else { return try usualLayers(layerCount: layerCount) }
        guard let elements = value.array else {
            throw .wrongType(key: "layer_types", expected: "an array", found: value.kind)
        }
        var layers: [Bool] = []
        for element in elements {
            switch element.string {
            case "sliding_attention"?: layers.append(true)
            case "full_attention"?: layers.append(false)
            default:
                throw .unsupported(
                    key: "layer_types", value: element.kind, supported: "sliding_attention, full_attention")
            }
        }
        guard layers.count == layerCount else {
            throw .invalidValue(
                key: "layer_types", value: "\(layers.count) entries", requirement: "\(layerCount) entries")
        }
        return layers
    }

    private func usualLayers(layerCount: Int) throws(ModelConfigError) -> [Bool] {
        switch architecture {
        case .gemma3:
            return ModelConfig.globalEvery(try int("sliding_window_pattern") ?? 6, layerCount: layerCount)
        case .qwen2, .qwen3:
            let first = try int("max_window_layers") ?? 28
            return (0..<layerCount).map { $0 >= first }
        case .llama: return Array(repeating: true, count: layerCount)
        }
    }
}

// The rotary embedding.
extension HuggingFaceSettings {
    func rope() throws(ModelConfigError) -> RopeConfig {
        if let factor = try float("partial_rotary_factor"), factor != 1 {
            throw .unsupported(key: "partial_rotary_factor", value: "\(factor)", supported: "1")
        }
        // Newer files keep theta and scaling together, for Gemma once for each kind of layer.
        let parameters = value("rope_parameters")
        let global = parameters?["full_attention"] ?? parameters
        let local = parameters?["sliding_attention"]
        let isGemma = architecture == .gemma3
        let theta = try theta(in: global, or: "rope_theta", or: isGemma ? 1_000_000 : 10_000)
        var rope = RopeConfig(theta: theta, pairing: .halfSplit)
        if isGemma { rope.localTheta = try self.theta(in: local, or: "rope_local_base_freq", or: 10_000) }
        if let section = value("rope_scaling") ?? global { rope.scaling = try scaling(section) }
        return rope
    }

    /// `rope_theta` of `section`, else `key` of the whole file, else `usual`.
    private func theta(in section: JSONNode?, or key: String, or usual: Float) throws(ModelConfigError) -> Float {
        if let section {
            let keys = HuggingFaceSettings(section: section, architecture: architecture)
            if let theta = try keys.float("rope_theta") { return theta }
        }
        return try float(key) ?? usual
    }

    private func scaling(_ section: JSONNode) throws(ModelConfigError) -> RopeConfig.Scaling {
        guard section.object != nil else {
            throw .wrongType(key: "rope_scaling", expected: "an object", found: section.kind)
        }
        let keys = HuggingFaceSettings(section: section, architecture: architecture)
        func number(_ key: String) throws(ModelConfigError) -> Float {
            guard let value = try keys.float(key) else { throw .missingKey("rope_scaling.\(key)") }
            return value
        }
        switch (section["rope_type"] ?? section["type"])?.string {
        case nil, "default"?: return .none
        case "linear"?: return .linear(factor: try number("factor"))
        case "llama3"?:
            guard let original = try keys.int("original_max_position_embeddings") else {
                throw .missingKey("rope_scaling.original_max_position_embeddings")
            }
            return .llama3(
                factor: try number("factor"), lowFrequencyFactor: try number("low_freq_factor"),
                highFrequencyFactor: try number("high_freq_factor"), originalContext: original)
        case let other?:
            throw .unsupported(key: "rope_scaling.rope_type", value: other, supported: "default, linear, llama3")
        }
    }
}
