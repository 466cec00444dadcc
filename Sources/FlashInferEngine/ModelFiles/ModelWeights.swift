import FlashInferCore

/// All weights of a model by role, checked against its settings; nothing is copied out of the mapped files.
public struct ModelWeights: Sendable {
    /// The settings that the weights were checked against.
    public let config: ModelConfig

    private let tensors: [WeightRole: WeightTensor]

    /// The weight for `role`, nil when the model has none. A tied output is the embedding.
    public subscript(role: WeightRole) -> WeightTensor? {
        tensors[role] ?? (role == .output && config.tiedEmbeddings ? tensors[.tokenEmbedding] : nil)
    }

    /// The weight for `role`. Throws when a model with these settings has none.
    public func tensor(_ role: WeightRole) throws(ModelWeightsError) -> WeightTensor {
        guard let tensor = self[role] else { throw .missingTensor(role.ggufName) }
        return tensor
    }

    /// The bytes of all weights.
    public var byteCount: Int { tensors.values.reduce(0) { $0 + $1.range.count } }

    /// Finds and checks the weights of a GGUF file.
    ///
    /// Throws when one is missing, of another shape, or in a format without kernels, and when the file holds a tensor
    /// that the settings do not call for.
    public init(gguf file: GGUFFile, config: ModelConfig) throws(ModelWeightsError) {
        // The scaling of the rotary embedding is part of the settings.
        var unclaimed = Set(file.tensors.map(\.name)).subtracting(["rope_freqs.weight"])
        var tensors: [WeightRole: WeightTensor] = [:]
        for role in WeightRole.all(for: config) {
            let name = role.ggufName
            guard let tensor = file.tensor(named: name) else { throw .missingTensor(name) }
            tensors[role] = try role.check(
                name: name, format: tensor.type.weightFormat, formatName: tensor.type.name,
                shape: tensor.shape.reversed(), file: file.file, range: tensor.range, config: config)
            unclaimed.remove(name)
        }
        if let name = unclaimed.min() { throw .unexpectedTensor(name) }
        self.config = config
        self.tensors = tensors
    }

    /// Finds and checks the weights of a Hugging Face folder.
    ///
    /// Throws as `init(gguf:config:)` does. Tensors of a multi-modal model's other towers are passed over.
    public init(huggingFace folder: HuggingFaceFolder, config: ModelConfig) throws(ModelWeightsError) {
        let shards = folder.weights
        let names = HuggingFaceNames(shards: shards, postNorms: config.postNorms)
        var unclaimed = Set(shards.files.flatMap { $0.tensors.map(\.name) }.filter { !names.mayIgnore($0) })
        var tensors: [WeightRole: WeightTensor] = [:]
        for role in WeightRole.all(for: config) {
            let name = names.name(of: role)
            guard let (tensor, file) = shards.tensor(named: name) else { throw .missingTensor(name) }
            tensors[role] = try role.check(
                name: name, format: tensor.type.weightFormat, formatName: tensor.type.name, shape: tensor.shape,
                file: file, range: tensor.range, config: config)
            unclaimed.remove(name)
        }
        // Some folders hold the tied output as well, a copy of the embedding.
        if config.tiedEmbeddings { unclaimed.remove(names.name(of: .output)) }
        if let name = unclaimed.min() { throw .unexpectedTensor(name) }
        self.config = config
        self.tensors = tensors
    }
}

extension WeightRole {
    /// Checks a tensor of `shape`, row-major, against what this role must be.
    fileprivate func check(
        name: String, format: WeightFormat?, formatName: String, shape: [Int], file: MappedFile, range: Range<Int>,
        config: ModelConfig
    ) throws(ModelWeightsError) -> WeightTensor {
        let (rows, columns) = self.shape(for: config)
        let expected = isVector ? [columns] : [rows, columns]
        guard shape == expected else { throw .wrongShape(tensor: name, expected: expected, found: shape) }
        let supported = WeightFormat.allCases.filter { !isVector || $0.blockSize == 1 }
        guard let format, supported.contains(format) else {
            throw .unsupportedFormat(tensor: name, format: formatName, supported: supported.map { "\($0)" })
        }
        return WeightTensor(name: name, format: format, rows: rows, columns: columns, file: file, range: range)
    }
}

/// How one folder spells the names.
private struct HuggingFaceNames {
    private let prefix: String
    private let postNorms: Bool

    /// Multi-modal models keep the decoder under one of these.
    private static let prefixes = ["", "language_model.", "model.language_model."]

    init(shards: SafetensorsShards, postNorms: Bool) {
        self.postNorms = postNorms
        let embedding = WeightRole.tokenEmbedding.huggingFaceName(postNorms: postNorms)
        prefix = Self.prefixes.first { shards.tensor(named: Self.join($0, embedding)) != nil } ?? ""
    }

    func name(of role: WeightRole) -> String {
        // The newest layout keeps the output matrix outside the decoder.
        let prefix = role == .output && self.prefix == "model.language_model." ? "" : self.prefix
        return Self.join(prefix, role.huggingFaceName(postNorms: postNorms))
    }

    /// `model.language_model.` takes the place of `model.`; `language_model.` stands before it.
    private static func join(_ prefix: String, _ name: String) -> String {
        prefix == "model.language_model." && name.hasPrefix("model.") ? prefix + name.dropFirst(6) : prefix + name
    }

    /// Buffers that are computed anew, and the towers of a multi-modal model.
    func mayIgnore(_ name: String) -> Bool {
        name.hasSuffix(".rotary_emb.inv_freq")
            || !prefix.isEmpty
                && ["vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."]
                    .contains { name.hasPrefix($0) }
    }
}
