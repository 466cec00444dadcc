extension TokenizerDefinition {
    /// Checks all that can be told without building tables.
    func validate() throws(TokenizerError) {
        if tokens.isEmpty { throw .emptyVocabulary }
        if tokens.count > Self.tokenLimit {
            throw .tooMany(what: "tokens", count: tokens.count, limit: Self.tokenLimit)
        }
        if merges.count > 8 * Self.tokenLimit {
            throw .tooMany(what: "merges", count: merges.count, limit: 8 * Self.tokenLimit)
        }
        if !types.isEmpty, types.count != tokens.count {
            throw .lengthMismatch(what: "token types", count: types.count, expected: tokens.count)
        }
        if model == .scoredMerges, scores.count != tokens.count {
            throw .lengthMismatch(what: "scores", count: scores.count, expected: tokens.count)
        }
        for (index, step) in preTokenizers.enumerated() where step.isByteLevel && index != preTokenizers.count - 1 {
            throw .unsupportedComponent(
                kind: "pre-tokenizer order", name: "ByteLevel before another step", known: ["ByteLevel last"])
        }
        if model == .scoredMerges, !preTokenizers.isEmpty {
            throw .unsupportedComponent(
                kind: "pre-tokenizer", name: "\(preTokenizers[0])", known: ["none with scored merges"])
        }
        try check("bos_token_id", bosID)
        try check("eos_token_id", eosID)
        try check("unknown_token_id", unknownID)
        try check("padding_token_id", paddingID)
        for id in prefix { try check("id before the text", id) }
        for id in suffix { try check("id after the text", id) }
        for id in endIDs { try check("end token", id) }
        for token in addedTokens {
            try check("added token \"\(token.content)\"", token.id)
            if token.content.utf8.count > Self.addedTokenByteLimit {
                throw .tooMany(
                    what: "bytes of added token \(token.id)", count: token.content.utf8.count,
                    limit: Self.addedTokenByteLimit)
            }
        }
    }

    private func check(_ what: String, _ id: Int32?) throws(TokenizerError) {
        guard let id, !tokens.indices.contains(Int(id)) else { return }
        throw .tokenIDOutOfRange(what: what, id: Int(id), vocabularyCount: tokens.count)
    }
}

/// Builds the tables of a tokenizer from its definition.
struct VocabularyBuilder {
    private(set) var vocabulary: ByteStringTable
    private(set) var pieces: ByteStringTable
    private(set) var byteIDs = [Int32](repeating: -1, count: 256)
    private let isByteLevel: Bool
    /// Tokens that text never becomes by merging: added ones that are special, unknown, control, unused and byte ones,
    /// and those of a byte-level vocabulary that its alphabet cannot write.
    private var apart: [String: Int32] = [:]

    init(_ definition: TokenizerDefinition, decoder: CompiledDecoder, isByteLevel: Bool) throws(TokenizerError) {
        self.isByteLevel = isByteLevel
        let count = definition.tokens.count
        vocabulary = ByteStringTable(capacity: count)
        pieces = ByteStringTable(capacity: isByteLevel ? 0 : count)
        var added: [Int32: TokenizerDefinition.AddedToken] = [:]
        for token in definition.addedTokens { added[token.id] = token }
        for id in 0..<count {
            add(id, definition, added[Int32(id)], decoder)
        }
        if isByteLevel { pieces = vocabulary }
        findBytes(definition)
    }

    private mutating func add(
        _ id: Int, _ definition: TokenizerDefinition, _ added: TokenizerDefinition.AddedToken?,
        _ decoder: CompiledDecoder
    ) {
        var text = definition.tokens[id]
        let type = definition.types.isEmpty ? .normal : definition.types[id]
        let isApart =
            text.isEmpty || added?.isSpecial == true || (type != .normal && type != .userDefined)
        if isByteLevel {
            var isWritable = false
            vocabulary.append { bytes in
                if added != nil {
                    // What an added token's text says is what it decodes to, whatever the alphabet makes of it.
                    bytes.append(contentsOf: (added?.content ?? text).utf8)
                } else {
                    isWritable = text.withUTF8 { ByteLevelAlphabet.appendBytes(of: $0, to: &bytes) }
                    if !isWritable { bytes.append(contentsOf: text.utf8) }
                }
            }
            // Added tokens of plain ASCII text are written alike in both alphabets; others cannot be merged to.
            if added != nil { isWritable = text.utf8.allSatisfy { (33...126).contains($0) } }
            if isApart || !isWritable {
                apart[text] = Int32(id)
            } else {
                _ = vocabulary.index(id)
            }
        } else {
            vocabulary.append(text.utf8)
            pieces.append { bytes in
                if let added { bytes.append(contentsOf: added.content.utf8) } else { decoder.append(text, to: &bytes) }
            }
            if isApart { apart[text] = Int32(id) } else { _ = vocabulary.index(id) }
        }
    }

    private mutating func findBytes(_ definition: TokenizerDefinition) {
        for byte in 0..<256 {
            if isByteLevel {
                byteIDs[byte] = withUnsafeBytes(of: UInt8(byte)) {
                    vocabulary.id(of: $0.bindMemory(to: UInt8.self))
                }
            } else {
                let digits = String(byte, radix: 16, uppercase: true)
                byteIDs[byte] = id(of: "<0x" + (digits.count < 2 ? "0" : "") + digits + ">") ?? -1
            }
        }
    }

    /// Any token, apart or not, by the text of the definition.
    private func id(of text: String) -> Int32? {
        var text = text
        var bytes: [UInt8] = []
        let found = text.withUTF8 { utf8 in
            if !isByteLevel { return vocabulary.id(of: utf8) }
            guard ByteLevelAlphabet.appendBytes(of: utf8, to: &bytes) else { return Int32(-1) }
            return bytes.withUnsafeBufferPointer { vocabulary.id(of: $0) }
        }
        return found >= 0 ? found : apart[text]
    }

    /// The rules by pairs of ids. A rule that makes a special token is left out.
    func mergeTable(_ definition: TokenizerDefinition) throws(TokenizerError) -> MergeTable {
        var table = MergeTable(capacity: definition.merges.count)
        var buffer: [UInt8] = []
        func add(_ rank: Int, _ left: Substring, _ right: Substring) throws(TokenizerError) {
            func token(_ side: Substring) throws(TokenizerError) -> Int32 {
                guard let id = self.id(of: String(side)) else {
                    throw .unknownMergeToken(rank: rank, token: String(side))
                }
                return id
            }
            let leftID = try token(left)
            let rightID = try token(right)
            buffer.removeAll(keepingCapacity: true)
            buffer.append(contentsOf: vocabulary.bytes(of: Int(leftID)))
            buffer.append(contentsOf: vocabulary.bytes(of: Int(rightID)))
            let merged = buffer.withUnsafeBufferPointer { vocabulary.id(of: $0) }
            if merged < 0 {
                _ = try token(left + right)
                return
            }
            table.insert(left: leftID, right: rightID, rank: Int32(rank), merged: merged)
        }
        switch definition.merges {
        case .pairs(let rules):
            for (rank, rule) in rules.enumerated() { try add(rank, rule.left[...], rule.right[...]) }
        case .joined(let rules):
            for (rank, rule) in rules.enumerated() {
                let space = rule.utf8.firstIndex(of: 32)
                guard let space, space > rule.startIndex, rule.utf8.index(after: space) < rule.endIndex else {
                    throw .malformedMerge(rank: rank, text: rule)
                }
                try add(rank, rule[..<space], rule[rule.utf8.index(after: space)...])
            }
        }
        return table
    }
}
