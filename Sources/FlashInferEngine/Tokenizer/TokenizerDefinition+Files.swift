extension TokenizerDefinition {
    /// Makes a definition from the metadata of a GGUF file.
    public init(gguf file: GGUFFile) throws(TokenizerError) {
        let vocabulary: GGUFVocabulary
        do throws(ModelFileError) {
            vocabulary = try GGUFVocabulary(file)
        } catch {
            throw .unreadableFile(reason: error.description)
        }
        try self.init(gguf: vocabulary)
    }

    /// Makes a definition from the `tokenizer.json` of a folder, its `tokenizer_config.json` and `chat_template.jinja`.
    public init(huggingFace folder: HuggingFaceFolder) throws(TokenizerError) {
        func bytes(_ path: String) throws(TokenizerError) -> [UInt8] {
            do throws(ModelFileError) {
                return try MappedFile(path: path).copy()
            } catch {
                throw .unreadableFile(reason: error.description)
            }
        }
        guard let path = folder.tokenizerPath else {
            throw .unreadableFile(reason: "\(folder.path) has no tokenizer.json")
        }
        var config: [UInt8]?
        if let path = folder.tokenizerConfigPath { config = try bytes(path) }
        try self.init(tokenizerJSON: bytes(path), config: config)
        if let path = folder.chatTemplatePath { chatTemplate = String(decoding: try bytes(path), as: UTF8.self) }
    }

    /// Makes a definition from either layout of a model.
    public init(_ source: ModelSource) throws(TokenizerError) {
        switch source {
        case .gguf(let file): try self.init(gguf: file)
        case .huggingFace(let folder): try self.init(huggingFace: folder)
        }
    }
}

extension TokenizerDefinition.GGUFVocabulary {
    /// Reads the metadata; what is absent in the file stays absent.
    init(_ file: GGUFFile) throws(ModelFileError) {
        func id(_ name: String) throws(ModelFileError) -> Int32? {
            // Some files write "none" as the largest number of the type; that and -1 are no token.
            guard let value = try file.int("tokenizer.ggml.\(name)_token_id"), value >= 0, value < Int(Int32.max)
            else { return nil }
            return Int32(value)
        }
        self.init(
            model: try file.string("tokenizer.ggml.model") ?? "", pre: try file.string("tokenizer.ggml.pre"),
            tokens: try file.strings("tokenizer.ggml.tokens") ?? [])
        scores = try file.floats("tokenizer.ggml.scores") ?? []
        tokenTypes = try file.ints("tokenizer.ggml.token_type")?.map { Int32(truncatingIfNeeded: $0) } ?? []
        merges = try file.strings("tokenizer.ggml.merges") ?? []
        bosID = try id("bos")
        eosID = try id("eos")
        for name in ["eot", "eom"] {
            if let end = try id(name) { otherEndIDs.append(end) }
        }
        unknownID = try id("unknown")
        paddingID = try id("padding")
        addsBos = try file.bool("tokenizer.ggml.add_bos_token")
        addsEos = try file.bool("tokenizer.ggml.add_eos_token")
        addsSpacePrefix = try file.bool("tokenizer.ggml.add_space_prefix")
        chatTemplate = try file.string("tokenizer.chat_template")
    }
}
