/// Rotary position embedding of queries and keys (Su et al., arXiv 2104.09864), with the keys and values stored in a cache: a
/// ``RoPEOperation`` and an ``AppendKVOperation`` in one pass.
///
/// ```
/// queryOutput[t] = round(rotate(queries[t], positions[t]) / queryScale)
/// cache.keys[slot(t)] = round(rotate(keys[t], positions[t]) / key scale)
/// cache.values[slot(t)] = round(values[t] / value scale)
/// ```
/// Rotated numbers stay in float32 until they are stored, and are rounded once, whatever the cache's type: the results are bit for
/// bit those of a `RoPEOperation` with float32 outputs followed by an `AppendKVOperation` and, for quantised queries, a
/// ``ConvertOperation``. Division is a product with the float32 reciprocal; float8 and int8 saturate.
///
/// The keys themselves are not changed. Tokens without a slot are rotated like the others, and not stored.
public struct RoPEAppendKVOperation: Sendable, Equatable {
    /// `[tokens, queryHeads, headDim]`, float32, float16 or bfloat16; stride 1 within a head.
    public var queries: TensorView

    /// `[tokens, kvHeads, headDim]`, the queries' type.
    public var keys: TensorView

    /// `[tokens, kvHeads, valueDim]`, the queries' type; `valueDim` is the cache's, and may differ from `headDim`.
    public var values: TensorView

    /// The shape of `queries`, any cache type; may be `queries`.
    public var queryOutput: TensorView

    /// What a number of a float8 or int8 `queryOutput` is multiplied by to give the query; 1 for other types.
    public var queryScale: Float

    /// `[tokens]`, int32, contiguous: 0 or more.
    public var positions: TensorView

    /// Which pairs turn, and how fast.
    public var parameters: RoPEParameters

    /// `[positions, rotaryDim]`, float32, as ``RoPEOperation/table``; `nil`: computed.
    public var table: TensorView?

    /// How heads are normalised before they turn; `nil`: not at all.
    public var normalization: HeadNormalization?

    /// Paged or ragged keys and values of any cache type, with the scales of a quantised one.
    public var cache: KVCacheView

    /// Where each token goes; tokens without a slot are not stored.
    public var slots: KVSlots

    /// An operation; call ``validate()`` before it is executed. The queries turn in place where no output is given.
    public init(
        queries: TensorView, keys: TensorView, values: TensorView, queryOutput: TensorView? = nil,
        queryScale: Float = 1, positions: TensorView, parameters: RoPEParameters, table: TensorView? = nil,
        normalization: HeadNormalization? = nil, cache: KVCacheView, slots: KVSlots
    ) {
        self.queries = queries
        self.keys = keys
        self.values = values
        self.queryOutput = queryOutput ?? queries
        self.queryScale = queryScale
        self.positions = positions
        self.parameters = parameters
        self.table = table
        self.normalization = normalization
        self.cache = cache
        self.slots = slots
    }

    /// Checks every tensor, scale, slot and (where the host can read them) position.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor or the token, what it is, and what it must be.
    /// - Complexity: O(tokens).
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: queries.device)
        guard queries.rank == 3 else {
            throw .invalidArgument("queries", found: "of shape \(queries.shape)", expected: "[tokens, heads, headDim]")
        }
        try checks.rows(queries, "queries")
        try parameters.validate(headDim: queries.shape[2])
        try validateQueryOutput(checks)
        let tokens = queries.shape[0]
        try checks.angles(positions, tokens, table, rotaryDim: parameters.rotaryDim ?? queries.shape[2])
        try normalization?.validate(headDim: queries.shape[2], hasKeys: true, checks)
        guard slots.count == tokens else {
            throw .lengthMismatch("slots", found: slots.count, expected: tokens)
        }
        guard cache.keys.headDim == queries.shape[2] else {
            throw .lengthMismatch(
                "head dimension of the cache's keys", found: cache.keys.headDim, expected: queries.shape[2])
        }
        for (view, name) in [(keys, "keys"), (values, "values")] {
            guard view.dtype == queries.dtype else {
                throw .invalidArgument(name, found: "\(view.dtype)", expected: "\(queries.dtype), as the queries")
            }
            try checks.here(view, name)
        }
        // Shapes, strides, scales, slots, and the cache's memory against keys and values.
        try AppendKVOperation(keys: keys, values: values, cache: cache, slots: slots).validate()
        // All is read and written at once, so nothing that is written may lie over anything else.
        for (view, name) in [(cache.keys.view, "keys of the cache"), (cache.values.view, "values of the cache")] {
            try checks.apart(view, name, from: queries, "queries")
            try checks.apart(view, name, from: queryOutput, "query output")
            try checks.apart(view, name, from: keys, "keys")
            try checks.apart(view, name, from: values, "values")
        }
        try checks.apart(queryOutput, "query output", from: keys, "keys")
        try checks.apart(queryOutput, "query output", from: values, "values")
    }

    private func validateQueryOutput(_ checks: TensorChecks) throws(FlashInferError) {
        try checks.shape(queryOutput, "query output", queries.shape)
        guard queryOutput.dtype.isCacheType else {
            throw .invalidArgument("query output", found: "\(queryOutput.dtype)", expected: "a floating type or int8")
        }
        try checks.anyRows(queryOutput, "query output")
        try checks.writable(queryOutput, "query output")
        try checks.distinct(queryOutput, "query output", from: queries, "queries")
        guard queryOutput.dtype.quantizedMagnitude != nil || queryScale == 1 else {
            throw .invalidArgument(
                "query scale", found: "\(queryScale)", expected: "1, as the query output is \(queryOutput.dtype)")
        }
        try checks.scale(queryScale, "query scale")
    }
}
