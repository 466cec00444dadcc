/// The place of the greatest entry of each row, the lowest place where several are equal.
///
/// A row with a NaN, or of −∞ alone, gives −1 and says so in `status`.
public struct ArgmaxOperation: Sendable, Equatable {
    /// `[…, width]`, rank 1 to 3, float32, float16 or bfloat16; width 1 or more.
    public var input: TensorView

    /// `[rows]`, int32, contiguous.
    public var output: TensorView

    /// `[rows]`, uint8, contiguous: a ``RowStatus`` for each row.
    public var status: TensorView

    /// An operation; call ``validate()`` before it is executed.
    public init(input: TensorView, output: TensorView, status: TensorView) {
        self.input = input
        self.output = output
        self.status = status
    }

    /// Checks every tensor.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor, what it is, and what it must be.
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: input.device)
        try checks.rows(input, "input")
        try checks.width(input, "input")
        try checks.vector(output, "output", .int32, input.rowCount)
        try checks.vector(status, "status", .uint8, input.rowCount)
    }
}

extension TensorChecks {
    /// Rows of at least one and at most 2³¹ − 1 entries, so that a place fits in an int32.
    func width(_ view: TensorView, _ name: String) throws(FlashInferError) {
        guard view.shape[-1] >= 1, view.shape[-1] <= Int(Int32.max) else {
            throw .invalidArgument("\(name) width", found: "\(view.shape[-1])", expected: "in 1 ... \(Int32.max)")
        }
    }
}
