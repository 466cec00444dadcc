/// All that makes a tokenizer, as plain values: what a `tokenizer.json` or a GGUF file's metadata say.
///
/// `Tokenizer(definition)` checks it and builds the tables.
public struct TokenizerDefinition: Sendable {
    /// How neighbouring symbols become tokens.
    public enum Model: Sendable, Equatable {
        /// Merge rules with ranks; the lowest rank goes first.
        case rankedMerges
        /// Any two neighbours whose text together is a token may join; the best score goes first (SentencePiece).
        case scoredMerges
    }

    /// What a token is for; the raw values are GGUF's.
    public enum TokenType: Int32, Sendable {
        /// Text.
        case normal = 1
        /// Stands for what the vocabulary cannot write.
        case unknown = 2
        /// Structure, such as the beginning of a message; written in text only where special tokens are parsed.
        case control = 3
        /// Text that is one token wherever it stands.
        case userDefined = 4
        /// A hole in the numbering.
        case unused = 5
        /// One byte, written `<0xNN>`.
        case byte = 6
    }

    /// Merge rules, lowest rank first.
    public enum Merges: Sendable {
        /// `left right`, joined by one space.
        case joined([String])
        /// Both sides by themselves, which may hold spaces.
        case pairs([(left: String, right: String)])

        /// How many rules there are.
        public var count: Int {
            switch self {
            case .joined(let rules): rules.count
            case .pairs(let rules): rules.count
            }
        }
    }

    /// A text that is one token wherever it stands, found before anything else is done to the text.
    public struct AddedToken: Sendable, Equatable {
        /// Its id.
        public var id: Int32
        /// Its text.
        public var content: String
        /// Whether it is structure (found only where special tokens are parsed, and skipped when decoding) or text.
        public var isSpecial: Bool
        /// Whether it takes the white space before it.
        public var stripsLeft: Bool
        /// Whether it takes the white space after it.
        public var stripsRight: Bool
        /// Whether it must not touch word scalars on either side.
        public var isSingleWord: Bool
        /// Whether it is looked for after normalisation instead of before.
        public var isNormalized: Bool

        /// Makes an added token.
        public init(
            id: Int32, content: String, isSpecial: Bool, stripsLeft: Bool = false, stripsRight: Bool = false,
            isSingleWord: Bool = false, isNormalized: Bool = false
        ) {
            self.id = id
            self.content = content
            self.isSpecial = isSpecial
            self.stripsLeft = stripsLeft
            self.stripsRight = stripsRight
            self.isSingleWord = isSingleWord
            self.isNormalized = isNormalized
        }
    }

    /// How neighbouring symbols become tokens.
    public var model: Model
    /// The texts by id; `""` for ids that nothing stands for.
    public var tokens: [String]
    /// The scores by id, of `scoredMerges`; empty otherwise.
    public var scores: [Float] = []
    /// The types by id; empty when all are normal.
    public var types: [TokenType] = []
    /// The rules of `rankedMerges`.
    public var merges: Merges = .joined([])
    /// Whether a word that is a token is that token, whatever the merges would make of it.
    public var ignoresMerges = false
    /// Whether scalars that the vocabulary lacks become their bytes, `<0xNN>`.
    public var fallsBackToBytes = false
    /// Whether `unknownID` is put where the vocabulary cannot write a scalar; nothing is put there otherwise.
    public var writesUnknown = false
    /// Whether a run of unknown scalars is one unknown token.
    public var fusesUnknown = false
    /// What is done to text first.
    public var normalizers: [Normalizer] = []
    /// How text is cut, after normalisation.
    public var preTokenizers: [PreTokenizer] = []
    /// How tokens become text again.
    public var decoders: [TokenDecoder] = []
    /// Texts that are tokens before anything else is done.
    public var addedTokens: [AddedToken] = []
    /// Whether a space goes before the text and after every special token (SentencePiece's dummy prefix).
    public var addsSpacePrefix = false
    /// Ids put before a text when special tokens are asked for.
    public var prefix: [Int32] = []
    /// Ids put after a text when special tokens are asked for.
    public var suffix: [Int32] = []
    /// The beginning of a sequence.
    public var bosID: Int32?
    /// The end of a sequence.
    public var eosID: Int32?
    /// All tokens that end a generation, `eosID` among them.
    public var endIDs: Set<Int32> = []
    /// What stands for text that the vocabulary cannot write.
    public var unknownID: Int32?
    /// What fills unused places of a batch.
    public var paddingID: Int32?
    /// The model's chat template (Jinja), when the file has one.
    public var chatTemplate: String?

    /// Makes a definition with everything else at its default.
    public init(model: Model, tokens: [String]) {
        self.model = model
        self.tokens = tokens
    }

    /// The most tokens that a definition may hold.
    public static let tokenLimit = 1 << 22
    /// The most bytes of an added token.
    public static let addedTokenByteLimit = 4096
    /// The most bytes that are tokenised in one call.
    public static let textByteLimit = 1 << 30
}
