/// Text to token ids and back.
///
/// ```swift
/// let tokenizer = try Tokenizer(definition)
/// let ids = try tokenizer.encode("Once upon a time")  // [6403, 1980, 253, 655] for SmolLM2
/// tokenizer.decode(ids)                               // "Once upon a time"
/// ```
///
/// Ids are exactly those of Hugging Face `tokenizers` for the same description. All state is fixed at `init`, so one
/// tokenizer serves any number of threads.
public final class Tokenizer: Sendable {
    /// The beginning of a sequence.
    public let bosID: Int32?
    /// The end of a sequence.
    public let eosID: Int32?
    /// All tokens that end a generation.
    public let endIDs: Set<Int32>
    /// What stands for text that the vocabulary cannot write.
    public let unknownID: Int32?
    /// What fills unused places of a batch.
    public let paddingID: Int32?
    /// The model's chat template, when its file has one.
    public let chatTemplate: String?
    /// How many ids there are; the largest is one less.
    public let vocabularyCount: Int

    let model: TokenizerDefinition.Model
    let isByteLevel: Bool
    let ignoresMerges: Bool
    /// The token for what the vocabulary cannot write; nil when nothing stands for it.
    let writtenUnknown: Int32?
    let fusesUnknown: Bool
    let addsSpacePrefix: Bool
    let prefix: [Int32]
    let suffix: [Int32]
    let normalizers: [Normalizer]
    let preTokenizers: [CompiledPreTokenizer]
    /// Tokens as they are written in the text that is merged; ids are found by it.
    let vocabulary: ByteStringTable
    /// Tokens as the bytes that they decode to.
    let pieces: ByteStringTable
    let decoder: CompiledDecoder
    let merges: MergeTable
    let scores: [Float]
    /// The token of each byte: of the byte-level alphabet, or of `<0xNN>`; -1 where there is none.
    let byteIDs: [Int32]
    /// Whether all 256 tokens `<0xNN>` are there and used.
    let fallsBackToBytes: Bool
    let addedIDs: [String: Int32]
    let specialIDs: Set<Int32>
    /// Looked for in the text as it is given, and in what normalisation makes of the rest.
    let rawMatcher: AddedTokenMatcher
    let normalizedMatcher: AddedTokenMatcher

    /// Checks a definition and builds the tables; 49 000 tokens and as many merges take tens of milliseconds.
    ///
    /// - Throws: `TokenizerError` naming what is wrong: an empty vocabulary, merges of unknown tokens, ids out of
    ///   range, arrays that disagree in length. Of two tokens with the same text the lower id is the one that encodes.
    public init(_ definition: TokenizerDefinition) throws(TokenizerError) {
        try definition.validate()
        vocabularyCount = definition.tokens.count
        bosID = definition.bosID
        eosID = definition.eosID
        endIDs = definition.endIDs
        unknownID = definition.unknownID
        paddingID = definition.paddingID
        chatTemplate = definition.chatTemplate
        model = definition.model
        ignoresMerges = definition.ignoresMerges
        writtenUnknown = definition.writesUnknown ? definition.unknownID : nil
        fusesUnknown = definition.fusesUnknown
        addsSpacePrefix = definition.addsSpacePrefix
        prefix = definition.prefix
        suffix = definition.suffix
        normalizers = definition.normalizers
        scores = definition.scores.map { $0.isNaN ? -.infinity : $0 }
        var steps: [CompiledPreTokenizer] = []
        for step in definition.preTokenizers { steps.append(try CompiledPreTokenizer(step)) }
        preTokenizers = steps
        isByteLevel = definition.preTokenizers.last?.isByteLevel ?? false
        decoder = try CompiledDecoder(definition.decoders)

        specialIDs = Set(definition.addedTokens.filter(\.isSpecial).map(\.id))
        addedIDs = Dictionary(definition.addedTokens.map { ($0.content, $0.id) }) { first, _ in first }
        let builder = try VocabularyBuilder(definition, decoder: decoder, isByteLevel: isByteLevel)
        vocabulary = builder.vocabulary
        pieces = builder.pieces
        byteIDs = builder.byteIDs
        fallsBackToBytes = definition.fallsBackToBytes && !builder.byteIDs.contains(-1)
        merges = try builder.mergeTable(definition)
        rawMatcher = AddedTokenMatcher(definition.addedTokens.filter { !$0.isNormalized })
        var normalized: [TokenizerDefinition.AddedToken] = []
        for var token in definition.addedTokens where token.isNormalized {
            for normalizer in definition.normalizers { token.content = try normalizer.apply(to: token.content) }
            normalized.append(token)
        }
        normalizedMatcher = AddedTokenMatcher(normalized)
    }

    /// The id of a token by its text as the vocabulary writes it, or nil.
    public func id(of token: String) -> Int32? {
        if let id = addedIDs[token] { return id }
        var bytes: [UInt8] = []
        var token = token
        let found = token.withUTF8 { text in
            if !isByteLevel { return vocabulary.id(of: text) }
            guard ByteLevelAlphabet.appendBytes(of: text, to: &bytes) else { return -1 }
            return bytes.withUnsafeBufferPointer { vocabulary.id(of: $0) }
        }
        return found < 0 ? nil : found
    }

    /// Whether a token is structure and not text.
    public func isSpecial(_ id: Int32) -> Bool {
        specialIDs.contains(id)
    }

    /// The bytes that a token decodes to, not necessarily whole scalars; none for an id out of range.
    public func bytes(of id: Int32) -> [UInt8] {
        pieces.count > Int(id) && id >= 0 ? Array(pieces.bytes(of: Int(id))) : []
    }
}
