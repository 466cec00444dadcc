/// A product with packed weights: `output[m, n] = Σ_k input[m, k] · weights[n, k] (+ bias[n]) (+ output[m, n])`.
public struct LinearOperation: Sendable {
    /// `[rows, K]`, float32 or the weights' ``DeviceWeights/inputType``; stride 1 within a row.
    public var input: TensorView

    /// `[N, K]`, from the device's `makeWeights(_:)`.
    public var weights: any DeviceWeights

    /// `[rows, N]`, float32; stride 1 within a row.
    public var output: TensorView

    /// `[N]`, float32; `nil` for none.
    public var bias: TensorView?

    /// Whether the product is added to what `output` holds: a residual connection.
    public var accumulates: Bool

    /// A product.
    public init(
        input: TensorView, weights: any DeviceWeights, output: TensorView, bias: TensorView? = nil,
        accumulates: Bool = false
    ) {
        self.input = input
        self.weights = weights
        self.output = output
        self.bias = bias
        self.accumulates = accumulates
    }

    /// Checks shapes, types and devices.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor, what it is, and what it must be.
    public func validate() throws(FlashInferError) {
        let isTaken = input.dtype == .float32 || input.dtype == weights.inputType
        guard input.rank == 2, isTaken, input.shape[1] == weights.columns else {
            let types = weights.inputType == .float32 ? "float32" : "float32 or \(weights.inputType)"
            throw .invalidArgument(
                "linear input", found: "\(input.dtype) \(input.shape)",
                expected: "\(types) [rows, \(weights.columns)]")
        }
        guard output.dtype == .float32, output.shape == [input.shape[0], weights.rows] else {
            throw .invalidArgument(
                "linear output", found: "\(output.dtype) \(output.shape)",
                expected: "float32 [\(input.shape[0]), \(weights.rows)]")
        }
        guard input.strides[1] == 1 || input.shape[1] == 1, output.strides[1] == 1 || output.shape[1] == 1 else {
            throw .invalidArgument(
                "linear strides", found: "\(input.strides) and \(output.strides)", expected: "1 within a row")
        }
        try TensorChecks(device: output.device).writable(output, "linear output")
        if let bias {
            guard bias.dtype == .float32, bias.shape == [weights.rows], bias.isContiguous else {
                throw .invalidArgument(
                    "linear bias", found: "\(bias.dtype) \(bias.shape)",
                    expected: "contiguous float32 [\(weights.rows)]")
            }
        }
        for (name, device) in [
            ("output", output.device), ("weights", weights.device), ("bias", bias?.device ?? input.device),
        ]
        where device != input.device {
            throw .invalidArgument(
                "linear \(name)", found: "on \(device)", expected: "on \(input.device), as the input")
        }
    }
}
