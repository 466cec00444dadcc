/// Root-mean-square normalisation of every head of queries and keys before it turns (QK-norm, as of Qwen3 and Gemma 3; after Henry et
/// al., arXiv 2010.04245).
///
/// ```
/// head ← head · rsqrt(mean(head²) + epsilon) · (weightOffset + weight)
/// ```
/// over all elements of a head, those that do not turn included, in float32; what turns is not rounded before.
public struct HeadNormalization: Sendable, Equatable {
    /// `[headDim]`, contiguous, float32, float16 or bfloat16: of the queries' heads.
    public var queryWeight: TensorView

    /// `[headDim]`, contiguous, the type of `queryWeight`: of the keys' heads; `nil` exactly where there are no keys.
    public var keyWeight: TensorView?

    /// Added to the mean square, 0 or more.
    public var epsilon: Float

    /// Added to each weight: 0, or 1 where the weights are stored less one (Gemma).
    public var weightOffset: Float

    /// Elements of the widest head that is normalised.
    public static let largestHeadDim = 1024

    /// A normalisation with these weights.
    public init(
        queryWeight: TensorView, keyWeight: TensorView? = nil, epsilon: Float = 1e-6, weightOffset: Float = 0
    ) {
        self.queryWeight = queryWeight
        self.keyWeight = keyWeight
        self.epsilon = epsilon
        self.weightOffset = weightOffset
    }

    /// Checks the weights for heads of `headDim` elements.
    func validate(headDim: Int, hasKeys: Bool, _ checks: TensorChecks) throws(FlashInferError) {
        guard headDim >= 1, headDim <= Self.largestHeadDim else {
            throw .invalidArgument(
                "head dimension of normalised heads", found: "\(headDim)", expected: "in 1 ... \(Self.largestHeadDim)")
        }
        guard queryWeight.dtype.isComputeType else {
            throw .invalidArgument(
                "query weight", found: "\(queryWeight.dtype)", expected: "float32, float16 or bfloat16")
        }
        try checks.vector(queryWeight, "query weight", queryWeight.dtype, headDim)
        guard (keyWeight != nil) == hasKeys else {
            throw .invalidArgument(
                "key weight", found: keyWeight == nil ? "nil" : "a tensor",
                expected: hasKeys ? "a tensor, as there are keys" : "nil, as there are no keys")
        }
        if let keyWeight { try checks.vector(keyWeight, "key weight", queryWeight.dtype, headDim) }
        guard epsilon >= 0, epsilon.isFinite, weightOffset.isFinite else {
            throw .invalidArgument(
                "epsilon and weightOffset", found: "\(epsilon) and \(weightOffset)",
                expected: "finite, and epsilon not negative")
        }
    }
}

extension TensorChecks {
    /// Positions, and the table of angles that they are looked up in, if any.
    func angles(
        _ positions: TensorView, _ tokens: Int, _ table: TensorView?, rotaryDim: Int
    ) throws(FlashInferError) {
        try vector(positions, "positions", .int32, tokens)
        guard let table else { return try ids(positions, "positions", below: 1 << 31) }
        guard table.dtype == .float32, table.rank == 2, table.shape[1] == rotaryDim, rotaryDim % 2 == 0,
            table.strides[1] == 1 || rotaryDim <= 1
        else {
            throw .invalidArgument(
                "table of cosines and sines", found: "\(table.dtype) \(table.shape) with strides \(table.strides)",
                expected: "float32 [positions, \(rotaryDim)] with stride 1 in a row")
        }
        try here(table, "table of cosines and sines")
        try ids(positions, "positions", below: min(table.shape[0], 1 << 31))
    }
}
