/// Rows stored as 8 bits: with one scale, or with scales of rows or of groups that the operation computes.
///
/// What is stored, and what the scales are, says ``OutputQuantization``. Reads the input once (twice where a row of its own scale does
/// not fit in a block's registers), writes a byte for each element.
public struct QuantizeOperation: Sendable, Equatable {
    /// `[…, width]`, rank 1 to 3, float32, float16 or bfloat16.
    public var input: TensorView

    /// The input's shape, float8 or int8; memory of its own.
    public var output: TensorView

    /// How the output is scaled.
    public var quantization: OutputQuantization

    /// An operation; call ``validate()`` before it is executed.
    public init(input: TensorView, output: TensorView, quantization: OutputQuantization) {
        self.input = input
        self.output = output
        self.quantization = quantization
    }

    /// Checks every tensor.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor, what it is, and what it must be.
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: input.device)
        try checks.rows(input, "input")
        try checks.output(output, like: input, "input", quantization)
        try checks.distinct(output, "output", from: input, "input")
    }
}
