/// What can be wrong with a tokenizer's description, or with the text given to it.
public enum TokenizerError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The JSON text of a tokenizer file is not valid JSON; `offset` counts bytes from its start.
    case malformedJSON(offset: Int, reason: String)
    /// A field of a tokenizer description is missing or has another type than the format says.
    case malformedField(path: String, expected: String, found: String)
    /// A component that this tokenizer does not know, with those it does.
    case unsupportedComponent(kind: String, name: String, known: [String])
    /// The vocabulary holds no token at all.
    case emptyVocabulary
    /// More of something than the limit that keeps memory bounded.
    case tooMany(what: String, count: Int, limit: Int)
    /// The file that holds the description cannot be read.
    case unreadableFile(reason: String)
    /// A token id outside `0 ..< vocabularyCount`.
    case tokenIDOutOfRange(what: String, id: Int, vocabularyCount: Int)
    /// A merge rule names a token that the vocabulary lacks.
    case unknownMergeToken(rank: Int, token: String)
    /// A merge rule is not two tokens.
    case malformedMerge(rank: Int, text: String)
    /// Per-token arrays disagree in length.
    case lengthMismatch(what: String, count: Int, expected: Int)
    /// A regular expression does not parse, or uses a construct that is not supported; `offset` counts scalars.
    case badPattern(pattern: String, offset: Int, reason: String)
    /// Matching a regular expression took more steps than its budget: the pattern backtracks too much on this text.
    case patternTooExpensive(pattern: String, steps: Int, textScalars: Int)

    /// One sentence for a person.
    public var description: String { text.escapedForTerminals }

    private var text: String {
        switch self {
        case .malformedJSON(let offset, let reason):
            "tokenizer JSON: \(reason) at byte \(offset)"
        case .malformedField(let path, let expected, let found):
            "tokenizer field \(path): expected \(expected), found \(found)"
        case .unsupportedComponent(let kind, let name, let known):
            "tokenizer \(kind) \"\(name)\" is not supported; supported: \(known.joined(separator: ", "))"
        case .emptyVocabulary:
            "the tokenizer's vocabulary is empty"
        case .tooMany(let what, let count, let limit):
            "tokenizer \(what): \(count) is over the limit of \(limit)"
        case .unreadableFile(let reason):
            reason
        case .tokenIDOutOfRange(let what, let id, let count):
            "\(what) \(id) is outside the vocabulary of \(count) tokens"
        case .unknownMergeToken(let rank, let token):
            "merge \(rank) names \"\(token)\", which the vocabulary lacks"
        case .malformedMerge(let rank, let text):
            "merge \(rank) is \"\(text)\", not two tokens"
        case .lengthMismatch(let what, let count, let expected):
            "tokenizer \(what) has \(count) entries, the vocabulary \(expected)"
        case .badPattern(let pattern, let offset, let reason):
            "pattern \(pattern): \(reason) at \(offset)"
        case .patternTooExpensive(let pattern, let steps, let scalars):
            "pattern \(pattern) took over \(steps) steps on \(scalars) scalars"
        }
    }
}
