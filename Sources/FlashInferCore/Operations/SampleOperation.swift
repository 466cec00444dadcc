/// One token for each row of logits, by temperature, top-k, top-p and min-p, with each request's own random numbers.
///
/// With `w = exp((logit − max) / temperature)`, a token is kept where all of these hold:
/// - top-k: it is one of the k greatest by (logit descending, id ascending);
/// - top-p: the strictly greater weights sum to less than `topP` of the whole;
/// - min-p: `w ≥ minP`.
///
/// The token is the first in id order whose running sum of kept weights reaches `u` times their total, where `u` in (0, 1] is
/// the ``Philox4x32`` number of (seed, step). It depends on the row's logits, parameters, seed and step alone: not on the
/// row's place, its neighbours or the number of threads. Temperature 0 takes the greatest logit.
///
/// A row with a NaN, of −∞ alone, or (temperature above 0) with +∞ gives −1 and says so in `status`.
public struct SampleOperation: Sendable, Equatable {
    /// How one row is sampled.
    public struct Row: Sendable, Hashable {
        /// Divisor of the logits; 0 is greedy.
        public var temperature: Float

        /// Tokens kept by top-k; 0 for all.
        public var topK: Int

        /// Mass kept by top-p; 1 for all.
        public var topP: Float

        /// Least weight relative to the greatest; 0 for all.
        public var minP: Float

        /// The request's seed.
        public var seed: UInt64

        /// Which draw of the request this is: a different number for each token it samples.
        public var step: UInt64

        /// A row with these values.
        public init(
            temperature: Float = 1, topK: Int = 0, topP: Float = 1, minP: Float = 0, seed: UInt64, step: UInt64
        ) {
            self.temperature = temperature
            self.topK = topK
            self.topP = topP
            self.minP = minP
            self.seed = seed
            self.step = step
        }

        /// The `step`-th draw of a request with these parameters; its repetition penalty is applied to the logits before.
        public init(_ parameters: SamplingParameters, seed: UInt64, step: UInt64) {
            self.init(
                temperature: parameters.temperature, topK: parameters.topK, topP: parameters.topP,
                minP: parameters.minP, seed: seed, step: step)
        }
    }

    /// Of what top-p is a share.
    public enum FilterOrder: Sendable, Hashable {
        /// Of what top-k left.
        case topKFirst
        /// Of the whole distribution.
        case joint
    }

    /// `[rows, vocabulary]`, float32, float16 or bfloat16; stride 1 within a row.
    public var logits: TensorView

    /// `[rows]`, int32, contiguous: the tokens drawn.
    public var tokens: TensorView

    /// `[rows]`, uint8, contiguous: a ``RowStatus`` for each row.
    public var status: TensorView

    /// One for each row.
    public var rows: [Row]

    /// Of what top-p is a share.
    public var order: FilterOrder

    /// An operation; call ``validate()`` before it is executed.
    public init(
        logits: TensorView, tokens: TensorView, status: TensorView, rows: [Row], order: FilterOrder = .topKFirst
    ) {
        self.logits = logits
        self.tokens = tokens
        self.status = status
        self.rows = rows
        self.order = order
    }

    /// Checks every tensor and every row's parameters.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor or the row, what it is, and what it must be.
    /// - Complexity: O(rows).
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: logits.device)
        guard logits.rank == 2 else {
            throw .invalidArgument("logits", found: "of shape \(logits.shape)", expected: "[rows, vocabulary]")
        }
        try checks.rows(logits, "logits")
        try checks.width(logits, "logits")
        try checks.vector(tokens, "tokens", .int32, logits.shape[0])
        try checks.vector(status, "status", .uint8, logits.shape[0])
        guard rows.count == logits.shape[0] else {
            throw .lengthMismatch("rows", found: rows.count, expected: logits.shape[0])
        }
        for (index, row) in rows.enumerated() {
            guard row.temperature >= 0, row.temperature.isFinite else {
                throw .invalidArgument(
                    "rows[\(index)].temperature", found: "\(row.temperature)", expected: "finite and at least 0")
            }
            guard row.topK >= 0 else {
                throw .invalidArgument(
                    "rows[\(index)].topK", found: "\(row.topK)", expected: "at least 1, or 0 for no limit")
            }
            guard row.topP > 0, row.topP <= 1 else {
                throw .invalidArgument(
                    "rows[\(index)].topP", found: "\(row.topP)", expected: "above 0 and at most 1")
            }
            guard row.minP >= 0, row.minP <= 1 else {
                throw .invalidArgument("rows[\(index)].minP", found: "\(row.minP)", expected: "in 0 ... 1")
            }
        }
    }
}
