/// Why the scheduler refused a configuration, a request or a step.
public enum SchedulingError: Error, Hashable {
    /// A number of the configuration is out of range.
    case invalidConfiguration(name: String, value: Int, requirement: String)
    /// A request has no prompt tokens, so there is nothing to predict from.
    case emptyPrompt
    /// A request asks for fewer than one token.
    case invalidMaxTokens(Int)
    /// A prompt cannot fit: it leaves no room for a single generated token.
    ///
    /// `limit` is the longest prompt that fits the context length and the page pool.
    case promptTooLong(tokens: Int, limit: Int)
    /// A request's id is in use by an unfinished request.
    case duplicateRequest(RequestID)
    /// A step was completed with another number of sampled tokens than it has sampled rows.
    case sampledTokenCount(expected: Int, found: Int)
}

extension SchedulingError: CustomStringConvertible {
    /// What is wrong, with the value and the limit, and what to do.
    public var description: String {
        switch self {
        case .invalidConfiguration(let name, let value, let requirement):
            "\(name) is \(value) but must be \(requirement)"
        case .emptyPrompt:
            "the prompt has no tokens; give at least one (for free text, the beginning-of-sequence token)"
        case .invalidMaxTokens(let count):
            "the token limit is \(count) but must be at least 1"
        case .promptTooLong(let tokens, let limit):
            "the prompt has \(tokens) tokens but at most \(limit) fit; shorten it, or raise the context length or the "
                + "number of cache pages"
        case .duplicateRequest(let id):
            "request \(id) is already being served; give every request its own id"
        case .sampledTokenCount(let expected, let found):
            "the step samples \(expected) rows but \(found) tokens came back"
        }
    }
}
