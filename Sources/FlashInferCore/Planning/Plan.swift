/// How a batch of attention is shared out: every item of work, who does it, and what is merged after.
///
/// Pure data, made by ``Planner`` with no device; equal inputs give equal plans. A plan serves every layer of a model, and
/// is run any number of times.
public struct Plan: Sendable, Equatable {
    /// What was planned.
    public let problem: AttentionProblem

    /// The kernels it was planned for.
    public let traits: KernelTraits

    /// The work: the workers' lists, worker after worker, then the queues, tile after tile.
    public let items: [WorkItem]

    /// `[workers + 1]`: worker `w` has a list of items `itemIndptr[w] ..< itemIndptr[w + 1]`.
    public let itemIndptr: [Int32]

    /// `[tiles + 1]`: the queue of tile `t` of the traits has items `queueIndptr[t] ..< queueIndptr[t + 1]`, none for a tile with
    /// lists. Thread block `i` of the tile's launch runs item `queueIndptr[t] + i`.
    public let queueIndptr: [Int32]

    /// The tiles whose partial states are to be merged; none where there are ``stateLists``.
    public let merges: [MergeItem]

    /// What is merged instead where the batch has several levels; `nil` for one.
    public let stateLists: StateLists?

    /// The number of rows of partial state.
    public let partialRowCount: Int

    /// Which blocks of the items' keys need not be computed, by what causality and window leave over of the mask; `nil` for nothing.
    package let analysis: BlockAnalysis?

    /// The number of lists: processors × ``KernelTraits/workersPerProcessor`` / ``KernelTraits/concurrentHeads``, rounded down.
    public var workerCount: Int { itemIndptr.count - 1 }

    /// The number of processors planned for.
    public var processorCount: Int { workerCount * traits.concurrentHeads / traits.workersPerProcessor }

    /// The number of items on the workers' lists, which come first.
    public var listItemCount: Int { Int(itemIndptr[itemIndptr.count - 1]) }

    /// The items of all queues.
    public var queue: Range<Int> { listItemCount..<items.count }

    /// The items of the queue of one of the traits' tiles, in the order to be taken; empty for a tile with lists.
    public func queue(ofTile tile: Int) -> Range<Int> { Int(queueIndptr[tile])..<Int(queueIndptr[tile + 1]) }

    /// How large the plan is.
    public var size: PlanSize {
        PlanSize(
            itemCount: items.count, mergeCount: merges.count, partialRowCount: partialRowCount,
            headDimVO: problem.shape.headDimVO, requestCount: problem.geometry.requestCount,
            blockCount: problem.geometry.blocks.indices.count, tileMask: tileMask,
            stateListCount: stateLists?.listCount ?? 0, stateCount: stateLists?.states.count ?? 0)
    }

    /// The tiles that have items, bit `t` for tile `t`; all with lists where one has.
    private var tileMask: UInt32 {
        traits.tileMask(hasLists: listItemCount > 0) { queueIndptr[$0 + 1] > queueIndptr[$0] }
    }

    /// Bytes of workspace that a run needs: `partialRowCount` rows of `headDimVO` output and one LSE, float32.
    public var workspaceByteCount: Int { size.workspaceByteCount }
}
