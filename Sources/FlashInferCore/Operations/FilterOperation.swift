/// Keeps what top-k, top-p and min-p keep of each row: other logits become −∞; other probabilities become 0, and the rest are divided
/// by their sum.
///
/// What is kept is what ``SampleOperation`` could draw with the same parameters, ties included: exactly k by top-k, the lowest ids
/// of equal values first. FlashInfer's `top_k_renorm_probs`, `top_p_renorm_probs` and `top_k_mask_logits` are this operation; they keep
/// all that equal the k-th.
///
/// A row without a distribution says so in `status`: of probabilities it becomes zeros, of logits it stays as it is.
public struct FilterOperation: Sendable, Equatable {
    /// What is kept of one row.
    public struct Row: Sendable, Hashable {
        /// Divisor of the logits, above 0, on which top-p and min-p depend. 1 for probabilities.
        public var temperature: Float
        /// Entries kept by top-k; 0 for all.
        public var topK: Int
        /// Mass kept by top-p; 1 for all, 0 for the greatest and what equals it.
        public var topP: Float
        /// Least weight relative to the greatest; 0 for all.
        public var minP: Float

        /// A row with these values.
        public init(temperature: Float = 1, topK: Int = 0, topP: Float = 1, minP: Float = 0) {
            self.temperature = temperature
            self.topK = topK
            self.topP = topP
            self.minP = minP
        }
    }

    /// `[rows, vocabulary]`, stride 1 within a row: logits, float32, float16 or bfloat16; or probabilities, float32.
    public var input: TensorView
    /// What the input's numbers are.
    public var form: DistributionForm
    /// The input's shape and type; may be the input.
    public var output: TensorView
    /// `[rows]`, uint8, contiguous: a ``RowStatus`` for each row.
    public var status: TensorView
    /// One for each row, or one for all; none where `packedRows` has them.
    public var rows: [Row]
    /// Parameters in the device's memory instead of `rows`; see ``SampleOperation/packedRows``.
    public var packedRows: TensorView?
    /// Of what top-p is a share.
    public var order: SampleOperation.FilterOrder

    /// An operation; call ``validate()`` before it is executed.
    public init(
        _ input: TensorView, as form: DistributionForm, output: TensorView, status: TensorView, rows: [Row],
        order: SampleOperation.FilterOrder = .topKFirst
    ) {
        self.input = input
        self.form = form
        self.output = output
        self.status = status
        self.rows = rows
        self.order = order
    }

    /// Checks every tensor and every row's parameters.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor or the row, what it is, and what it must be.
    /// - Complexity: O(rows).
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: input.device)
        try checks.distributions(input, form)
        try checks.rows(output, "output", like: input)
        guard output.dtype == input.dtype else {
            throw .invalidArgument("output", found: "\(output.dtype)", expected: "\(input.dtype)")
        }
        try checks.writable(output, "output")
        try checks.distinct(output, "output", from: input, form.name)
        try checks.vector(status, "status", .uint8, input.shape[0])
        try checks.packed(packedRows, "packedRows", input.shape[0], SampleOperation.Row.packedByteCount)
        let isRight = packedRows == nil ? rows.count == input.shape[0] || rows.count == 1 : rows.isEmpty
        guard isRight else {
            throw .lengthMismatch("rows", found: rows.count, expected: packedRows == nil ? input.shape[0] : 0)
        }
        for (index, row) in rows.enumerated() {
            let name = "rows[\(index)]"
            guard row.temperature > 0, row.temperature.isFinite, form == .logits || row.temperature == 1 else {
                throw .invalidArgument(
                    "\(name).temperature", found: "\(row.temperature)",
                    expected: form == .logits ? "finite and above 0" : "1 for probabilities")
            }
            try Self.check(topK: row.topK, topP: row.topP, minP: row.minP, name)
        }
    }

    /// The ranges of the filters' parameters, which exclude NaN.
    static func check(topK: Int, topP: Float, minP: Float, _ name: String) throws(FlashInferError) {
        guard topK >= 0 else {
            throw .invalidArgument("\(name).topK", found: "\(topK)", expected: "at least 1, or 0 for no limit")
        }
        guard topP >= 0, topP <= 1 else {
            throw .invalidArgument("\(name).topP", found: "\(topP)", expected: "in 0 ... 1")
        }
        guard minP >= 0, minP <= 1 else {
            throw .invalidArgument("\(name).minP", found: "\(minP)", expected: "in 0 ... 1")
        }
    }
}
