public import FlashInferCore

/// What a request to the ``Engine`` asks for besides its prompt.
public struct GenerationOptions: Sendable, Hashable {
    /// The most tokens to generate.
    public var maxTokens: Int
    /// How tokens are chosen.
    public var sampling: SamplingParameters
    /// The token ids that end the text; nil for the model's own end-of-sequence tokens.
    public var stopTokens: Set<Int32>?
    /// Strings that end the text as soon as they appear in it; they are not part of it.
    public var stopStrings: [String]
    /// Whether each token comes with its log-probability.
    public var wantsLogProbabilities: Bool

    /// Makes options.
    public init(
        maxTokens: Int = 256, sampling: SamplingParameters = .greedy, stopTokens: Set<Int32>? = nil,
        stopStrings: [String] = [], wantsLogProbabilities: Bool = false
    ) {
        self.maxTokens = maxTokens
        self.sampling = sampling
        self.stopTokens = stopTokens
        self.stopStrings = stopStrings
        self.wantsLogProbabilities = wantsLogProbabilities
    }
}
