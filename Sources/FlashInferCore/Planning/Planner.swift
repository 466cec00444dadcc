/// Shares a batch of attention out over processors: pure functions, no device.
///
/// The balanced mode walks all tiles in order and gives each processor an equal share of the cost, cutting a tile's keys where
/// a share ends, as Stream-K does for matrix products (arXiv 2301.03598). So there are at most `processors − 1` cuts however
/// skewed the lengths, and the workspace is bounded by the processors, not by the batch.
public enum Planner {
    /// How work may be cut.
    public enum Mode: Sendable, Hashable {
        /// Where it balances best.
        case balanced
        /// Every `splitSize` keys of a request, whatever the batch: a request's result is the same, bit for bit, next to any
        /// neighbours and on any number of processors. A multiple of the traits' granularity.
        case batchInvariant(splitSize: Int)
        /// Not at all.
        case unsplit
    }

    /// The plan for `problem`.
    ///
    /// - Parameters:
    ///   - traits: the device's kernels, from its `kernelTraits(for:)`.
    ///   - processors: how many workers to balance over, from ``DeviceLimits/processors``.
    ///   - capacity: where the plan is to be replayed in fixed buffers, their size, from
    ///     ``capacity(maximumRequests:maximumQueries:maximumKeys:shape:traits:processors:mode:)``.
    /// - Throws: ``FlashInferError/capacityExceeded(_:required:capacity:)``, ``FlashInferError/overflow(_:)``, or
    ///   ``FlashInferError/invalidArgument(_:found:expected:)`` for a split size that is not a multiple of the granularity.
    /// - Complexity: O(tiles + processors), and a logarithm of the processors for the modes other than balanced.
    public static func plan(
        _ problem: AttentionProblem, traits: KernelTraits, processors: Int, mode: Mode = .balanced,
        capacity: PlanSize? = nil
    ) throws(FlashInferError) -> Plan {
        try check(mode, traits, processors)
        var list = WorkList(processors: processors, items: geometryBound(problem, processors))
        emit(problem, traits, processors, mode, into: &list)
        let plan = list.plan(problem, traits)
        let size = try checked(plan.size)
        if let capacity { try check(size, fits: capacity) }
        return plan
    }

    /// The exact size of the plan for `problem`, by the code that makes it, without making it.
    public static func measure(
        _ problem: AttentionProblem, traits: KernelTraits, processors: Int, mode: Mode = .balanced
    ) throws(FlashInferError) -> PlanSize {
        try check(mode, traits, processors)
        var count = WorkCount()
        emit(problem, traits, processors, mode, into: &count)
        return try checked(
            PlanSize(
                itemCount: count.items, mergeCount: count.merges, partialRowCount: count.partialRows,
                headDimVO: problem.shape.headDimVO, requestCount: problem.geometry.requestCount,
                blockCount: problem.geometry.blocks.indices.count))
    }

    /// Work items are numbered, and partial rows addressed, in 32 bits.
    private static func checked(_ size: PlanSize) throws(FlashInferError) -> PlanSize {
        guard size.partialRowCount <= Int(Int32.max), size.itemCount <= Int(Int32.max) else {
            throw .overflow("the plan's partial rows")
        }
        return size
    }

    /// About how many items a decode batch has; a hint for the first allocation.
    private static func geometryBound(_ problem: AttentionProblem, _ processors: Int) -> Int {
        problem.geometry.requestCount * problem.shape.kvHeads + processors
    }

    private static func check(_ mode: Mode, _ traits: KernelTraits, _ processors: Int) throws(FlashInferError) {
        guard processors >= 1 else {
            throw .invalidArgument("processors", found: "\(processors)", expected: "1 or more")
        }
        if case .batchInvariant(let size) = mode, size < 1 || size % traits.kvGranularity != 0 {
            throw .invalidArgument(
                "splitSize", found: "\(size)", expected: "a positive multiple of \(traits.kvGranularity)")
        }
    }

    private static func check(_ size: PlanSize, fits capacity: PlanSize) throws(FlashInferError) {
        guard size.itemCount <= capacity.itemCount else {
            throw .capacityExceeded("work items", required: size.itemCount, capacity: capacity.itemCount)
        }
        guard size.mergeCount <= capacity.mergeCount else {
            throw .capacityExceeded("merge items", required: size.mergeCount, capacity: capacity.mergeCount)
        }
        guard size.partialRowCount <= capacity.partialRowCount else {
            throw .capacityExceeded("partial rows", required: size.partialRowCount, capacity: capacity.partialRowCount)
        }
        guard size.requestCount <= capacity.requestCount else {
            throw .capacityExceeded("requests", required: size.requestCount, capacity: capacity.requestCount)
        }
        guard size.blockCount <= capacity.blockCount else {
            throw .capacityExceeded("block ids", required: size.blockCount, capacity: capacity.blockCount)
        }
        guard size.headDimVO == capacity.headDimVO else {
            throw .planMismatch("head dim (vo)", planned: "\(capacity.headDimVO)", found: "\(size.headDimVO)")
        }
    }

    private static func emit<Sink: WorkSink>(
        _ problem: AttentionProblem, _ traits: KernelTraits, _ processors: Int, _ mode: Mode, into sink: inout Sink
    ) {
        switch mode {
        case .balanced:
            emitBalanced(problem, traits, processors, into: &sink)
        case .batchInvariant(let splitSize):
            emitFixed(problem, traits, processors, splitSize: splitSize, into: &sink)
        case .unsplit:
            emitFixed(problem, traits, processors, splitSize: .max, into: &sink)
        }
    }
}
