/// Layer normalisation of rows (Ba et al., arXiv 1607.06450), optionally after adding a residual.
///
/// ```
/// sum    = input + residual                 (input alone without a residual)
/// output = (sum − mean(sum)) · rsqrt(variance(sum) + epsilon) · weight + bias
/// residual ← sum
/// ```
/// The variance is the mean of the squared distances from the mean, taken after the mean is known: rows far from 0 lose no digits.
/// The norm sees the unrounded sum; accumulation is float32. Moves each tensor once, weight and bias excepted. An output of 8 bits
/// is rounded once, as ``RMSNormOperation``'s.
public struct LayerNormOperation: Sendable, Equatable {
    /// `[…, width]`, rank 1 to 3, float32, float16 or bfloat16, any strides of the rows.
    public var input: TensorView

    /// `[width]`, contiguous, float32, float16 or bfloat16.
    public var weight: TensorView

    /// `[width]`, contiguous, the weight's type.
    public var bias: TensorView

    /// The input's shape; read, and overwritten with the sum. `nil` for none.
    public var residual: TensorView?

    /// The input's shape; may be the input. float8 or int8 where it is quantised.
    public var output: TensorView

    /// Added to the variance, 0 or more.
    public var epsilon: Float

    /// How an output of 8 bits is scaled, by one scale or one for each row; `nil` for one of a compute type.
    public var quantization: OutputQuantization?

    /// An operation; call ``validate()`` before it is executed.
    public init(
        input: TensorView, weight: TensorView, bias: TensorView, residual: TensorView? = nil, output: TensorView,
        epsilon: Float = 1e-6, quantization: OutputQuantization? = nil
    ) {
        self.input = input
        self.weight = weight
        self.bias = bias
        self.residual = residual
        self.output = output
        self.epsilon = epsilon
        self.quantization = quantization
    }

    /// Checks every tensor.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor, what it is, and what it must be.
    public func validate() throws(FlashInferError) {
        // All but the bias is a root-mean-square norm's.
        try RMSNormOperation(
            input: input, weight: weight, residual: residual, output: output, epsilon: epsilon,
            quantization: quantization
        ).validate()
        let checks = TensorChecks(device: input.device)
        try checks.vector(bias, "bias", weight.dtype, input.shape[-1])
        try checks.distinct(output, "output", from: bias, "bias")
    }
}
