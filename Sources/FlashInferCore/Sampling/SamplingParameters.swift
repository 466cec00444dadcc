/// How the next token is chosen from a row of logits.
///
/// The filters apply in this order to the distribution after the penalty and the temperature: ``topK``, ``topP``, ``minP``.
public struct SamplingParameters: Hashable, Sendable {
    /// The divisor of the logits; 0 takes the most likely token and ignores every other parameter but the penalty.
    public var temperature: Float

    /// Keeps the `topK` most likely tokens (of equal ones, the lowest ids); 0 keeps all.
    public var topK: Int

    /// Keeps a token if all strictly likelier ones together have less than `topP` of what ``topK`` kept; 1 keeps all, 0 the
    /// most likely (and its equals).
    public var topP: Float

    /// Drops tokens less likely than `minP` times the most likely one; 0 keeps all.
    public var minP: Float

    /// Divides positive, and multiplies negative, logits of the tokens already in the text (CTRL, arXiv 1909.05858);
    /// 1 changes nothing.
    public var repetitionPenalty: Float

    /// The seed of the request's own random numbers; `nil` draws one at submission. The same seed, prompt and parameters give
    /// the same tokens, whatever else is in the batch.
    public var seed: UInt64?

    /// Parameters; the defaults are greedy.
    public init(
        temperature: Float = 0, topK: Int = 0, topP: Float = 1, minP: Float = 0, repetitionPenalty: Float = 1,
        seed: UInt64? = nil
    ) {
        self.temperature = temperature
        self.topK = topK
        self.topP = topP
        self.minP = minP
        self.repetitionPenalty = repetitionPenalty
        self.seed = seed
    }

    /// Always the most likely token.
    public static let greedy = SamplingParameters()

    /// Whether the most likely token is always taken.
    public var isGreedy: Bool { temperature == 0 || topK == 1 }

    /// Checks every parameter against its range.
    ///
    /// - Throws: ``FlashInferError/invalidArgument(_:found:expected:)`` for the first one out of range; NaN is out of every range.
    public func validate() throws(FlashInferError) {
        guard temperature >= 0, temperature.isFinite else {
            throw .invalidArgument("temperature", found: "\(temperature)", expected: "finite and at least 0")
        }
        guard topK >= 0 else {
            throw .invalidArgument("topK", found: "\(topK)", expected: "at least 1, or 0 for no limit")
        }
        guard topP >= 0, topP <= 1 else {
            throw .invalidArgument("topP", found: "\(topP)", expected: "in 0 ... 1")
        }
        guard minP >= 0, minP <= 1 else {
            throw .invalidArgument("minP", found: "\(minP)", expected: "in 0 ... 1")
        }
        guard repetitionPenalty > 0, repetitionPenalty.isFinite else {
            throw .invalidArgument("repetitionPenalty", found: "\(repetitionPenalty)", expected: "finite and above 0")
        }
    }
}
