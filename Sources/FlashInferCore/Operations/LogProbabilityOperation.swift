/// The natural logarithm of one token's probability in each row: `output[r] = ln softmax(x[r] / t)[ids[r]]`.
///
/// A row without a distribution gives NaN and says so in `status`.
public struct LogProbabilityOperation: Sendable, Equatable {
    /// `[rows, vocabulary]`, float32, float16 or bfloat16.
    public var logits: TensorView

    /// `[rows]`, int32, contiguous: each in `0 ..< vocabulary`.
    public var ids: TensorView

    /// `[rows]`, float32, contiguous.
    public var output: TensorView

    /// `[rows]`, uint8, contiguous: a ``RowStatus`` for each row.
    public var status: TensorView

    /// One for each row, or one for all; empty for 1. Above 0.
    public var temperatures: [Float]

    /// An operation; call ``validate()`` before it is executed.
    public init(
        logits: TensorView, ids: TensorView, output: TensorView, status: TensorView, temperatures: [Float] = []
    ) {
        self.logits = logits
        self.ids = ids
        self.output = output
        self.status = status
        self.temperatures = temperatures
    }

    /// Checks every tensor and temperature, and the ids where the host can read them.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor (or the id), what it is, and what it must be.
    /// - Complexity: O(rows).
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: logits.device)
        try checks.rows(logits, "logits")
        try checks.width(logits, "logits")
        try checks.vector(ids, "ids", .int32, logits.rowCount)
        try checks.ids(ids, "ids", below: logits.shape[-1])
        try checks.vector(output, "output", .float32, logits.rowCount)
        try checks.vector(status, "status", .uint8, logits.rowCount)
        try SoftmaxOperation.check(temperatures, rows: logits.rowCount)
    }
}
