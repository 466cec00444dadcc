/// Biases, penalties and a grammar's mask on rows of logits, in place and in one pass:
///
/// ```
/// logit += bias                                                          for a token with a bias
/// logit = logit > 0 ? logit / repetition : logit * repetition            for a token of the prompt or the output
/// logit = logit - frequency * (times in the output) - presence           for a token of the output
/// logit = -inf                                                           for a token that the mask forbids
/// ```
///
/// The repetition penalty is that of CTRL (Keskar et al., arXiv 1909.05858), the others are those of the OpenAI API. Arithmetic is
/// float32, each step rounded, and a 16-bit logit is rounded once at the end; only logits that change are written.
public struct AdjustLogitsOperation: Sendable, Equatable {
    /// What changes one row.
    public struct Row: Sendable, Hashable {
        /// Divides positive and multiplies other logits of tokens that occurred; above 0, 1 for none.
        public var repetition: Float
        /// Subtracted from the logits of tokens of the output.
        public var presence: Float
        /// Subtracted from the logits of tokens of the output, as often as they occur there.
        public var frequency: Float
        /// The prompt's tokens: a range of ``AdjustLogitsOperation/history``.
        public var prompt: Range<Int>
        /// The output's tokens: a range of ``AdjustLogitsOperation/history``.
        public var output: Range<Int>
        /// The biases: a range of ``AdjustLogitsOperation/biasTokens`` and `biases`. Of several of one token the last counts.
        public var bias: Range<Int>

        /// A row with these values.
        public init(
            repetition: Float = 1, presence: Float = 0, frequency: Float = 0, prompt: Range<Int> = 0..<0,
            output: Range<Int> = 0..<0, bias: Range<Int> = 0..<0
        ) {
            self.repetition = repetition
            self.presence = presence
            self.frequency = frequency
            self.prompt = prompt
            self.output = output
            self.bias = bias
        }
    }

    /// `[rows, vocabulary]`, float32, float16 or bfloat16, stride 1 within a row: read and written.
    public var logits: TensorView
    /// One for each row.
    public var rows: [Row]
    /// `[…]`, int32, contiguous, or none: tokens of prompts and outputs. Ids outside of the vocabulary are passed over.
    public var history: TensorView?
    /// `[…]`, int32, contiguous, or none. Ids outside of the vocabulary are passed over.
    public var biasTokens: TensorView?
    /// `[…]`, float32, contiguous, as many as the tokens.
    public var biases: TensorView?
    /// `[rows, ⌈vocabulary / 32⌉]`, int32, stride 1 within a row, or none: bit `i % 32` of word `i / 32`, from the lowest, is 1
    /// where token `i` is allowed, as in XGrammar (arXiv 2411.15100).
    public var mask: TensorView?

    /// An operation; call ``validate()`` before it is executed.
    public init(
        logits: TensorView, rows: [Row], history: TensorView? = nil, biasTokens: TensorView? = nil,
        biases: TensorView? = nil, mask: TensorView? = nil
    ) {
        self.logits = logits
        self.rows = rows
        self.history = history
        self.biasTokens = biasTokens
        self.biases = biases
        self.mask = mask
    }

    /// Checks every tensor and every row's parameters.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor or the row, what it is, and what it must be.
    /// - Complexity: O(rows).
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: logits.device)
        try checks.distributions(logits, .logits)
        try checks.writable(logits, "logits")
        for (view, name, type) in [
            (history, "history", DType.int32), (biasTokens, "biasTokens", .int32), (biases, "biases", .float32),
        ] {
            guard let view else { continue }
            try checks.vector(view, name, type, view.rank == 1 ? view.shape[0] : -1)
        }
        let (tokenCount, biasCount) = (history?.shape[0] ?? 0, biasTokens?.shape[0] ?? 0)
        guard (biases?.shape[0] ?? 0) == biasCount else {
            throw .lengthMismatch("biases", found: biases?.shape[0] ?? 0, expected: biasCount)
        }
        guard max(tokenCount, biasCount) <= Int(Int32.max) else { throw .overflow("history or biases") }
        if let mask {
            guard mask.dtype == .int32 else {
                throw .invalidArgument("mask", found: "\(mask.dtype)", expected: "int32")
            }
            try checks.shape(mask, "mask", [logits.shape[0], (logits.shape[1] + 31) / 32])
            try checks.anyRows(mask, "mask")
        }
        guard rows.count == logits.shape[0] else {
            throw .lengthMismatch("rows", found: rows.count, expected: logits.shape[0])
        }
        for (index, row) in rows.enumerated() {
            guard row.repetition > 0, row.repetition.isFinite else {
                throw .invalidArgument(
                    "rows[\(index)].repetition", found: "\(row.repetition)", expected: "finite and above 0")
            }
            guard row.presence.isFinite, row.frequency.isFinite else {
                throw .invalidArgument(
                    "rows[\(index)] penalties", found: "\(row.presence) and \(row.frequency)", expected: "finite")
            }
            for (range, name, count) in [
                (row.prompt, "prompt", tokenCount), (row.output, "output", tokenCount), (row.bias, "bias", biasCount),
            ] {
                guard range.isEmpty || (range.lowerBound >= 0 && range.upperBound <= count) else {
                    throw .invalidArgument("rows[\(index)].\(name)", found: "\(range)", expected: "in 0 ..< \(count)")
                }
            }
        }
    }
}
