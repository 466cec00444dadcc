extension TokenizerDefinition {
    /// The metadata of a GGUF file that describe its tokenizer, by their names after `tokenizer.ggml.`.
    public struct GGUFVocabulary: Sendable {
        /// `model`: "gpt2" or "llama".
        public var model: String
        /// `pre`: which pre-tokenisers; "gpt2" models only.
        public var pre: String?
        /// `tokens`.
        public var tokens: [String]
        /// `scores`; empty when absent.
        public var scores: [Float] = []
        /// `token_type`; empty when absent.
        public var tokenTypes: [Int32] = []
        /// `merges`; empty when absent.
        public var merges: [String] = []
        /// `bos_token_id`.
        public var bosID: Int32?
        /// `eos_token_id`.
        public var eosID: Int32?
        /// `eot_token_id`, `eom_token_id` and whatever else ends a generation.
        public var otherEndIDs: [Int32] = []
        /// `unknown_token_id`.
        public var unknownID: Int32?
        /// `padding_token_id`.
        public var paddingID: Int32?
        /// `add_bos_token`; nil when absent.
        public var addsBos: Bool?
        /// `add_eos_token`; nil when absent.
        public var addsEos: Bool?
        /// `add_space_prefix`; nil when absent.
        public var addsSpacePrefix: Bool?
        /// `tokenizer.chat_template`.
        public var chatTemplate: String?

        /// Makes a vocabulary with everything else absent.
        public init(model: String, pre: String? = nil, tokens: [String]) {
            self.model = model
            self.pre = pre
            self.tokens = tokens
        }
    }

    /// Makes a definition from a GGUF file's metadata.
    ///
    /// Tokens of the types control and unknown become special added tokens, user-defined ones plain added tokens.
    /// Besides `eos_token_id`, control tokens with the customary names of a turn's end (`<|im_end|>`, `<|eot_id|>`,
    /// `<end_of_turn>`, …) end a generation.
    ///
    /// - Throws: `TokenizerError.unsupportedComponent` for another model or an unknown `pre`, listing the known ones.
    public init(gguf vocabulary: GGUFVocabulary) throws(TokenizerError) {
        switch vocabulary.model {
        case "gpt2":
            self.init(model: .rankedMerges, tokens: vocabulary.tokens)
            let known = try PreTokenizer.known(named: vocabulary.pre ?? "default")
            preTokenizers = known.steps
            ignoresMerges = known.entry.ignoresMerges
            merges = .joined(vocabulary.merges)
            decoders = [.byteLevel]
            addSequenceMarks(vocabulary, bos: known.entry.addsBos)
        case "llama":
            self.init(model: .scoredMerges, tokens: vocabulary.tokens)
            scores = vocabulary.scores
            fallsBackToBytes = true
            writesUnknown = true
            addsSpacePrefix = vocabulary.addsSpacePrefix ?? true
            decoders = [.replace("\u{2581}", with: " "), .byteFallback, .fuse]
            if addsSpacePrefix { decoders.append(.strip(" ", start: 1, stop: 0)) }
            addSequenceMarks(vocabulary, bos: true)
        default:
            throw .unsupportedComponent(
                kind: "tokenizer.ggml.model", name: vocabulary.model, known: ["gpt2", "llama"])
        }
        if !vocabulary.tokenTypes.isEmpty {
            // An unknown type number is text, as in the readers that came before the type.
            types = vocabulary.tokenTypes.map { TokenType(rawValue: $0) ?? .normal }
        }
        unknownID = vocabulary.unknownID
        paddingID = vocabulary.paddingID
        chatTemplate = vocabulary.chatTemplate
        for (id, type) in types.enumerated() where id < tokens.count && !tokens[id].isEmpty {
            if type == .control || type == .unknown || type == .userDefined {
                addedTokens.append(
                    AddedToken(id: Int32(id), content: tokens[id], isSpecial: type != .userDefined))
                if type == .control, Self.customaryEnds.contains(tokens[id]) { endIDs.insert(Int32(id)) }
            }
        }
    }

    private mutating func addSequenceMarks(_ vocabulary: GGUFVocabulary, bos: Bool) {
        bosID = vocabulary.bosID
        eosID = vocabulary.eosID
        endIDs = Set(vocabulary.otherEndIDs)
        if let eosID { endIDs.insert(eosID) }
        if let bosID, vocabulary.addsBos ?? bos { prefix = [bosID] }
        if let eosID, vocabulary.addsEos ?? false { suffix = [eosID] }
    }

    static let customaryEnds: Set<String> = [
        "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|end_of_text|>",
        "<|eot|>", "<|return|>", "<|END_OF_TURN_TOKEN|>", "</s>",
    ]
}
