/// Merges states of attention over disjoint keys: the same merge that joins split KV, cascades and sequence-parallel ranks.
///
/// With `m = max lse` and `w = 2^(lse − m)`, `output = Σ w · values / Σ w` and `lse = m + log2 Σ w`. Empty states (LSE −∞) count
/// for nothing, whatever their values hold; rows whose states are all empty get output 0 and LSE −∞. Any order gives the same
/// result up to rounding.
public struct MergeStatesOperation: Sendable, Equatable {
    /// `[states, rows, heads, headDim]`, float32, float16 or bfloat16; stride 1 within a head.
    public var values: TensorView

    /// `[states, rows, heads]`, float32: base-2 log-sum-exps.
    public var logSumExp: TensorView

    /// `[rows, heads, headDim]`, float32, float16 or bfloat16.
    public var output: TensorView

    /// `[rows, heads]`, float32; `nil` where not wanted.
    public var mergedLogSumExp: TensorView?

    /// An operation; call ``validate()`` before it is executed.
    public init(
        values: TensorView, logSumExp: TensorView, output: TensorView, mergedLogSumExp: TensorView? = nil
    ) {
        self.values = values
        self.logSumExp = logSumExp
        self.output = output
        self.mergedLogSumExp = mergedLogSumExp
    }

    /// Checks every tensor.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor, what it is, and what it must be.
    public func validate() throws(FlashInferError) {
        guard values.rank == 4, values.dtype.isComputeType, values.strides[3] == 1 || values.shape[3] <= 1 else {
            throw .invalidArgument(
                "values", found: "\(values.dtype) \(values.shape) with strides \(values.strides)",
                expected:
                    "float32, float16 or bfloat16 [states, rows, heads, headDim] with stride 1 in the last dimension")
        }
        let checks = TensorChecks(device: values.device)
        let (states, rows, heads) = (values.shape[0], values.shape[1], values.shape[2])
        try checks.here(logSumExp, "logSumExp")
        try expectFloats(logSumExp, "logSumExp", [states, rows, heads])
        try checks.rows(output, "output")
        try checks.shape(output, "output", [rows, heads, values.shape[3]])
        try checks.writable(output, "output")
        if let mergedLogSumExp {
            try checks.here(mergedLogSumExp, "mergedLogSumExp")
            try checks.writable(mergedLogSumExp, "mergedLogSumExp")
            try expectFloats(mergedLogSumExp, "mergedLogSumExp", [rows, heads])
        }
    }

    private func expectFloats(_ view: TensorView, _ name: String, _ shape: Shape) throws(FlashInferError) {
        guard view.dtype == .float32, view.shape == shape else {
            throw .invalidArgument(name, found: "\(view.dtype) \(view.shape)", expected: "float32 \(shape)")
        }
    }
}
