/// A planned batch of attention on tensors.
///
/// ```
/// output[i, h] = Σ_j softmax_j(score(i, h, j)) · value[j, h / group]
/// lse[i, h]    = log2 Σ_j 2^(log2(e) · score(i, h, j))
/// ```
/// A row that sees no key has output 0 and LSE −∞.
public struct AttentionOperation: Sendable {
    /// `[queries, queryHeads, headDimQK]`, float32, float16, bfloat16 or float8 e4m3; stride 1 within a head.
    public var queries: TensorView

    /// Multiplies every query: what quantised queries stand for.
    public var queryScale: Float

    /// `[queryHeads]`, float32: multiplies the queries of each head, on top of `queryScale`.
    public var queryScalePerHead: TensorView?

    /// The keys and values.
    public var cache: KVCacheView

    /// `[queries, queryHeads, headDimVO]`, the problem's output type; stride 1 within a head.
    public var output: TensorView

    /// `[queries, queryHeads]`, float32: base-2 log-sum-exp of each row's scores. `nil` where not wanted.
    public var logSumExp: TensorView?

    /// `[Σ queryLength · kvLength]` bytes, or packed bits as ``Mask/customPacked`` says: nonzero = seen.
    public var mask: TensorView?

    /// `[queryHeads]`, float32: the slopes of ``Logits/alibi``; `nil` for ALiBi's own.
    public var alibiSlopes: TensorView?

    /// `[queryHeads]`, float32: the sinks' logits, natural scale.
    public var sinks: TensorView?

    /// The variant's other parameters, by name: contiguous, of the shape that ``ParameterExtent`` says.
    public var parameters: [String: TensorView]

    /// `[plan's block ids, or more]`, int32, contiguous: the blocks that requests' keys lie in, in place of those that were planned: what
    /// ``SelectPagesOperation`` has chosen. `nil` for those. They are read when this runs, and each time that a graph of it is replayed.
    ///
    /// Lengths are planned as if these were the request's only pages, so variants must not ask where keys stand, unless runs say it
    /// (`pagePositions`); in a block-sparse matrix, whose keys have the positions of their columns, they may, but hide nothing by them. On
    /// a GPU an id that is read must be one of the cache; elsewhere that is checked.
    public var pageIndices: TensorView?

    /// `[plan's block ids, or more]`, int32, contiguous: the place in its sequence of each of `pageIndices`, which are in the order of their
    /// places (``SelectPagesOperation/positions``). Exactly where the plan's keys have the positions of places; read as those are. Each
    /// request's last page must be its sequence's last. On a GPU places are not checked.
    public var pagePositions: TensorView?

    /// The plan.
    public var plan: Plan

    /// The device's `workspaceByteCount(for:)` bytes for `capacity`, on the same device.
    public var workspace: MemoryRegion

    /// The size that the workspace was allocated for; it decides where in the workspace things lie.
    public var capacity: PlanSize

    /// What latent attention adds, made by ``MLAOperation``; `nil` for keys and values of their own.
    package var latent: LatentPart?

    /// An operation; call ``validate()`` before it is executed.
    public init(
        queries: TensorView, queryScale: Float = 1, queryScalePerHead: TensorView? = nil, cache: KVCacheView,
        output: TensorView, logSumExp: TensorView? = nil, mask: TensorView? = nil,
        alibiSlopes: TensorView? = nil, sinks: TensorView? = nil, parameters: [String: TensorView] = [:],
        pageIndices: TensorView? = nil, pagePositions: TensorView? = nil, plan: Plan, workspace: MemoryRegion,
        capacity: PlanSize? = nil
    ) {
        self.queries = queries
        self.queryScale = queryScale
        self.queryScalePerHead = queryScalePerHead
        self.cache = cache
        self.output = output
        self.logSumExp = logSumExp
        self.mask = mask
        self.alibiSlopes = alibiSlopes
        self.sinks = sinks
        self.parameters = parameters
        self.pageIndices = pageIndices
        self.pagePositions = pagePositions
        self.plan = plan
        self.workspace = workspace
        self.capacity = capacity ?? plan.size
    }
}

extension AttentionOperation {
    /// Where each request's mask starts: in bytes of `mask`, `[requests + 1]`.
    public static func maskIndptr(_ geometry: BatchGeometry, packed: Bool) throws(FlashInferError) -> [Int] {
        var indptr = [0]
        indptr.reserveCapacity(geometry.requestCount + 1)
        var sum = 0
        for request in 0..<geometry.requestCount {
            // Each factor has 31 bits, so their product has 62.
            let elements = geometry.queryLength(request) * geometry.kvLength(request)
            let (next, overflow) = sum.addingReportingOverflow(packed ? (elements + 7) / 8 : elements)
            guard !overflow else { throw .overflow("mask of request \(request)") }
            sum = next
            indptr.append(sum)
        }
        return indptr
    }

    /// Checks every tensor against the plan.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor, what it is, and what it must be.
    /// - Complexity: O(1), but O(requests) with a custom mask.
    public func validate() throws(FlashInferError) {
        let form = plan.runForm
        guard !form.heads.isLatent else {
            throw .planMismatch("latent attention's heads", planned: "MLA", found: "keys and values of their own")
        }
        try expect(queries, "queries", form.queryType, form.queries)
        try expect(output, "output", form.outputType, form.output)
        let checks = TensorChecks(device: queries.device)
        try checks.writable(output, "output")
        try checks.distinct(output, "output", from: queries, "queries")
        try expectFinite(queryScale, "queryScale")
        if let queryScalePerHead {
            try expect(queryScalePerHead, "queryScalePerHead", .float32, [form.heads.queryHeads])
        }
        try validateCache(form)
        if let logSumExp {
            try expect(logSumExp, "logSumExp", .float32, form.logSumExp)
            try checks.writable(logSumExp, "logSumExp")
        }
        try validateVariantTensors(form)
        try validatePageIndices()
        try validateWorkspace()
    }

    /// Checks that the plan fits its capacity and workspace.
    func validateWorkspace() throws(FlashInferError) {
        let size = plan.size
        try capacity.requireRoom(for: size)
        guard workspace.byteCount >= size.workspaceByteCount else {
            throw .lengthMismatch("workspace", found: workspace.byteCount, expected: size.workspaceByteCount)
        }
        guard workspace.device == queries.device || size.workspaceByteCount == 0 else {
            throw .invalidArgument("workspace", found: "on \(workspace.device)", expected: "on \(queries.device)")
        }
    }

    private func validateCache(_ form: RunForm) throws(FlashInferError) {
        let shape = form.heads
        // The caller may have multiplied several finite scales into one that is not.
        try expectFinite(cache.scales.key, "scale of the keys")
        try expectFinite(cache.scales.value, "scale of the values")
        guard cache.keys.dtype == form.kvType else {
            throw .planMismatch("cache type", planned: "\(form.kvType)", found: "\(cache.keys.dtype)")
        }
        guard cache.keys.headCount == shape.kvHeads else {
            throw .planMismatch("kv heads", planned: "\(shape.kvHeads)", found: "\(cache.keys.headCount)")
        }
        guard cache.keys.headDim == shape.headDimQK, cache.values.headDim == shape.headDimVO else {
            throw .planMismatch(
                "head dims", planned: "\(shape.headDimQK) and \(shape.headDimVO)",
                found: "\(cache.keys.headDim) and \(cache.values.headDim)")
        }
        // Pages read as rows, or rows as pages, would reach past the tensor.
        guard (cache.keys.blockSize == nil) == form.blocksAreRows else {
            throw .planMismatch(
                "keys and values", planned: form.blocksAreRows ? "in a ragged tensor" : "in pages",
                found: cache.keys.blockSize == nil ? "a ragged tensor" : "pages")
        }
        if let blockSize = cache.keys.blockSize, blockSize != form.blockSize {
            throw .planMismatch("page size", planned: "\(form.blockSize)", found: "\(blockSize)")
        }
        guard cache.keys.blockCount >= form.blockLimit else {
            throw .planMismatch(
                "a cache of at least this many pages or tokens", planned: "\(form.blockLimit)",
                found: "\(cache.keys.blockCount)")
        }
        try expectDevice(cache.keys.view, "keys")
    }

    private func validateVariantTensors(_ form: RunForm) throws(FlashInferError) {
        let heads = form.heads.queryHeads
        if let alibiSlopes { try expect(alibiSlopes, "alibiSlopes", .float32, [heads]) }
        if form.hasSinks {
            guard let sinks else {
                throw .invalidArgument(
                    "sinks", found: "nil", expected: "float32 [\(heads)], as the plan's variant has sinks")
            }
            try expect(sinks, "sinks", .float32, [heads])
        } else if sinks != nil {
            throw .planMismatch("sinks", planned: "none", found: "some")
        }
        if form.hasMask || mask != nil { try validateMask() }
        if !form.hasLogSumExp, logSumExp != nil {
            throw .invalidArgument(
                "logSumExp", found: "given",
                expected: "nil, as the weights of variant '\(plan.problem.variant.name)' have no sum")
        }
        if !parameters.isEmpty || form.hasParameters { try validateParameters() }
    }

    private func validateMask() throws(FlashInferError) {
        let variant = plan.problem.variant
        if let declaration = variant.form.maskTensor {
            let indptr = try Self.maskIndptr(
                plan.problem.geometry, packed: declaration.extent == .maskBits)
            let bytes = indptr[indptr.count - 1]
            guard let mask else {
                throw .invalidArgument(
                    "mask", found: "nil", expected: "uint8 [\(bytes)], as the plan's variant has a mask")
            }
            try expect(mask, "mask", .uint8, [bytes])
            guard mask.isContiguous else {
                throw .invalidArgument("mask strides", found: "\(mask.strides)", expected: "contiguous")
            }
        } else if mask != nil {
            throw .planMismatch("mask", planned: "\(variant.form.mask)", found: "a custom mask")
        }
    }

    private func validateParameters() throws(FlashInferError) {
        let (variant, geometry) = (plan.problem.variant, plan.problem.geometry)
        let declared = variant.form.parameters
        for parameter in declared {
            let title = "variant '\(variant.name)': parameter '\(parameter.name)'"
            guard let view = parameters[parameter.name] else {
                throw .invalidArgument(
                    title, found: "not given", expected: "\(parameter.dtype), \(parameter.extent)")
            }
            var positions = 1
            if parameter.extent == .perPosition {
                let longest = (0..<geometry.requestCount).reduce(1) { max($0, geometry.sequenceLength($1)) }
                positions = view.rank == 2 ? view.shape[1] : 0
                guard positions >= longest else {
                    throw .invalidArgument(
                        title, found: "of shape \(view.shape)",
                        expected: "[\(geometry.requestCount), \(longest)], requests and positions, or longer rows")
                }
            }
            if let shape = parameter.extent.shape(geometry, plan.problem.shape, positions: positions) {
                try expect(view, title, parameter.dtype, shape)
            }
            guard view.isContiguous else {
                throw .invalidArgument("\(title) strides", found: "\(view.strides)", expected: "contiguous")
            }
        }
        for name in parameters.keys where !declared.contains(where: { $0.name == name }) {
            throw .unknownParameter(name, of: variant)
        }
    }

    private func expectFinite(_ scale: Float, _ name: String) throws(FlashInferError) {
        guard scale.isFinite else { throw .invalidArgument(name, found: "\(scale)", expected: "finite") }
    }

    func expect(
        _ view: TensorView, _ name: String, _ dtype: DType, _ shape: Shape
    ) throws(FlashInferError) {
        guard view.dtype == dtype else {
            throw .invalidArgument(name, found: "\(view.dtype)", expected: "\(dtype)")
        }
        guard view.shape == shape else {
            throw .invalidArgument(name, found: "of shape \(view.shape)", expected: "\(shape)")
        }
        guard view.strides[-1] == 1 || shape[-1] <= 1 else {
            throw .invalidArgument("\(name) strides", found: "\(view.strides)", expected: "1 in the last dimension")
        }
        try expectDevice(view, name)
    }

    func expectDevice(_ view: TensorView, _ name: String) throws(FlashInferError) {
        guard view.device == queries.device else {
            throw .invalidArgument(name, found: "on \(view.device)", expected: "on \(queries.device), as the queries")
        }
    }
}
