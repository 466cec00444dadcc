/// Root-mean-square normalisation of rows (Zhang and Sennrich, arXiv 1910.07467), optionally after adding a residual.
///
/// ```
/// sum    = input + residual                 (input alone without a residual)
/// output = sum · rsqrt(mean(sum²) + epsilon) · (weightOffset + weight)
/// residual ← sum
/// ```
/// The norm sees the unrounded sum; accumulation is float32. Moves each tensor once, the weight excepted.
///
/// With a ``quantization`` the output is rounded once, from the float32 result to 8 bits: the same bytes as a float32 output and a
/// ``ConvertOperation`` after it.
public struct RMSNormOperation: Sendable, Equatable {
    /// `[…, width]`, rank 1 to 3, float32, float16 or bfloat16, any strides of the rows.
    public var input: TensorView

    /// `[width]`, contiguous, float32, float16 or bfloat16.
    public var weight: TensorView

    /// The input's shape; read, and overwritten with the sum. `nil` for none.
    public var residual: TensorView?

    /// The input's shape; may be the input. float8 or int8 where it is quantised.
    public var output: TensorView

    /// Added to the mean square, 0 or more.
    public var epsilon: Float

    /// Added to each weight: 0, or 1 where the weights are stored less one (Gemma).
    public var weightOffset: Float

    /// How an output of 8 bits is scaled; `nil` for one of a compute type.
    public var quantization: OutputQuantization?

    /// An operation; call ``validate()`` before it is executed.
    public init(
        input: TensorView, weight: TensorView, residual: TensorView? = nil, output: TensorView, epsilon: Float = 1e-6,
        weightOffset: Float = 0, quantization: OutputQuantization? = nil
    ) {
        self.input = input
        self.weight = weight
        self.residual = residual
        self.output = output
        self.epsilon = epsilon
        self.weightOffset = weightOffset
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
        guard weight.dtype.isComputeType else {
            throw .invalidArgument("weight", found: "\(weight.dtype)", expected: "float32, float16 or bfloat16")
        }
        try checks.vector(weight, "weight", weight.dtype, input.shape[-1])
        if let residual {
            try checks.rows(residual, "residual", like: input)
            try checks.writable(residual, "residual")
            try checks.distinct(residual, "residual", from: input, "input")
            try checks.distinct(output, "output", from: residual, "residual")
            guard residual.address != output.address || input.elementCount == 0 else {
                throw .invalidArgument("residual", found: "the output", expected: "memory of its own")
            }
            switch quantization {
            case .perRow(let scales): try checks.distinct(scales, "row scales", from: residual, "residual")
            case .perGroup(_, let scales): try checks.distinct(scales, "group scales", from: residual, "residual")
            case nil, .scale, .scaleTensor: break
            }
        }
        guard epsilon >= 0, epsilon.isFinite, weightOffset.isFinite else {
            throw .invalidArgument(
                "epsilon and weightOffset", found: "\(epsilon) and \(weightOffset)",
                expected: "finite, and epsilon not negative")
        }
    }
}
