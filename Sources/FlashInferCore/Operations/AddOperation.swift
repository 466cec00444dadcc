/// A weighted sum of two tensors, or one tensor scaled: `output = alpha · first + beta · second`, in float32.
public struct AddOperation: Sendable, Equatable {
    /// `[…, width]`, rank 1 to 3, float32, float16 or bfloat16.
    public var first: TensorView

    /// The shape of `first`; `nil` to scale only.
    public var second: TensorView?

    /// The shape of `first`; may be either input.
    public var output: TensorView

    /// Multiplies `first`.
    public var alpha: Float

    /// Multiplies `second`.
    public var beta: Float

    /// An operation; call ``validate()`` before it is executed.
    public init(
        first: TensorView, second: TensorView? = nil, output: TensorView, alpha: Float = 1, beta: Float = 1
    ) {
        self.first = first
        self.second = second
        self.output = output
        self.alpha = alpha
        self.beta = beta
    }

    /// Checks every tensor.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor, what it is, and what it must be.
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: first.device)
        try checks.rows(first, "first")
        if let second {
            try checks.rows(second, "second", like: first)
            try checks.distinct(output, "output", from: second, "second")
        }
        try checks.rows(output, "output", like: first)
        try checks.writable(output, "output")
        try checks.distinct(output, "output", from: first, "first")
    }
}
