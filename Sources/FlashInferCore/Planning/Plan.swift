/// How a batch of attention is shared out: every item of work, who does it, and what is merged after.
///
/// Pure data, made by ``Planner`` with no device; equal inputs give equal plans. A plan serves every layer of a model, and
/// is run any number of times: passing it on costs one reference.
public struct Plan: Sendable {
    @usableFromInline
    let content: PlanContent

    init(_ content: PlanContent) { self.content = content }
}

extension Plan {
    /// What was planned.
    @inlinable
    public var problem: AttentionProblem { content.problem }

    /// The kernels it was planned for.
    @inlinable
    public var traits: KernelTraits { content.traits }

    /// The work: the workers' lists, worker after worker, then the queues, tile after tile.
    ///
    /// Of a block-sparse matrix they are made when they are first asked for: ``size`` has their number.
    public var items: [WorkItem] { content.items }

    /// `[workers + 1]`: worker `w` has a list of items `itemIndptr[w] ..< itemIndptr[w + 1]`.
    @inlinable
    public var itemIndptr: [Int32] { content.itemIndptr }

    /// `[tiles + 1]`: the queue of tile `t` of the traits has items `queueIndptr[t] ..< queueIndptr[t + 1]`, none for a tile with
    /// lists. Thread block `i` of the tile's launch runs item `queueIndptr[t] + i`.
    @inlinable
    public var queueIndptr: [Int32] { content.queueIndptr }

    /// The tiles whose partial states are to be merged; none where there are ``stateLists``.
    @inlinable
    public var merges: [MergeItem] { content.merges }

    /// What is merged instead where the batch has several levels; `nil` for one.
    @inlinable
    public var stateLists: StateLists? { content.stateLists }

    /// The number of rows of partial state.
    @inlinable
    public var partialRowCount: Int { content.partialRowCount }

    /// Which blocks of the items' keys need not be computed, by what causality and window leave over of the mask; `nil` for nothing.
    package var analysis: BlockAnalysis? { content.analysis }

    /// Whether a request's result may depend, in its last bits, on its neighbours: then kernels may be chosen by the whole batch.
    package var isBalanced: Bool { content.isBalanced }

    /// How large the plan is.
    @inlinable
    public var size: PlanSize { content.size }

    /// What is asked of a run's tensors.
    package var runForm: RunForm { content.runForm }

    /// What the items follow from, where they need not be written one by one.
    package var sections: HeadSections? { content.sections }

    /// Whether states of several levels are merged.
    package var hasStateLists: Bool { content.stateLists != nil }

    /// Bytes of workspace that a run needs: `partialRowCount` rows of `headDimVO` output and one LSE, float32.
    public var workspaceByteCount: Int { size.workspaceByteCount }

    /// The number of lists: processors × ``KernelTraits/workersPerProcessor`` / ``KernelTraits/concurrentHeads``, rounded down.
    public var workerCount: Int { itemIndptr.count - 1 }

    /// The number of processors planned for.
    public var processorCount: Int { workerCount * traits.concurrentHeads / traits.workersPerProcessor }

    /// The number of items on the workers' lists, which come first.
    public var listItemCount: Int { Int(itemIndptr[itemIndptr.count - 1]) }

    /// The items of all queues.
    public var queue: Range<Int> { listItemCount..<size.itemCount }

    /// The items of the queue of one of the traits' tiles, in the order to be taken; empty for a tile with lists.
    public func queue(ofTile tile: Int) -> Range<Int> { Int(queueIndptr[tile])..<Int(queueIndptr[tile + 1]) }

    /// Whether `other` is a copy of this plan, which is quick to say; plans that were made apart may be equal and are not the same.
    package func isSame(as other: Plan) -> Bool { content === other.content }
}

extension Plan: Equatable {
    /// Whether two plans share out the same work alike.
    public static func == (left: Plan, right: Plan) -> Bool {
        let (a, b) = (left.content, right.content)
        return a === b
            || (a.size == b.size && a.problem == b.problem && a.traits == b.traits && a.items == b.items
                && a.itemIndptr == b.itemIndptr && a.queueIndptr == b.queueIndptr && a.merges == b.merges
                && a.stateLists == b.stateLists && a.analysis == b.analysis)
    }
}

/// What a plan consists of, which never changes.
@usableFromInline
final class PlanContent: Sendable {
    @usableFromInline let problem: AttentionProblem
    @usableFromInline let traits: KernelTraits
    private let writtenItems: [WorkItem]
    let sections: HeadSections?
    private let itemsOfSections: Locked<[WorkItem]?>?
    @usableFromInline let itemIndptr: [Int32]
    @usableFromInline let queueIndptr: [Int32]
    @usableFromInline let merges: [MergeItem]
    @usableFromInline let stateLists: StateLists?
    @usableFromInline let partialRowCount: Int
    @usableFromInline let size: PlanSize
    let analysis: BlockAnalysis?
    let isBalanced: Bool
    let runForm: RunForm

    init(
        problem: AttentionProblem, traits: KernelTraits, items: [WorkItem], sections: HeadSections? = nil,
        itemIndptr: [Int32], queueIndptr: [Int32], merges: [MergeItem], stateLists: StateLists?,
        partialRowCount: Int, analysis: BlockAnalysis?, isBalanced: Bool
    ) {
        self.problem = problem
        self.traits = traits
        writtenItems = items
        self.sections = sections
        itemsOfSections = sections == nil ? nil : Locked(nil)
        self.itemIndptr = itemIndptr
        self.queueIndptr = queueIndptr
        self.merges = merges
        self.stateLists = stateLists
        self.partialRowCount = partialRowCount
        self.analysis = analysis
        self.isBalanced = isBalanced
        runForm = RunForm(problem)
        // Items of lists come first, in the order of their workers.
        let listed = items.prefix(Int(itemIndptr[itemIndptr.count - 1]))
        let tileMask = traits.tileMask { tile in
            traits.tiles[tile].schedule == .lists
                ? listed.contains { $0.tile == Int32(tile) } : queueIndptr[tile + 1] > queueIndptr[tile]
        }
        size = PlanSize(
            itemCount: sections?.itemCount ?? items.count, mergeCount: merges.count, partialRowCount: partialRowCount,
            headDimVO: problem.shape.headDimVO, requestCount: problem.geometry.requestCount,
            blockCount: problem.geometry.blocks.indices.count, tileMask: tileMask,
            stateListCount: stateLists?.listCount ?? 0, stateCount: stateLists?.states.count ?? 0,
            rowTileCount: sections?.rowTileCount ?? 0)
    }

    /// All items.
    var items: [WorkItem] {
        guard let sections, let itemsOfSections else { return writtenItems }
        return itemsOfSections.withLock { known in
            if let known { return known }
            let items = sections.items()
            known = items
            return items
        }
    }
}
