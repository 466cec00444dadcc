/// What can be wrong with a chat template, or with what it is given.
public enum ChatTemplateError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The template is not valid, or uses something that is not supported; lines count from 1.
    case syntax(line: Int, reason: String)
    /// An operation failed while rendering, such as an attribute of something undefined.
    case evaluation(reason: String)
    /// The template itself refused its input with `raise_exception`.
    case raised(message: String)
    /// Rendering went over a bound that keeps templates from strangers harmless.
    case limit(what: String, limit: Int)

    /// One sentence for a person.
    public var description: String { text.escapedForTerminals }

    private var text: String {
        switch self {
        case .syntax(let line, let reason): "chat template, line \(line): \(reason)"
        case .evaluation(let reason): "chat template: \(reason)"
        case .raised(let message): "the chat template refuses this conversation: \(message)"
        case .limit(let what, let limit): "chat template: over the limit of \(limit) \(what)"
        }
    }
}

/// The bounds of one rendering.
enum ChatTemplateLimits {
    /// Of source text.
    static let sourceBytes = 1 << 20
    /// Statements and expressions evaluated, and blocks of 64 bytes of text made.
    static let steps = 4_000_000
    /// Of output.
    static let outputBytes = 32 << 20
    /// Nested statements, expressions and macro calls; each takes stack.
    static let depth = 200
    /// Of one `range`, the bound of Jinja's own sandbox.
    static let rangeCount = 100_000
}
