/// A batch of attention to be planned: its geometry, heads, variant and types. No tensors: one plan serves every layer.
public struct AttentionProblem: Sendable, Equatable {
    /// The lengths and tables.
    public var geometry: BatchGeometry

    /// The heads.
    public var shape: AttentionShape

    /// Mask, logits, weights, rotation.
    public var variant: AttentionVariant

    /// The variant's parameters whose elements are known now, by name: what they hide is not computed.
    public var parameters: [String: ParameterValue]

    /// The type of the queries.
    public var queryType: DType

    /// The type of the cache.
    public var kvType: DType

    /// The type of the output; the queries' where not given, and bfloat16 where those are float8.
    public var outputType: DType

    /// A problem.
    ///
    /// - Throws: ``FlashInferError`` for types that cannot be queries, caches or outputs, and for a variant's impossible values.
    public init(
        geometry: BatchGeometry, shape: AttentionShape, variant: AttentionVariant, queryType: DType, kvType: DType,
        outputType: DType? = nil, parameters: [String: ParameterValue] = [:]
    ) throws(FlashInferError) {
        self.geometry = geometry
        self.shape = shape
        self.variant = variant
        self.parameters = parameters
        self.queryType = queryType
        self.kvType = kvType
        self.outputType = outputType ?? (queryType.isComputeType ? queryType : .bfloat16)
        try validate()
    }

    /// The same attention without the blocks of a block-sparse matrix that no row of theirs sees. The plan's problem, where a mask's own
    /// elements do not count the blocks.
    var withoutHiddenBlocks: AttentionProblem {
        let form = variant.form
        guard geometry.blocks.keyPositions == .columns, form.isFused, form.maskTensor == nil,
            form.mask == .causal || form.windowLeft != nil
        else { return self }
        var problem = self
        problem.geometry = geometry.withoutHiddenBlocks(isCausal: form.mask == .causal, windowLeft: form.windowLeft)
        return problem
    }

    private func validate() throws(FlashInferError) {
        let compute = "float32, float16 or bfloat16"
        guard queryType.isQueryType else {
            throw .invalidArgument(
                "query type", found: "\(queryType)", expected: "float32, float16, bfloat16 or float8-e4m3")
        }
        guard outputType.isComputeType else {
            throw .invalidArgument("output type", found: "\(outputType)", expected: compute)
        }
        guard kvType.isCacheType else {
            throw .invalidArgument("cache type", found: "\(kvType)", expected: "a floating-point type or int8")
        }
        if let cap = variant.logitsSoftCap, !(cap > 0 && cap.isFinite) {
            throw .invalidArgument("logitsSoftCap", found: "\(cap)", expected: "positive and finite, or nil for no cap")
        }
        if let scale = variant.scale, !scale.isFinite {
            throw .invalidArgument("scale", found: "\(scale)", expected: "finite")
        }
        if shape.isLatent, variant.scale == nil {
            throw .invalidArgument(
                "scale", found: "nil",
                expected: "given for latent heads: 1/√ of a head's elements before absorption, 128 + 64 for DeepSeek")
        }
        if variant.form.isALiBi, variant.logitsSoftCap != nil {
            throw .invalidArgument("variant", found: "ALiBi with a soft cap", expected: "one or the other")
        }
        if let rope = variant.rope { try rope.validate(headDim: shape.headDimQK) }
        try variant.validate()
        try validateParameters()
        if geometry.levelCount > 1 { try validateLevels() }
        try validateTables()
    }

    /// Checks what selected pages ask of the rest.
    private func validateTables() throws(FlashInferError) {
        let blocks = geometry.blocks
        if blocks.keyPositions == .places, variant.form.maskTensor != nil {
            throw .invalidArgument(
                "variant", found: "a mask tensor over selected pages with their places",
                expected: "a mask by positions, as a tensor's elements are of planned keys")
        }
        guard blocks.headStride > 0 else { return }
        guard !shape.isLatent else {
            throw .invalidArgument("heads with tables", found: "latent attention", expected: "keys of several heads")
        }
        guard let first = blocks.indptr.dropFirst().first else { return }
        let heads = Int(first - blocks.indptr[0]) / blocks.headStride
        guard heads == shape.kvHeads else {
            throw .invalidArgument(
                "heads with tables", found: "\(heads)", expected: "\(shape.kvHeads), the problem's kv heads, or nil")
        }
    }

    private func validateLevels() throws(FlashInferError) {
        if let reason = reasonAgainstLevels {
            throw .invalidArgument(
                "variant", found: "\(reason) over \(geometry.levelCount) levels of keys",
                expected: "full or causal attention, soft caps and sinks; plan anything else over the uncomposed batch")
        }
    }

    /// What of the variant asks for positions; `nil` for nothing. Keys of shared levels have no one position: rows of sequences of
    /// different lengths see them.
    package var reasonAgainstLevels: String? {
        let form = variant.form
        if form.windowLeft != nil { return "a window" }
        if form.isALiBi { return "ALiBi" }
        if variant.rope != nil { return "RoPE" }
        if form.mask != .none && form.mask != .causal { return "a mask tensor" }
        return form.isFused ? nil : "hooks of variant '\(variant.name)'"
    }
}
