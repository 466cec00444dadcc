/// Conversion between element types: `output = round(input · scale)`, to nearest, ties to even.
///
/// NaN stays NaN (0 in int8). float16 and bfloat16 overflow to infinity; float8 and int8 saturate.
public struct ConvertOperation: Sendable, Equatable {
    /// `[…, width]`, rank 1 to 3, any floating type or int8.
    public var input: TensorView

    /// The input's shape, any floating type or int8; may be the input where the types are equal.
    public var output: TensorView

    /// Multiplies each element before it is rounded: one over a quantisation scale, or the scale itself the other way.
    public var scale: Float

    /// An operation; call ``validate()`` before it is executed.
    public init(input: TensorView, output: TensorView, scale: Float = 1) {
        self.input = input
        self.output = output
        self.scale = scale
    }

    /// Checks both tensors.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor, what it is, and what it must be.
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: input.device)
        for (view, name) in [(input, "input"), (output, "output")] {
            guard view.dtype.isCacheType else {
                throw .invalidArgument(name, found: "\(view.dtype)", expected: "a floating type or int8")
            }
            try checks.anyRows(view, name)
        }
        try checks.shape(output, "output", input.shape)
        try checks.writable(output, "output")
        try checks.distinct(output, "output", from: input, "input")
        guard scale.isFinite else {
            throw .invalidArgument("scale", found: "\(scale)", expected: "finite")
        }
    }
}
