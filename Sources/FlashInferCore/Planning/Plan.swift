/// How a batch of attention is shared out: every item of work, who does it, and what is merged after.
///
/// Pure data, made by ``Planner`` with no device; equal inputs give equal plans. A plan serves every layer of a model, and
/// is run any number of times.
public struct Plan: Sendable, Equatable {
    /// What was planned.
    public let problem: AttentionProblem

    /// The kernels it was planned for.
    public let traits: KernelTraits

    /// The work, processor after processor.
    public let items: [WorkItem]

    /// `[processors + 1]`: processor `p` has items `itemIndptr[p] ..< itemIndptr[p + 1]`.
    public let itemIndptr: [Int32]

    /// The tiles whose partial states are to be merged.
    public let merges: [MergeItem]

    /// The number of rows of partial state.
    public let partialRowCount: Int

    /// The number of processors planned for.
    public var processorCount: Int { itemIndptr.count - 1 }

    /// How large the plan is.
    public var size: PlanSize {
        PlanSize(
            itemCount: items.count, mergeCount: merges.count, partialRowCount: partialRowCount,
            headDimVO: problem.shape.headDimVO, requestCount: problem.geometry.requestCount,
            blockCount: problem.geometry.blocks.indices.count)
    }

    /// Bytes of workspace that a run needs: `partialRowCount` rows of `headDimVO` output and one LSE, float32.
    public var workspaceByteCount: Int { size.workspaceByteCount }
}
