/// Rotary position embedding of queries and keys, each row at its own position (Su et al., arXiv 2104.09864).
///
/// Element pair `i` of a head turns by `position · f(i)`, see ``RoPEParameters``; elements past `rotaryDim` are copied. Angles
/// are computed in float64, so they hold at any position.
public struct RoPEOperation: Sendable, Equatable {
    /// `[tokens, queryHeads, headDim]`, float32, float16 or bfloat16; stride 1 within a head.
    public var queries: TensorView

    /// `[tokens, kvHeads, headDim]`, float32, float16 or bfloat16; stride 1 within a head. `nil` for none.
    public var keys: TensorView?

    /// The shape of `queries`, float32, float16 or bfloat16; may be `queries`.
    public var queryOutput: TensorView

    /// The shape of `keys`, float32, float16 or bfloat16; may be `keys`. `nil` exactly where `keys` is.
    public var keyOutput: TensorView?

    /// `[tokens]`, int32, contiguous: 0 or more.
    public var positions: TensorView

    /// Which pairs turn, and how fast.
    public var parameters: RoPEParameters

    /// `[positions, rotaryDim]`, float32: of each position the cosines, then the sines; read instead of computing them, so that of
    /// `parameters` only `rotaryDim` and the pairing count. `nil`: computed. On a GPU a position outside of it gives NaN.
    public var table: TensorView?

    /// How heads are normalised before they turn; `nil`: not at all.
    public var normalization: HeadNormalization?

    /// An operation; call ``validate()`` before it is executed. In place where no outputs are given.
    public init(
        queries: TensorView, keys: TensorView? = nil, queryOutput: TensorView? = nil, keyOutput: TensorView? = nil,
        positions: TensorView, parameters: RoPEParameters, table: TensorView? = nil,
        normalization: HeadNormalization? = nil
    ) {
        self.queries = queries
        self.keys = keys
        self.queryOutput = queryOutput ?? queries
        self.keyOutput = keyOutput ?? keys
        self.positions = positions
        self.parameters = parameters
        self.table = table
        self.normalization = normalization
    }

    /// Checks every tensor, and the positions where the host can read them.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor, what it is, and what it must be.
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: queries.device)
        try validate(queries, "queries", into: queryOutput, "query output", checks)
        try parameters.validate(headDim: queries.shape[2])
        if let keys {
            guard let keyOutput else {
                throw .invalidArgument("key output", found: "nil", expected: "of shape \(keys.shape), as the keys")
            }
            try validate(keys, "keys", into: keyOutput, "key output", checks)
            try checks.shape(keys, "keys", [queries.shape[0], keys.shape[1], queries.shape[2]])
        } else if keyOutput != nil {
            throw .invalidArgument("key output", found: "a tensor", expected: "nil, as there are no keys")
        }
        let headDim = queries.shape[2]
        try checks.angles(positions, queries.shape[0], table, rotaryDim: parameters.rotaryDim ?? headDim)
        try normalization?.validate(headDim: headDim, hasKeys: keys != nil, checks)
    }

    private func validate(
        _ input: TensorView, _ name: String, into output: TensorView, _ outputName: String, _ checks: TensorChecks
    ) throws(FlashInferError) {
        guard input.rank == 3 else {
            throw .invalidArgument(name, found: "of shape \(input.shape)", expected: "[tokens, heads, headDim]")
        }
        try checks.rows(input, name)
        try checks.rows(output, outputName, like: input)
        try checks.writable(output, outputName)
        try checks.distinct(output, outputName, from: input, name)
    }
}

extension RoPEParameters {
    /// Checks the parameters for heads of `headDim` elements.
    ///
    /// - Throws: ``FlashInferError/invalidArgument(_:found:expected:)`` for the first one out of range.
    public func validate(headDim: Int) throws(FlashInferError) {
        guard theta > 0, theta.isFinite else {
            throw .invalidArgument("RoPE theta", found: "\(theta)", expected: "finite and above 0")
        }
        let dim = rotaryDim ?? headDim
        guard dim >= 0, dim <= headDim, dim % 2 == 0 else {
            throw .invalidArgument("rotary dimensions", found: "\(dim)", expected: "even and in 0 ... \(headDim)")
        }
        switch scaling {
        case .none:
            return
        case .linear(let factor):
            try Self.check(factor, "RoPE scaling factor")
        case .llama3(let factor, let low, let high, let originalContext):
            try Self.check(factor, "RoPE scaling factor")
            try Self.check(low, "RoPE low frequency factor")
            guard high > low, high.isFinite else {
                throw .invalidArgument("RoPE high frequency factor", found: "\(high)", expected: "above \(low)")
            }
            guard originalContext > 0 else {
                throw .invalidArgument("RoPE original context", found: "\(originalContext)", expected: "above 0")
            }
        case .perPair(let factors):
            guard factors.count == dim / 2 else {
                throw .lengthMismatch("RoPE factors", found: factors.count, expected: dim / 2)
            }
            for factor in factors { try Self.check(factor, "RoPE factor") }
        }
    }

    private static func check(_ factor: Float, _ name: String) throws(FlashInferError) {
        guard factor > 0, factor.isFinite else {
            throw .invalidArgument(name, found: "\(factor)", expected: "finite and above 0")
        }
    }
}
