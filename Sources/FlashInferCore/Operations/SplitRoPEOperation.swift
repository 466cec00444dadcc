/// Rotary position embedding of heads whose turning and other elements are tensors of their own, all outputs converted to another
/// type, and keys and values stored in a cache or as tensors: one pass (multi-head latent attention, and float8 attention).
///
/// ```
/// queryOutput = (round(rotate(queries.turning) · queryFactor), round(queries.rest · queryFactor))
/// keys, values likewise by keyFactor, to where `keyOutput` says
/// ```
/// Numbers stay in float32 from the turn to the store and are rounded once; float8 and int8 saturate.
public struct SplitRoPEOperation: Sendable, Equatable {
    /// Heads in two parts.
    public struct Heads: Sendable, Equatable {
        /// `[tokens, heads, rotaryDim]`: all elements turn.
        public var turning: TensorView

        /// `[tokens, heads, restDim]`: stay as they are; `nil` for none.
        public var rest: TensorView?

        /// Heads of these parts.
        public init(turning: TensorView, rest: TensorView? = nil) {
            self.turning = turning
            self.rest = rest
        }
    }

    /// Where keys go.
    public enum KeyOutput: Sendable, Equatable {
        /// Tensors of the keys' shapes; the values, if any, are not stored.
        case tensors(Heads)

        /// A cache with heads of `rotaryDim + restDim` elements, those that turn first, and of the values.
        case cache(KVCacheView, KVSlots)

        /// A cache of latent attention: its "keys" the rest (compressed keys and values), its "values" what turns, one head each.
        case latentCache(KVCacheView, KVSlots)
    }

    /// `[tokens, queryHeads, …]`, float32, float16 or bfloat16.
    public var queries: Heads

    /// `[tokens, kvHeads, …]`, the type of the queries.
    public var keys: Heads

    /// `[tokens, kvHeads, valueDim]`, the type of the queries: for ``KeyOutput/cache(_:_:)``, and `nil` for the others.
    public var values: TensorView?

    /// The shapes of `queries`, both of one cache type.
    public var queryOutput: Heads

    /// Where keys and values go.
    public var keyOutput: KeyOutput

    /// Multiplies a query before it is rounded: one over what a stored number stands for.
    public var queryFactor: Float

    /// Multiplies a key or value before it is rounded. The scales of the cache are not looked at.
    public var keyFactor: Float

    /// `[tokens]`, int32, contiguous: 0 or more.
    public var positions: TensorView

    /// Which pairs turn, and how fast. `rotaryDim` is `nil`, or that of the turning parts.
    public var parameters: RoPEParameters

    /// `[positions, rotaryDim]`, float32: of each position the cosines, then the sines; read instead of computing them. On a GPU a
    /// position outside of it gives NaN.
    public var table: TensorView?

    /// An operation; call ``validate()`` before it is executed.
    public init(
        queries: Heads, keys: Heads, values: TensorView? = nil, queryOutput: Heads, keyOutput: KeyOutput,
        queryFactor: Float = 1, keyFactor: Float = 1, positions: TensorView,
        parameters: RoPEParameters = RoPEParameters(),
        table: TensorView? = nil
    ) {
        self.queries = queries
        self.keys = keys
        self.values = values
        self.queryOutput = queryOutput
        self.keyOutput = keyOutput
        self.queryFactor = queryFactor
        self.keyFactor = keyFactor
        self.positions = positions
        self.parameters = parameters
        self.table = table
    }

    /// The elements of a head that turn.
    package var rotaryDim: Int { queries.turning.shape[-1] }
}

extension SplitRoPEOperation {
    /// Checks every tensor, factor, slot and (where the host can read them) position.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor or the token, what it is, and what it must be.
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: queries.turning.device)
        guard queries.turning.rank == 3, keys.turning.rank == 3 else {
            throw .invalidArgument(
                "queries and keys", found: "of shapes \(queries.turning.shape) and \(keys.turning.shape)",
                expected: "[tokens, heads, rotaryDim]")
        }
        let (tokens, heads) = (queries.turning.shape[0], keys.turning.shape[1])
        try validate(queries, "queries", tokens, queries.turning.shape[1], checks)
        try validate(keys, "keys", tokens, heads, checks)
        try parameters.validate(headDim: rotaryDim)
        guard parameters.rotaryDim ?? rotaryDim == rotaryDim else {
            throw .lengthMismatch("rotary dimensions", found: parameters.rotaryDim ?? 0, expected: rotaryDim)
        }
        try checks.angles(positions, tokens, table, rotaryDim: rotaryDim)
        for (factor, name) in [(queryFactor, "query factor"), (keyFactor, "key factor")] {
            guard factor > 0, factor.isFinite else {
                throw .invalidArgument(name, found: "\(factor)", expected: "finite and above 0")
            }
        }
        try validate(queryOutput, "query output", of: queries, checks)
        switch keyOutput {
        case .tensors(let output):
            try validate(output, "key output", of: keys, checks)
            try noValues("as keys go to tensors")
        case .cache(let cache, let slots):
            guard let values else {
                throw .invalidArgument("values", found: "nil", expected: "[tokens, kvHeads, valueDim], for the cache")
            }
            let dim = rotaryDim + (keys.rest?.shape[2] ?? 0)
            guard cache.keys.headDim == dim else {
                throw .lengthMismatch("head dimension of the cache's keys", found: cache.keys.headDim, expected: dim)
            }
            try rows(values, "values", [tokens, heads, cache.values.headDim], checks)
            try validate(cache, slots, tokens, heads, checks)
        case .latentCache(let cache, let slots):
            try noValues("as the cache is of latent attention")
            guard let rest = keys.rest, cache.keys.headDim == rest.shape[2], cache.values.headDim == rotaryDim else {
                throw .invalidArgument(
                    "cache", found: "of \(cache.keys.headDim) and \(cache.values.headDim) elements",
                    expected: "of \(keys.rest?.shape[2] ?? 0) (the keys' rest) and \(rotaryDim) (what turns)")
            }
            try validate(cache, slots, tokens, heads, checks)
        }
        try validateApart(checks)
    }

    private func noValues(_ reason: String) throws(FlashInferError) {
        guard values == nil else { throw .invalidArgument("values", found: "a tensor", expected: "nil, \(reason)") }
    }

    private func rows(
        _ view: TensorView, _ name: String, _ shape: Shape, _ checks: TensorChecks
    ) throws(FlashInferError) {
        try checks.rows(view, name)
        try checks.shape(view, name, shape)
        guard view.dtype == queries.turning.dtype else {
            throw .invalidArgument(name, found: "\(view.dtype)", expected: "\(queries.turning.dtype), as the queries")
        }
    }

    private func validate(
        _ part: Heads, _ name: String, _ tokens: Int, _ heads: Int, _ checks: TensorChecks
    ) throws(FlashInferError) {
        try rows(part.turning, name, [tokens, heads, rotaryDim], checks)
        guard let rest = part.rest else { return }
        guard rest.rank == 3 else {
            throw .invalidArgument(
                "rest of \(name)", found: "of shape \(rest.shape)", expected: "[tokens, heads, restDim]")
        }
        try rows(rest, "rest of \(name)", [tokens, heads, rest.shape[2]], checks)
    }

    private func validate(
        _ output: Heads, _ name: String, of input: Heads, _ checks: TensorChecks
    ) throws(FlashInferError) {
        guard (output.rest == nil) == (input.rest == nil) else {
            throw .invalidArgument(
                "rest of \(name)", found: output.rest == nil ? "nil" : "a tensor",
                expected: input.rest == nil ? "nil, as there is no rest" : "a tensor of the rest's shape")
        }
        for (view, model, name) in [
            (output.turning, input.turning, name),
            (output.rest ?? output.turning, input.rest ?? input.turning, "rest of \(name)"),
        ] {
            try checks.shape(view, name, model.shape)
            guard view.dtype.isCacheType, view.dtype == output.turning.dtype else {
                throw .invalidArgument(
                    name, found: "\(view.dtype)", expected: "a floating type or int8, one for both parts")
            }
            try checks.anyRows(view, name)
            try checks.writable(view, name)
        }
    }

    private func validate(
        _ cache: KVCacheView, _ slots: KVSlots, _ tokens: Int, _ heads: Int, _ checks: TensorChecks
    ) throws(FlashInferError) {
        guard slots.count == tokens else { throw .lengthMismatch("slots", found: slots.count, expected: tokens) }
        guard cache.keys.headCount == heads else {
            throw .lengthMismatch("heads of the cache", found: cache.keys.headCount, expected: heads)
        }
        for (tensor, name) in [(cache.keys, "keys of the cache"), (cache.values, "values of the cache")] {
            try checks.here(tensor.view, name)
            try checks.writable(tensor.view, name)
        }
        try AppendKVOperation.validate(slots, in: cache, checks)
    }

    /// All is read and written at once, so nothing that is written may lie over anything else.
    private func validateApart(_ checks: TensorChecks) throws(FlashInferError) {
        var inputs = [(queries.turning, "queries"), (keys.turning, "keys")]
        if let rest = queries.rest { inputs.append((rest, "rest of queries")) }
        if let rest = keys.rest { inputs.append((rest, "rest of keys")) }
        if let values { inputs.append((values, "values")) }
        if let table { inputs.append((table, "table of cosines and sines")) }
        var outputs = [(queryOutput.turning, "query output")]
        if let rest = queryOutput.rest { outputs.append((rest, "rest of query output")) }
        switch keyOutput {
        case .tensors(let output):
            outputs.append((output.turning, "key output"))
            if let rest = output.rest { outputs.append((rest, "rest of key output")) }
        case .cache(let cache, _), .latentCache(let cache, _):
            outputs.append((cache.keys.view, "keys of the cache"))
            outputs.append((cache.values.view, "values of the cache"))
        }
        for (place, (output, name)) in outputs.enumerated() {
            for (input, other) in inputs { try checks.apart(output, name, from: input, other) }
            for (second, other) in outputs[(place + 1)...] { try checks.apart(output, name, from: second, other) }
        }
    }
}
