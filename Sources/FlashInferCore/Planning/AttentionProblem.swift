/// A batch of attention to be planned: its geometry, heads, variant and types. No tensors: one plan serves every layer.
public struct AttentionProblem: Sendable, Equatable {
    /// The lengths and tables.
    public var geometry: BatchGeometry

    /// The heads.
    public var shape: AttentionShape

    /// Mask, window, caps, position encoding.
    public var variant: AttentionVariant

    /// The type of the queries.
    public var queryType: DType

    /// The type of the cache.
    public var kvType: DType

    /// The type of the output; the queries' where not given.
    public var outputType: DType

    /// A problem.
    ///
    /// - Throws: ``FlashInferError`` for types that cannot be queries, caches or outputs, and for a variant's impossible values.
    public init(
        geometry: BatchGeometry, shape: AttentionShape, variant: AttentionVariant, queryType: DType, kvType: DType,
        outputType: DType? = nil
    ) throws(FlashInferError) {
        self.geometry = geometry
        self.shape = shape
        self.variant = variant
        self.queryType = queryType
        self.kvType = kvType
        self.outputType = outputType ?? queryType
        try validate()
    }

    private func validate() throws(FlashInferError) {
        let compute = "float32, float16 or bfloat16"
        guard queryType.isComputeType else {
            throw .invalidArgument("query type", found: "\(queryType)", expected: compute)
        }
        guard outputType.isComputeType else {
            throw .invalidArgument("output type", found: "\(outputType)", expected: compute)
        }
        guard kvType.isCacheType else {
            throw .invalidArgument("cache type", found: "\(kvType)", expected: "a floating-point type or int8")
        }
        if let window = variant.windowLeft, window < 0 {
            throw .invalidArgument("windowLeft", found: "\(window)", expected: "0 or more, or nil for no window")
        }
        if let cap = variant.logitsSoftCap, !(cap > 0 && cap.isFinite) {
            throw .invalidArgument("logitsSoftCap", found: "\(cap)", expected: "positive and finite, or nil for no cap")
        }
        if let scale = variant.scale, !scale.isFinite {
            throw .invalidArgument("scale", found: "\(scale)", expected: "finite")
        }
        if variant.positionEncoding == .alibi, variant.logitsSoftCap != nil {
            throw .invalidArgument("variant", found: "ALiBi with a soft cap", expected: "one or the other")
        }
        if case .rope(let rope) = variant.positionEncoding { try rope.validate(headDim: shape.headDimQK) }
    }
}
