/// Planned multi-head latent attention over a paged latent cache, the projections absorbed (DeepSeek-V2, arXiv 2405.04434).
///
/// ```
/// score(i, h, j) = scale · (nopeQueries[i, h] · ckv[j] + ropeQueries[i, h] · kpe[j])
/// output[i, h]   = Σ_j softmax_j(score(i, h, j)) · ckv[j]
/// lse[i, h]      = log2 Σ_j 2^(log2(e) · score(i, h, j))
/// ```
/// It is attention whose ``AttentionShape`` is made by ``AttentionShape/latent(queryHeads:latentDim:ropeDim:)``, and is planned as that.
/// The variant must name its scale: the one that the heads had before absorption, 1/√(128 + 64) for DeepSeek. Reads each key once.
public struct MLAOperation: Sendable {
    /// `[queries, queryHeads, latentDim]`, the plan's query type; stride 1 within a head.
    public var nopeQueries: TensorView

    /// `[queries, queryHeads, ropeDim]`, the same type; stride 1 within a head.
    public var ropeQueries: TensorView

    /// The latent cache.
    public var cache: LatentCacheView

    /// `[queries, queryHeads, latentDim]`; stride 1 within a head.
    public var output: TensorView

    /// `[queries, queryHeads]`, float32, base 2; `nil` where not wanted.
    public var logSumExp: TensorView?

    /// The plan, of a problem with latent heads.
    public var plan: Plan

    /// The device's `workspaceByteCount(for:)` bytes for `capacity`.
    public var workspace: MemoryRegion

    /// The size that the workspace was allocated for.
    public var capacity: PlanSize

    /// An operation; call ``validate()`` before it is executed.
    public init(
        nopeQueries: TensorView, ropeQueries: TensorView, cache: LatentCacheView, output: TensorView,
        logSumExp: TensorView? = nil, plan: Plan, workspace: MemoryRegion, capacity: PlanSize? = nil
    ) {
        self.nopeQueries = nopeQueries
        self.ropeQueries = ropeQueries
        self.cache = cache
        self.output = output
        self.logSumExp = logSumExp
        self.plan = plan
        self.workspace = workspace
        self.capacity = capacity ?? plan.size
    }

    /// Checks every tensor against the plan.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor, what it is, and what it must be.
    /// - Complexity: O(1).
    public func validate() throws(FlashInferError) {
        let problem = plan.problem
        let (shape, tokens) = (problem.shape, problem.geometry.queryCount)
        guard shape.isLatent else {
            throw .planMismatch("heads with keys and values of their own", planned: "\(shape)", found: "MLA")
        }
        let attention = attention
        try attention.expect(
            nopeQueries, "nope queries", problem.queryType, [tokens, shape.queryHeads, shape.headDimVO])
        try attention.expect(
            ropeQueries, "rope queries", problem.queryType, [tokens, shape.queryHeads, shape.latentRopeDim])
        try attention.expect(output, "output", problem.outputType, [tokens, shape.queryHeads, shape.headDimVO])
        let checks = TensorChecks(device: nopeQueries.device)
        try checks.writable(output, "output")
        try checks.distinct(output, "output", from: nopeQueries, "nope queries")
        try checks.apart(output, "output", from: ropeQueries, "rope queries")
        if let logSumExp {
            try attention.expect(logSumExp, "logSumExp", .float32, [tokens, shape.queryHeads])
            try checks.writable(logSumExp, "logSumExp")
        }
        try validateCache(attention)
        try attention.validateWorkspace()
    }

    private func validateCache(_ attention: AttentionOperation) throws(FlashInferError) {
        let (shape, blocks) = (plan.problem.shape, plan.problem.geometry.blocks)
        guard cache.latent.dtype == plan.problem.kvType else {
            throw .planMismatch("cache type", planned: "\(plan.problem.kvType)", found: "\(cache.latent.dtype)")
        }
        for (name, found, planned) in [
            ("latent dim", cache.latent.headDim, shape.headDimVO),
            ("rope dim", cache.rope.headDim, shape.latentRopeDim),
            ("page size", cache.latent.blockSize ?? 1, blocks.blockSize),
        ] where found != planned {
            throw .planMismatch(name, planned: "\(planned)", found: "\(found)")
        }
        guard cache.latent.blockCount >= blocks.blockLimit else {
            throw .planMismatch(
                "a cache of at least this many pages", planned: "\(blocks.blockLimit)",
                found: "\(cache.latent.blockCount)")
        }
        try attention.expectDevice(cache.latent.view, "ckv")
    }
}

/// What latent attention adds to attention over keys of `headDimVO` elements: the rest of queries and keys.
package final class LatentPart: Sendable {
    /// `[queries, queryHeads, ropeDim]`
    package let queries: TensorView
    /// The rest of the keys.
    package let keys: KVTensor
    /// What products of the rest are multiplied by, relative to those of the others.
    package let scale: Float

    init(queries: TensorView, keys: KVTensor, scale: Float) {
        (self.queries, self.keys, self.scale) = (queries, keys, scale)
    }
}

extension MLAOperation {
    /// As backends run it: attention whose values are its keys, and the rest of the keys beside.
    package var attention: AttentionOperation {
        var attention = AttentionOperation(
            queries: nopeQueries,
            cache: KVCacheView(
                shared: cache.latent, scales: KVScales(key: cache.latentScale, value: cache.latentScale)),
            output: output, logSumExp: logSumExp, plan: plan, workspace: workspace, capacity: capacity)
        attention.latent = LatentPart(
            queries: ropeQueries, keys: cache.rope, scale: cache.ropeScale / cache.latentScale)
        return attention
    }
}

extension AttentionProblem {
    /// Checks what latent attention's kernels ask of a problem, for a device's `kernelTraits(for:)`.
    ///
    /// - Throws: ``FlashInferError/unsupported(_:device:nearest:)`` with the nearest that there is.
    package func requireLatentSupport(deviceName: String) throws(FlashInferError) {
        let form = variant.form
        let isPlain =
            form.isFused && variant.logitsSoftCap == nil && !form.isALiBi && form.maskTensor == nil
            && !variant.hasSinks && variant.windowLeft == nil && variant.rope == nil
        guard isPlain else {
            throw .unsupported(
                "latent attention with variant '\(variant.name)'", device: deviceName,
                nearest: "a causal mask or none, scores that are only scaled, and keys that were rotated when stored")
        }
        guard !geometry.blocks.blocksAreRows, geometry.blocks.keyPositions == .sequential else {
            throw .unsupported("latent attention over rows", device: deviceName, nearest: "a paged latent cache")
        }
    }
}
