/// The gated activation of a feed-forward block: `output = activation(gate) · up`, element by element.
///
/// For a fused projection `[tokens, 2 · width]`, gate and up are its two slices. With a ``quantization`` the float32 product is
/// rounded once, to 8 bits.
public struct GatedActivationOperation: Sendable, Equatable {
    /// The function of the gate.
    public enum Activation: Sendable, Hashable, CaseIterable {
        /// `x · sigmoid(x)` (SwiGLU).
        case silu
        /// `x · Φ(x)` with the exact normal distribution.
        case geluErf
        /// GELU's tanh form, `x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))` (Gemma).
        case geluTanh
    }

    /// `[…, width]`, rank 1 to 3, float32, float16 or bfloat16.
    public var gate: TensorView

    /// The gate's shape, float32, float16 or bfloat16.
    public var up: TensorView

    /// The gate's shape, float32, float16 or bfloat16; may be `gate` or `up`. float8 or int8 where it is quantised.
    public var output: TensorView

    /// The function of the gate.
    public var activation: Activation

    /// How an output of 8 bits is scaled; `nil` for one of a compute type.
    public var quantization: OutputQuantization?

    /// An operation; call ``validate()`` before it is executed.
    public init(
        gate: TensorView, up: TensorView, output: TensorView, activation: Activation,
        quantization: OutputQuantization? = nil
    ) {
        self.gate = gate
        self.up = up
        self.output = output
        self.activation = activation
        self.quantization = quantization
    }

    /// Checks every tensor.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor, what it is, and what it must be.
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: gate.device)
        try checks.rows(gate, "gate")
        try checks.rows(up, "up", like: gate)
        try checks.output(output, like: gate, "gate", quantization)
        try checks.distinct(output, "output", from: gate, "gate")
        try checks.distinct(output, "output", from: up, "up")
        switch quantization {
        case .perRow(let scales): try checks.distinct(scales, "row scales", from: up, "up")
        case .perGroup(_, let scales): try checks.distinct(scales, "group scales", from: up, "up")
        case nil, .scale, .scaleTensor: break
        }
    }
}
