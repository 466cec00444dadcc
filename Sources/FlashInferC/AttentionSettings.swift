internal import CFlashInfer
internal import FlashInferCore

/// What an attention computes, from the caller's options: all of a problem but its lengths and tables.
struct AttentionSettings: Sendable {
    /// How the keys of a request may be split; the default size is a multiple of the kernels' granularity.
    enum Split: Sendable {
        case balanced
        case fixed(Int?)
        case none
    }

    /// The largest batch to come.
    struct Bounds: Sendable {
        var requests: Int
        var queries: Int
        var requestQueries: Int?
        var keys: Int
        var pages: Int
        var levels: Int
    }

    let shape: AttentionShape
    let variant: AttentionVariant
    let queryType: DType
    let kvType: DType
    let outputType: DType
    let layout: KVLayout
    let split: Split
    let bounds: Bounds?

    /// Checks the options, and that `device` has kernels for them.
    init(_ pointer: UnsafePointer<fi_attention_options>?, on device: any Device) throws {
        let given = try options(pointer, "options", empty: fi_attention_options())
        shape = try Self.shape(given)
        let queryType = try Self.type(given.q_dtype, "q_dtype", or: nil)
        self.queryType = queryType
        kvType = try Self.type(given.kv_dtype, "kv_dtype", or: queryType)
        outputType = try Self.type(
            given.o_dtype, "o_dtype", or: queryType.isComputeType ? queryType : .bfloat16)
        layout = try KVLayout(given.kv_layout)
        variant = try Self.variant(given)
        split = try Self.split(given)
        bounds = try Self.bounds(given)
        // Whatever no batch could change is found now.
        _ = try device.kernelTraits(
            for: problem(
                shape.isLatent
                    ? .paged(pageIndptr: [0], pageIndices: [], kvLengths: [], pageSize: 64, pageCount: 0)
                    : .contiguous(queryLength: 0, kvLength: 0)))
    }

    private static func shape(_ given: fi_attention_options) throws(FlashInferError) -> AttentionShape {
        let (heads, dim) = (Int(given.num_qo_heads), Int(given.head_dim_vo))
        guard given.latent_rope_dim != 0 else {
            return try AttentionShape(
                queryHeads: heads, kvHeads: Int(given.num_kv_heads), headDimQK: Int(given.head_dim_qk),
                headDimVO: dim == 0 ? nil : dim)
        }
        guard given.num_kv_heads == 1 else {
            throw .invalidArgument("num_kv_heads", found: "\(given.num_kv_heads)", expected: "1 for latent attention")
        }
        let shape = try AttentionShape.latent(queryHeads: heads, latentDim: dim, ropeDim: Int(given.latent_rope_dim))
        guard shape.headDimQK == Int(given.head_dim_qk) else {
            throw .invalidArgument(
                "head_dim_qk", found: "\(given.head_dim_qk)",
                expected: "\(shape.headDimQK): head_dim_vo + latent_rope_dim")
        }
        return shape
    }

    private static func type(_ dtype: fi_data_type, _ name: String, or standard: DType?) throws(FlashInferError)
        -> DType
    {
        if dtype.isEmpty, let standard { return standard }
        if let known = DType(dtype) { return known }
        throw .invalidArgument(
            name, found: dtype.isEmpty ? "not given" : dtype.text,
            expected: "a floating-point type of at most 32 bits, or int8 for a cache")
    }

    private static func variant(_ given: fi_attention_options) throws -> AttentionVariant {
        guard given.window >= 0 else {
            throw FlashInferError.invalidArgument(
                "window", found: "\(given.window)",
                expected: "the keys seen, the query's own included, or 0 for no window")
        }
        if let json = given.variant { return try variant(json: String(cString: json), given) }
        let position: AttentionVariant.PositionEncoding
        switch Int(given.position_encoding) {
        case FI_POSITION_NONE: position = .none
        case FI_POSITION_ALIBI: position = .alibi
        case FI_POSITION_ROPE:
            try RoPEExtras.refuse(given.rope)
            position = .rope(try RoPEParameters(given.rope))
        default:
            throw FlashInferError.invalidArgument(
                "position_encoding", found: "\(given.position_encoding)", expected: "in 0 ... 2")
        }
        return AttentionVariant(
            mask: try choice(
                "mask_mode", given.mask_mode,
                [
                    (FI_MASK_NONE, .none), (FI_MASK_CAUSAL, .causal), (FI_MASK_CUSTOM, .custom),
                    (FI_MASK_CUSTOM_PACKED, .customPacked),
                ]),
            windowLeft: given.window == 0 ? nil : Int(given.window) - 1,
            logitsSoftCap: given.logits_soft_cap == 0 ? nil : given.logits_soft_cap,
            scale: given.sm_scale == 0 ? nil : given.sm_scale, positionEncoding: position,
            hasSinks: try flag("has_sinks", given.has_sinks))
    }

    /// A variant from its JSON form, to which options add the rotation only.
    private static func variant(json: String, _ given: fi_attention_options) throws -> AttentionVariant {
        let others: [(String, Bool)] = [
            ("mask_mode", given.mask_mode != Int32(FI_MASK_NONE)), ("window", given.window != 0),
            ("logits_soft_cap", given.logits_soft_cap != 0), ("sm_scale", given.sm_scale != 0),
            ("has_sinks", given.has_sinks != 0),
            ("position_encoding", Int(given.position_encoding) == FI_POSITION_ALIBI),
        ]
        for (name, isGiven) in others where isGiven {
            throw FlashInferError.invalidArgument(name, found: "given", expected: "0, as the variant says it")
        }
        var variant = try AttentionVariant(json: json)
        if Int(given.position_encoding) == FI_POSITION_ROPE { variant.rope = try RoPEParameters(given.rope) }
        return variant
    }

    private static func split(_ given: fi_attention_options) throws(FlashInferError) -> Split {
        guard given.split_size >= 0 else {
            throw .invalidArgument("split_size", found: "\(given.split_size)", expected: "0 or more")
        }
        let size = given.split_size == 0 ? nil : Int(given.split_size)
        return try choice(
            "split_mode", given.split_mode,
            [(FI_SPLIT_BALANCED, .balanced), (FI_SPLIT_FIXED, .fixed(size)), (FI_SPLIT_NONE, .none)])
    }

    private static func bounds(_ given: fi_attention_options) throws(FlashInferError) -> Bounds? {
        let all = [
            ("max_requests", given.max_requests), ("max_queries", given.max_queries),
            ("max_request_queries", given.max_request_queries), ("max_keys", given.max_keys),
            ("max_pages", given.max_pages), ("max_levels", given.max_levels),
        ]
        if all.allSatisfy({ $0.1 == 0 }) { return nil }
        for (name, value) in all where value < 0 || value > Int64(Int32.max) {
            throw .invalidArgument(name, found: "\(value)", expected: "in 0 ... \(Int32.max)")
        }
        for (name, value) in [all[0], all[1], all[4]] where value == 0 {
            throw .invalidArgument(name, found: "0", expected: "1 or more, as other bounds are given")
        }
        if Int(given.split_mode) == FI_SPLIT_FIXED, given.max_keys == 0 {
            throw .invalidArgument("max_keys", found: "0", expected: "1 or more, as splits have a fixed size")
        }
        return Bounds(
            requests: Int(given.max_requests), queries: Int(given.max_queries),
            requestQueries: given.max_request_queries == 0 ? nil : Int(given.max_request_queries),
            keys: Int(given.max_keys), pages: Int(given.max_pages), levels: max(Int(given.max_levels), 1))
    }

    /// The problem of a batch.
    func problem(_ geometry: BatchGeometry) throws(FlashInferError) -> AttentionProblem {
        try AttentionProblem(
            geometry: geometry, shape: shape, variant: variant, queryType: queryType, kvType: kvType,
            outputType: outputType)
    }

    /// How the planner may cut.
    func mode(_ traits: KernelTraits) -> Planner.Mode {
        switch split {
        case .balanced: .balanced
        case .none: .unsplit
        case .fixed(let size):
            .batchInvariant(
                splitSize: size ?? (2048 + traits.kvGranularity - 1) / traits.kvGranularity * traits.kvGranularity)
        }
    }

    /// Levels that the bounds allow; `nil` without bounds.
    var maximumLevels: Int? { bounds?.levels }

    /// The size that any batch within the bounds fits in.
    func capacity(_ traits: KernelTraits, processors: Int) throws(FlashInferError) -> PlanSize? {
        guard let bounds else { return nil }
        return try Planner.capacity(
            maximumRequests: bounds.requests, maximumQueries: bounds.queries,
            maximumRequestQueries: bounds.requestQueries, maximumKeys: bounds.keys, maximumBlocks: bounds.pages,
            maximumLevels: bounds.levels, shape: shape, traits: traits, processors: processors, mode: mode(traits))
    }

    /// What `q · k` is multiplied by.
    var scale: Float { variant.scale ?? 1 / Float(shape.headDimQK).squareRoot() }
}

extension KVLayout {
    /// The header's number.
    init(_ number: Int32) throws(FlashInferError) {
        self = try choice("kv_layout", number, [(FI_NHD, .nhd), (FI_HND, .hnd)])
    }
}
