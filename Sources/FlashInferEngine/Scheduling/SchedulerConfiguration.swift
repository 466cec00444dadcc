/// The limits a ``Scheduler`` works within.
public struct SchedulerConfiguration: Hashable, Sendable {
    /// The most tokens, prompt and generated together, that a sequence may have: the model's context length.
    public var contextLength: Int
    /// The most tokens computed in one step. Smaller keeps the time between tokens even while prompts come in; larger
    /// computes prompts faster.
    public var maxBatchTokens: Int
    /// The most sequences that run at a time; at most ``maxBatchTokens``, so that every one of them moves in each
    /// step.
    public var maxSequences: Int
    /// The most prompt tokens of one sequence computed in one step.
    public var prefillChunk: Int
    /// Whether full pages are kept and found again by later requests that start with the same tokens.
    public var reusesPrefixes: Bool

    /// Makes a configuration.
    public init(
        contextLength: Int, maxBatchTokens: Int = 512, maxSequences: Int = 64, prefillChunk: Int = 512,
        reusesPrefixes: Bool = true
    ) {
        self.contextLength = contextLength
        self.maxBatchTokens = maxBatchTokens
        self.maxSequences = maxSequences
        self.prefillChunk = prefillChunk
        self.reusesPrefixes = reusesPrefixes
    }

    /// Checks every limit against its range.
    func validate() throws(SchedulingError) {
        let least = [
            ("contextLength", contextLength, 2), ("maxBatchTokens", maxBatchTokens, 1),
            ("maxSequences", maxSequences, 1), ("prefillChunk", prefillChunk, 1),
        ]
        for (name, value, limit) in least where value < limit {
            throw .invalidConfiguration(name: name, value: value, requirement: "at least \(limit)")
        }
        guard maxSequences <= maxBatchTokens else {
            throw .invalidConfiguration(
                name: "maxSequences", value: maxSequences, requirement: "at most maxBatchTokens, \(maxBatchTokens)")
        }
    }
}
