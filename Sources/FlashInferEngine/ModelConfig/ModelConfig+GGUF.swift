import FlashInferCore

extension ModelConfig {
    /// Reads the settings from a GGUF file's metadata, and validates them.
    ///
    /// Keys are those of github.com/ggml-org/ggml, docs/gguf.md; where the format leaves a choice to the reader
    /// (Gemma's local theta and window pattern), llama.cpp's is taken.
    public init(gguf file: GGUFFile) throws(ModelConfigError) {
        let keys = try GGUFSettings(file)
        let headCount = try keys.required("attention.head_count")
        let hiddenSize = try keys.required("embedding_length")
        guard headCount > 0 else {
            throw .invalidValue(key: keys.name("attention.head_count"), value: "\(headCount)", requirement: "above 0")
        }
        let headDim = try keys.int("attention.key_length") ?? hiddenSize / headCount
        try keys.mustBe("attention.value_length", headDim)
        try keys.mustBe("rope.dimension_count", headDim)
        try keys.mustBe("expert_count", 0)
        let embedding = file.tensor(named: "token_embd.weight")
        guard let embedding, embedding.shape.count == 2 else { throw .missingKey("tensor token_embd.weight") }
        try self.init(
            architecture: keys.architecture,
            layerCount: keys.required("block_count"),
            hiddenSize: hiddenSize,
            intermediateSize: keys.required("feed_forward_length"),
            headCount: headCount,
            kvHeadCount: keys.int("attention.head_count_kv") ?? headCount,
            headDim: headDim,
            vocabularySize: embedding.shape[1],
            contextLength: keys.required("context_length"),
            rmsNormEpsilon: keys.requiredFloat("attention.layer_norm_rms_epsilon"),
            rope: keys.rope(headDim: headDim))
        attentionBias = file.tensor(named: "blk.0.attn_q.bias") != nil
        qkNorm = architecture == .qwen3 || architecture == .gemma3
        tiedEmbeddings = file.tensor(named: "output.weight") == nil
        attentionSoftCap = try keys.float("attn_logit_softcapping").flatMap { $0 == 0 ? nil : $0 }
        finalSoftCap = try keys.float("final_logit_softcapping").flatMap { $0 == 0 ? nil : $0 }
        // Before anything is made per layer.
        try validate(named: Self.ggufNames(keys.name))
        try setWindow(keys)
        if architecture == .gemma3 { setGemma() }
        try setTokens(keys)
        try validate(named: Self.ggufNames(keys.name))
    }

    private mutating func setWindow(_ keys: GGUFSettings) throws(ModelConfigError) {
        guard let size = try keys.int("attention.sliding_window"), size > 0 else { return }
        switch architecture {
        case .llama:
            slidingWindow = SlidingWindow(size: size, layers: Array(repeating: true, count: layerCount))
        case .gemma3:
            slidingWindow = SlidingWindow(size: size, layers: try keys.slidingLayers(layerCount: layerCount))
        case .qwen2, .qwen3:
            // The converter writes the key for models that do not use it, too; llama.cpp ignores it.
            break
        }
    }

    /// Which layers look through the window when every `period`th sees everything; a period of 0 means all do.
    static func globalEvery(_ period: Int, layerCount: Int) -> [Bool] {
        (0..<layerCount).map { period <= 0 || ($0 + 1) % period != 0 }
    }

    private mutating func setGemma() {
        activation = .geluTanh
        postNorms = true
        embeddingScale = Float(hiddenSize).squareRoot()
        // The file does not hold Gemma's "query pre-attention scalar": it is the head dimension in all sizes but
        // 27B (62 layers), where it is the width of the residual stream over the heads.
        if layerCount == 62 { attentionScale = 1 / Float(hiddenSize / headCount).squareRoot() }
    }

    private mutating func setTokens(_ keys: GGUFSettings) throws(ModelConfigError) {
        bosID = try keys.token("bos")
        padID = try keys.token("padding").flatMap { $0 < vocabularySize ? $0 : nil }
        addBos = try keys.addBos
        for name in ["eos", "eot", "eom"] {
            if let id = try keys.token(name), !eosIDs.contains(id) { eosIDs.append(id) }
        }
        for id in keys.endOfTurnTokens where !eosIDs.contains(id) { eosIDs.append(id) }
    }
}

/// The metadata under the architecture's own prefix.
private struct GGUFSettings {
    let architecture: ModelConfig.Architecture
    private let file: GGUFFile

    init(_ file: GGUFFile) throws(ModelConfigError) {
        self.file = file
        guard let value = file["general.architecture"] else { throw .missingKey("general.architecture") }
        guard let name = value.string else {
            throw .wrongType(key: "general.architecture", expected: "a string", found: value.typeDescription)
        }
        guard let architecture = ModelConfig.Architecture(rawValue: name) else {
            throw .unknownArchitecture(name, known: ModelConfig.Architecture.allCases.map(\.rawValue))
        }
        self.architecture = architecture
    }

    func name(_ key: String) -> String { "\(architecture.rawValue).\(key)" }

    /// An integer; an array with one value for each layer counts as that value when all are the same.
    func int(_ key: String) throws(ModelConfigError) -> Int? {
        guard let value = file[name(key)] else { return nil }
        if let number = value.int { return number }
        guard let array = value.array?.ints, let first = array.first else {
            throw .wrongType(key: name(key), expected: "an integer", found: value.typeDescription)
        }
        guard array.allSatisfy({ $0 == first }) else {
            throw .unsupported(key: name(key), value: "different from layer to layer", supported: "one value")
        }
        return first
    }

    func required(_ key: String) throws(ModelConfigError) -> Int {
        guard let value = try int(key) else { throw .missingKey(name(key)) }
        return value
    }

    /// Which layers look through the window: written as a period, or as a boolean for each layer, or not at all.
    func slidingLayers(layerCount: Int) throws(ModelConfigError) -> [Bool] {
        let key = "attention.sliding_window_pattern"
        if let array = file[name(key)]?.array, array.elementType == .bool {
            return array.prefix(array.count).map { $0.bool == true }
        }
        return ModelConfig.globalEvery(try int(key) ?? 6, layerCount: layerCount)
    }

    func float(_ key: String) throws(ModelConfigError) -> Float? {
        guard let value = file[name(key)] else { return nil }
        guard let number = value.double else {
            throw .wrongType(key: name(key), expected: "a number", found: value.typeDescription)
        }
        return Float(number)
    }

    func requiredFloat(_ key: String) throws(ModelConfigError) -> Float {
        guard let value = try float(key) else { throw .missingKey(name(key)) }
        return value
    }

    /// Throws when `key` is there and is anything but `value`.
    func mustBe(_ key: String, _ value: Int) throws(ModelConfigError) {
        guard let found = try int(key), found != value else { return }
        throw .unsupported(key: name(key), value: "\(found)", supported: "\(value)")
    }

    func token(_ kind: String) throws(ModelConfigError) -> Int? {
        let key = "tokenizer.ggml.\(kind)_token_id"
        guard let value = file[key] else { return nil }
        guard let id = value.int else {
            throw .wrongType(key: key, expected: "an integer", found: value.typeDescription)
        }
        // All bits set is how writers say "none".
        return id == Int(UInt32.max) || id < 0 ? nil : id
    }

    var addBos: Bool? {
        get throws(ModelConfigError) {
            let key = "tokenizer.ggml.add_bos_token"
            guard let value = file[key] else { return nil }
            guard let bool = value.bool else {
                throw .wrongType(key: key, expected: "a boolean", found: value.typeDescription)
            }
            return bool
        }
    }

    /// The control tokens that end a turn, known by their texts: files made before there was a key for them name only
    /// the token that ends a document.
    var endOfTurnTokens: [Int] {
        let controlType = 3
        guard let tokens = file["tokenizer.ggml.tokens"]?.array,
            let types = file["tokenizer.ggml.token_type"]?.array?.ints, types.count == tokens.count
        else { return [] }
        let texts = ["<|im_end|>", "<|eot_id|>", "<end_of_turn>"].map { Array($0.utf8) }
        var found: [Int] = []
        var index = 0
        tokens.forEachUTF8 { text in
            if types[index] == controlType, texts.contains(where: { text.elementsEqual($0) }) { found.append(index) }
            index += 1
        }
        return found
    }

    func rope(headDim: Int) throws(ModelConfigError) -> RopeConfig {
        var rope = RopeConfig(
            theta: try float("rope.freq_base") ?? 10_000, pairing: architecture == .llama ? .interleaved : .halfSplit)
        if architecture == .gemma3 { rope.localTheta = try float("rope.freq_base_swa") ?? 10_000 }
        rope.scaling = try scaling()
        if let factors = try frequencyFactors() { rope.scaling = .frequencyFactors(factors) }
        return rope
    }

    private func scaling() throws(ModelConfigError) -> RopeConfig.Scaling {
        let type = file[name("rope.scaling.type")]
        switch type?.string {
        case nil where type != nil:
            throw .wrongType(key: name("rope.scaling.type"), expected: "a string", found: type?.typeDescription ?? "")
        case nil, "linear"?:
            let current = try float("rope.scaling.factor")
            let old = try float("rope.scale_linear")
            let factor = current ?? old ?? 0
            // 0 is how old writers say "none".
            return factor == 0 || factor == 1 ? .none : .linear(factor: factor)
        case "none"?: return .none
        case let other?:
            throw .unsupported(key: name("rope.scaling.type"), value: other, supported: "none, linear")
        }
    }

    private func frequencyFactors() throws(ModelConfigError) -> [Float]? {
        guard let tensor = file.tensor(named: "rope_freqs.weight") else { return nil }
        guard tensor.type.weightFormat == .float32, let bytes = try? file.bytes(of: tensor) else {
            throw .unsupported(key: "tensor rope_freqs.weight", value: tensor.type.name, supported: "F32")
        }
        return (0..<tensor.elementCount).map { index in
            let bits = bytes.loadUnaligned(fromByteOffset: index * 4, as: UInt32.self)
            return Float(bitPattern: UInt32(littleEndian: bits))
        }
    }
}
