public import FlashInferCore

/// A model that computes steps: the one thing the ``Engine`` needs to know about a model.
///
/// The engine calls ``step(_:sampling:)`` for one step at a time, always on the engine's own thread, so a runner may
/// block as long as it computes without starving Swift's cooperative thread pool.
public protocol ModelRunner: Sendable {
    /// The number of token ids; prompts with other ids are refused before they reach the runner.
    var vocabularySize: Int { get }

    /// Computes the rows of `batch`, writes their keys and values into the slots it names, and samples.
    ///
    /// - Parameters:
    ///   - batch: the tokens to compute, and the pages to read and write.
    ///   - sampling: one element for each of `batch.sampledRows`, in that order.
    /// - Returns: one token for each element of `sampling`.
    /// - Throws: anything; the engine ends every request with the error and starts afresh.
    func step(_ batch: StepBatch, sampling: [SamplingRow]) async throws -> [SampledToken]

    /// Ends what takes part in the steps elsewhere, where anything does; no step follows.
    func finish()
}

extension ModelRunner {
    /// Nothing: the runner computes alone.
    public func finish() {}
}

/// How the token behind one row of logits is chosen.
public struct SamplingRow: Sendable {
    /// The request.
    public let id: RequestID
    /// The parameters, validated.
    public let parameters: SamplingParameters
    /// The seed of the request's random numbers: the one asked for, or one drawn at submission.
    public let seed: UInt64
    /// How many tokens the request has sampled before. With ``seed`` it names one random number, so that a token does
    /// not depend on what else is in the batch or on preemptions.
    public let drawIndex: Int
    /// Every token of the request so far, when the parameters have a repetition penalty; empty otherwise.
    public let penalizedTokens: [Int32]
    /// Whether the log-probability of the chosen token is wanted.
    public let wantsLogProbability: Bool

    /// A row with these values.
    package init(
        id: RequestID, parameters: SamplingParameters, seed: UInt64, drawIndex: Int, penalizedTokens: [Int32],
        wantsLogProbability: Bool
    ) {
        self.id = id
        self.parameters = parameters
        self.seed = seed
        self.drawIndex = drawIndex
        self.penalizedTokens = penalizedTokens
        self.wantsLogProbability = wantsLogProbability
    }
}

/// A chosen token.
public struct SampledToken: Hashable, Sendable {
    /// The token id.
    public let token: Int32
    /// The natural logarithm of its probability before temperature and filters, if it was asked for.
    public let logProbability: Float?

    /// Makes a chosen token.
    public init(token: Int32, logProbability: Float? = nil) {
        self.token = token
        self.logProbability = logProbability
    }
}

/// Turns the tokens of one request into text as they come.
public protocol TextDecoder: Sendable {
    /// Takes the next token.
    ///
    /// - Returns: the text that is certain now, which may be empty: bytes that are not yet a whole character wait.
    mutating func append(_ token: Int32) -> String

    /// Ends the text.
    ///
    /// - Returns: what was still held back.
    mutating func finish() -> String
}
