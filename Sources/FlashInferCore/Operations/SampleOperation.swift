/// One token for each row of logits or probabilities, by temperature, top-k, top-p and min-p, with each request's own random
/// numbers.
///
/// With `w = exp((logit − max) / temperature)`, or `w = probability / max`, a token is kept where all of these hold:
/// - top-k: it is one of the k greatest by (value descending, id ascending);
/// - top-p: the strictly greater weights sum to less than `topP` of the whole;
/// - min-p: `w ≥ minP`.
///
/// The token is the first in id order whose running sum of kept weights reaches `u` times their total, where `u` in (0, 1] is
/// the ``Philox4x32`` number of (seed, step). It depends on the row's values, parameters, seed and step alone: not on the
/// row's place, its neighbours, the device, or the number of threads. Temperature 0 takes the greatest value.
///
/// A row with a NaN, of −∞ (or zeros) alone, with a negative probability, or (temperature above 0) with +∞ gives −1 and says so in
/// `status`.
///
/// The filters and their orders are those of FlashInfer's `sampling` module, with ties decided.
public struct SampleOperation: Sendable, Equatable {
    /// How one row is sampled.
    public struct Row: Sendable, Hashable {
        /// Divisor of the logits; 0 is greedy. 1 (or 0) for probabilities.
        public var temperature: Float

        /// Tokens kept by top-k; 0 for all.
        public var topK: Int

        /// Mass kept by top-p; 1 for all, 0 for the greatest and what equals it.
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

    /// `[rows, vocabulary]`, stride 1 within a row: logits, float32, float16 or bfloat16; or probabilities, float32.
    public var input: TensorView

    /// What the input's numbers are.
    public var form: DistributionForm

    /// `[rows]`, int32, contiguous: the tokens drawn.
    public var tokens: TensorView

    /// `[rows]`, uint8, contiguous: a ``RowStatus`` for each row.
    public var status: TensorView

    /// One for each row; none where `packedRows` has them.
    public var rows: [Row]

    /// `[rows, 32]`, uint8, contiguous, at a multiple of 8 bytes: parameters in the device's memory, as ``Row/packed(_:)`` lays them
    /// out, instead of `rows`. A captured graph reads what is there at each replay. They are not checked: a row of parameters out
    /// of range draws some token of the row, or −1.
    public var packedRows: TensorView?

    /// Of what top-p is a share.
    public var order: FilterOrder

    /// An operation on numbers of either form; call ``validate()`` before it is executed.
    public init(
        _ input: TensorView, as form: DistributionForm, tokens: TensorView, status: TensorView, rows: [Row],
        order: FilterOrder = .topKFirst
    ) {
        self.input = input
        self.form = form
        self.tokens = tokens
        self.status = status
        self.rows = rows
        self.order = order
    }

    /// An operation on logits; call ``validate()`` before it is executed.
    public init(
        logits: TensorView, tokens: TensorView, status: TensorView, rows: [Row], order: FilterOrder = .topKFirst
    ) {
        self.init(logits, as: .logits, tokens: tokens, status: status, rows: rows, order: order)
    }

    /// An operation on probabilities; call ``validate()`` before it is executed.
    public init(
        probabilities: TensorView, tokens: TensorView, status: TensorView, rows: [Row],
        order: FilterOrder = .topKFirst
    ) {
        self.init(probabilities, as: .probabilities, tokens: tokens, status: status, rows: rows, order: order)
    }

    /// Checks every tensor and every row's parameters.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor or the row, what it is, and what it must be.
    /// - Complexity: O(rows).
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: input.device)
        try checks.distributions(input, form)
        try checks.vector(tokens, "tokens", .int32, input.shape[0])
        try checks.vector(status, "status", .uint8, input.shape[0])
        try checks.packed(packedRows, "packedRows", input.shape[0], Row.packedByteCount)
        guard rows.count == (packedRows == nil ? input.shape[0] : 0) else {
            throw .lengthMismatch("rows", found: rows.count, expected: packedRows == nil ? input.shape[0] : 0)
        }
        for (index, row) in rows.enumerated() {
            let name = "rows[\(index)]"
            guard form == .logits || row.temperature == 1 || row.temperature == 0 else {
                throw .invalidArgument(
                    "\(name).temperature", found: "\(row.temperature)", expected: "1 or 0 for probabilities")
            }
            guard row.temperature >= 0, row.temperature.isFinite else {
                throw .invalidArgument(
                    "\(name).temperature", found: "\(row.temperature)", expected: "finite and at least 0")
            }
            try FilterOperation.check(topK: row.topK, topP: row.topP, minP: row.minP, name)
        }
    }
}

extension TensorChecks {
    /// A matrix of logits, of any type of activations, or of float32 probabilities.
    func distributions(_ view: TensorView, _ form: DistributionForm) throws(FlashInferError) {
        guard view.rank == 2 else {
            throw .invalidArgument(form.name, found: "of shape \(view.shape)", expected: "[rows, vocabulary]")
        }
        try rows(view, form.name)
        guard form == .logits || view.dtype == .float32 else {
            throw .invalidArgument(form.name, found: "\(view.dtype)", expected: "float32")
        }
        try width(view, form.name)
    }
}
