extension TokenizerDefinition {
    /// Makes a definition from a Hugging Face `tokenizer.json`, and what `tokenizer_config.json` adds to it: the
    /// tokens that begin and end a sequence, and the chat template.
    ///
    /// - Parameters:
    ///   - tokenizerJSON: The bytes of `tokenizer.json`.
    ///   - config: The bytes of `tokenizer_config.json`, when there is one.
    /// - Throws: `TokenizerError` with the byte of malformed JSON, the path of a wrong field, or the name of a
    ///   component that is not supported. Only BPE models are.
    public init(tokenizerJSON: some Sequence<UInt8>, config: (some Sequence<UInt8>)?) throws(TokenizerError) {
        let file = JSONField(try OrderedJSON(Array(tokenizerJSON)))
        var configField = JSONField(nil)
        if let config { configField = JSONField(try OrderedJSON(Array(config))) }
        try self.init(file: file, config: configField)
    }

    /// Makes a definition from a Hugging Face `tokenizer.json` alone.
    public init(tokenizerJSON: some Sequence<UInt8>) throws(TokenizerError) {
        try self.init(tokenizerJSON: tokenizerJSON, config: nil as [UInt8]?)
    }

    private init(file: JSONField, config: JSONField) throws(TokenizerError) {
        guard file.value?.object != nil else { throw file.wrong("an object") }
        let model = file["model"]
        let type = try model["type"].string(default: "BPE")
        guard type == "BPE" else { throw .unsupportedComponent(kind: "model", name: type, known: ["BPE"]) }
        for key in ["continuing_subword_prefix", "end_of_word_suffix"] where !model[key].isAbsent {
            if try !model[key].string().isEmpty {
                throw .unsupportedComponent(kind: "model option", name: key, known: ["none"])
            }
        }
        if case .number(let dropout) = model["dropout"].value, dropout > 0 {
            throw .unsupportedComponent(kind: "model option", name: "dropout", known: ["none"])
        }
        self.init(model: .rankedMerges, tokens: try Self.vocabulary(model["vocab"]))
        merges = try Self.merges(model["merges"])
        ignoresMerges = try model["ignore_merges"].bool(default: false)
        fallsBackToBytes = try model["byte_fallback"].bool(default: false)
        fusesUnknown = try model["fuse_unk"].bool(default: false)
        normalizers = try Self.normalizers(file["normalizer"])
        preTokenizers = try Self.preTokenizers(file["pre_tokenizer"])
        decoders = try Self.decoders(file["decoder"])
        try addTokens(file["added_tokens"])
        if !model["unk_token"].isAbsent {
            unknownID = firstID(of: try model["unk_token"].string())
            writesUnknown = true
        }
        try addMarks(file["post_processor"])
        try addConfig(config)
    }

    /// The texts by id of a `vocab` object.
    private static func vocabulary(_ field: JSONField) throws(TokenizerError) -> [String] {
        guard let members = field.value?.object else { throw field.wrong("an object") }
        if members.isEmpty { throw .emptyVocabulary }
        var largest = 0
        for member in members {
            guard let id = member.value.integer else {
                throw .malformedField(
                    path: "model.vocab.\(member.key)", expected: "an integer", found: member.value.kind)
            }
            guard id >= 0, id < tokenLimit else {
                throw .tokenIDOutOfRange(what: "id of \"\(member.key)\"", id: id, vocabularyCount: tokenLimit)
            }
            largest = max(largest, id)
        }
        var tokens = [String](repeating: "", count: largest + 1)
        for member in members {
            let id = member.value.integer ?? 0
            if !tokens[id].isEmpty {
                throw .malformedField(
                    path: "model.vocab", expected: "one token for id \(id)",
                    found: "\"\(tokens[id])\" and \"\(member.key)\"")
            }
            tokens[id] = member.key
        }
        return tokens
    }

    private static func merges(_ field: JSONField) throws(TokenizerError) -> Merges {
        guard let rules = field.value?.array else {
            if field.isAbsent { return .joined([]) }
            throw field.wrong("an array")
        }
        if rules.allSatisfy({ $0.string != nil }) { return .joined(rules.compactMap(\.string)) }
        var pairs: [(left: String, right: String)] = []
        pairs.reserveCapacity(rules.count)
        for (rank, rule) in rules.enumerated() {
            guard let sides = rule.array, sides.count == 2, let left = sides[0].string, let right = sides[1].string
            else { throw .malformedMerge(rank: rank, text: rule.string ?? rule.kind) }
            pairs.append((left, right))
        }
        return .pairs(pairs)
    }

    private mutating func addTokens(_ field: JSONField) throws(TokenizerError) {
        for entry in try field.elements() {
            let isSpecial = try entry["special"].bool(default: false)
            let token = AddedToken(
                id: try entry["id"].tokenID(), content: try entry["content"].string(), isSpecial: isSpecial,
                stripsLeft: try entry["lstrip"].bool(default: false),
                stripsRight: try entry["rstrip"].bool(default: false),
                isSingleWord: try entry["single_word"].bool(default: false),
                isNormalized: try entry["normalized"].bool(default: !isSpecial))
            let id = Int(token.id)
            if id >= tokens.count { tokens += Array(repeating: "", count: id + 1 - tokens.count) }
            if tokens[id].isEmpty { tokens[id] = token.content }
            addedTokens.append(token)
        }
    }

    private func firstID(of text: String) -> Int32? {
        if let added = addedTokens.first(where: { $0.content == text }) { return added.id }
        return tokens.firstIndex(of: text).map { Int32($0) }
    }

    /// What the post-processor puts around a single text.
    private mutating func addMarks(_ field: JSONField) throws(TokenizerError) {
        if field.isAbsent { return }
        switch try field["type"].string() {
        case "ByteLevel": return
        case "Sequence":
            for step in try field["processors"].elements() { try addMarks(step) }
        case "TemplateProcessing": try addTemplate(field)
        case "BertProcessing", "RobertaProcessing":
            prefix.append(try bertMark(field["cls"]))
            suffix.append(try bertMark(field["sep"]))
        case let name:
            throw .unsupportedComponent(
                kind: "post_processor", name: name,
                known: ["ByteLevel", "TemplateProcessing", "BertProcessing", "RobertaProcessing", "Sequence"])
        }
    }

    private func bertMark(_ field: JSONField) throws(TokenizerError) -> Int32 {
        let parts = try field.elements()
        guard parts.count == 2 else { throw field.wrong("a token and its id") }
        return try parts[1].tokenID()
    }

    private mutating func addTemplate(_ field: JSONField) throws(TokenizerError) {
        var sawText = false
        for piece in try field["single"].elements() {
            if !piece["Sequence"].isAbsent {
                sawText = true
                continue
            }
            let name = try piece["SpecialToken"]["id"].string()
            var ids: [Int32] = []
            for id in try field["special_tokens"][name]["ids"].elements() { ids.append(try id.tokenID()) }
            if sawText { suffix += ids } else { prefix += ids }
        }
    }

    private mutating func addConfig(_ config: JSONField) throws(TokenizerError) {
        bosID = try configToken(config["bos_token"])
        eosID = try configToken(config["eos_token"])
        paddingID = try configToken(config["pad_token"])
        if unknownID == nil { unknownID = try configToken(config["unk_token"]) }
        if let eosID { endIDs.insert(eosID) }
        for token in addedTokens where token.isSpecial && Self.customaryEnds.contains(token.content) {
            endIDs.insert(token.id)
        }
        // These classes build their post-processor from the two flags, whatever the file says.
        let classes = ["LlamaTokenizer", "LlamaTokenizerFast", "GemmaTokenizer", "GemmaTokenizerFast"]
        if let name = config["tokenizer_class"].value?.string, classes.contains(name) {
            if !config["add_bos_token"].isAbsent, let bosID {
                prefix = try config["add_bos_token"].bool(default: true) ? [bosID] : []
            }
            if !config["add_eos_token"].isAbsent, let eosID {
                suffix = try config["add_eos_token"].bool(default: false) ? [eosID] : []
            }
        }
        chatTemplate = config["chat_template"].value?.string
        if chatTemplate == nil, let named = config["chat_template"].value?.array {
            let entry = named.first { $0[key: "name"]?.string == "default" } ?? named.first
            chatTemplate = entry?[key: "template"]?.string
        }
    }

    /// A token given as its text or as an object with `content`.
    private func configToken(_ field: JSONField) throws(TokenizerError) -> Int32? {
        if field.isAbsent { return nil }
        let text = field.value?.object == nil ? try field.string() : try field["content"].string()
        return firstID(of: text)
    }
}
