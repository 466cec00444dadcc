/// Shares a batch of attention out over workers: pure functions, no device.
///
/// There are ``KernelTraits/workersPerProcessor`` workers a processor. Tiles whose ``KernelTraits/Tile/schedule`` is `.lists` are
/// laid end to end, request by request, and each worker gets neighbours. In the balanced mode nothing is cut where whole tiles,
/// or equal parts of those that are longer than a share, are level to within 1/32 of a share and the start of an item. Else the
/// line is cut in equal shares, as Stream-K does for matrix products (arXiv 2301.03598). Either way a worker has at most two
/// parts of cut tiles however skewed the lengths, and the workspace is bounded by the workers, not by the batch. Where there is too
/// little work to give each worker ``KernelTraits/minimumSplit`` keys, the last workers get none.
///
/// Tiles whose schedule is `.queue` follow, tile kind by tile kind, in the order in which thread blocks take them: sections of
/// (request, head) pairs whose keys the processors' common cache holds together, longest items first within a section. They are
/// cut only in the balanced mode, and only those that would end after all others.
///
/// The requests of a composed geometry's levels are planned alike, as one batch. Where several have the same rows, all of their items
/// leave partial states, and ``StateLists`` say what is merged.
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
    ///   - processors: the device's, from ``DeviceLimits/processors``; each has the traits' number of workers.
    ///   - capacity: where the plan is to be replayed in fixed buffers, their size, from
    ///     ``capacity(maximumRequests:maximumQueries:maximumRequestQueries:maximumKeys:maximumBlocks:maximumLevels:shape:traits:processors:mode:)``.
    /// - Throws: ``FlashInferError/capacityExceeded(_:required:capacity:)``, ``FlashInferError/overflow(_:)``, or
    ///   ``FlashInferError/invalidArgument(_:found:expected:)`` for a split size that is not a multiple of the granularity.
    /// - Complexity: O(tiles + workers), and a logarithm of the rows of tiles where requests of different lengths share a queue.
    public static func plan(
        _ problem: AttentionProblem, traits: KernelTraits, processors: Int, mode: Mode = .balanced,
        capacity: PlanSize? = nil
    ) throws(FlashInferError) -> Plan {
        let workers = try workers(mode, traits, processors)
        let problem = problem.withoutHiddenBlocks
        let analysis = problem.restAnalysis
        let survey = try Survey(problem, traits, analysis)
        if let sections = headSections(survey, problem, traits, processors, mode),
            sections.rowTileCount <= capacity?.rowTileCount ?? .max
        {
            let tile = Int(sections.rowTiles[0].tile)
            let plan = Plan(
                PlanContent(
                    problem: problem, traits: traits, items: [], sections: sections,
                    itemIndptr: [Int32](repeating: 0, count: workers + 1),
                    queueIndptr: (0...traits.tiles.count).map { $0 > tile ? Int32(sections.itemCount) : 0 },
                    merges: [], stateLists: nil, partialRowCount: 0, analysis: analysis,
                    isBalanced: mode == .balanced))
            try capacity?.requireRoom(for: plan.size)
            return plan
        }
        let bound = try bound(survey, traits, processors, mode)
        var itemIndptr = [Int32](repeating: 0, count: workers + 1)
        var queueIndptr: [Int32] = []
        queueIndptr.reserveCapacity(traits.tiles.count + 1)
        var merges: [MergeItem] = []
        var partialRows = 0
        var items = [WorkItem](unsafeUninitializedCapacity: bound.itemCount) { items, itemCount in
            merges = [MergeItem](unsafeUninitializedCapacity: bound.mergeCount) { merges, mergeCount in
                itemIndptr.withUnsafeMutableBufferPointer { itemIndptr in
                    var writer = WorkWriter(items: items, merges: merges, itemIndptr: itemIndptr)
                    emitLists(survey, traits, workers, mode, into: &writer)
                    queueIndptr.append(Int32(truncatingIfNeeded: writer.count))
                    emitQueues(survey, traits, processors, mode, into: &writer) { _, writer in
                        queueIndptr.append(Int32(truncatingIfNeeded: writer.count))
                    }
                    (itemCount, mergeCount) = (writer.count, writer.mergeCount)
                    partialRows = writer.partialRows
                }
            }
        }
        var stateLists: StateLists?
        if problem.geometry.levelCount > 1 {
            stateLists = StateLists(&items, problem, partialRowCount: &partialRows)
            merges = []
        }
        let plan = Plan(
            PlanContent(
                problem: problem, traits: traits, items: items, itemIndptr: itemIndptr, queueIndptr: queueIndptr,
                merges: merges, stateLists: stateLists, partialRowCount: partialRows, analysis: analysis,
                isBalanced: mode == .balanced))
        let size = try checked(plan.size)
        try capacity?.requireRoom(for: size)
        return plan
    }

    /// The exact size of the plan for `problem`, by the code that makes it; without making it, where there is one level.
    public static func measure(
        _ problem: AttentionProblem, traits: KernelTraits, processors: Int, mode: Mode = .balanced
    ) throws(FlashInferError) -> PlanSize {
        if problem.geometry.levelCount > 1 {
            return try plan(problem, traits: traits, processors: processors, mode: mode).size
        }
        let workers = try workers(mode, traits, processors)
        let problem = problem.withoutHiddenBlocks
        let survey = try Survey(problem, traits, problem.restAnalysis)
        var count = WorkCount()
        emitLists(survey, traits, workers, mode, into: &count)
        emitQueues(survey, traits, processors, mode, into: &count) { _, _ in }
        return try checked(
            PlanSize(
                itemCount: count.items, mergeCount: count.mergeCount, partialRowCount: count.partialRows,
                headDimVO: problem.shape.headDimVO, requestCount: problem.geometry.requestCount,
                blockCount: problem.geometry.blocks.indices.count,
                tileMask: traits.tileMask { tile in
                    (traits.tiles[tile].schedule == .lists ? survey.lists : survey.queued)
                        .contains { $0.tile == Int32(tile) }
                },
                rowTileCount: headSections(survey, problem, traits, processors, mode)?.rowTileCount ?? 0))
    }

    /// Items and merges that a plan has at most, from the survey alone: what to allocate.
    private static func bound(
        _ survey: Survey, _ traits: KernelTraits, _ processors: Int, _ mode: Mode
    ) throws(FlashInferError) -> (itemCount: Int, mergeCount: Int) {
        let uncut = survey.listItems + survey.queuedItems
        switch mode {
        case .unsplit: return (uncut, 0)
        case .batchInvariant(let size):
            var (items, merges) = (0, 0)
            for tile in survey.lists + survey.queued {
                let parts = KeyCuts(tile, every: size).count
                let count = survey.heads[Int(tile.tile)].count
                items += count * parts
                if parts > 1 { merges += count }
            }
            guard items <= Int(Int32.max) else { throw .overflow("the plan's items") }
            return (items, merges)
        case .balanced:
            // Lists have a cut less than workers, each of which makes one item more and at most one merge. A queue's cut tile has
            // two parts or more.
            var items = survey.lists.isEmpty ? 0 : traits.listCount(processors) - 1
            var merges = items
            if !survey.queued.isEmpty {
                for tile in traits.tiles.indices where traits.tiles[tile].schedule == .queue {
                    let parts = cutPartsOfQueue(traits.queueWorkers(tile: tile, processors))
                    items += parts
                    merges += parts / 2
                }
            }
            return (uncut + items, merges)
        }
    }

    /// Parts of cut tiles that the workers' lists have in the balanced mode, at most: two for each worker but one.
    static func cutPartsOfLists(_ workers: Int) -> Int { 2 * (workers - 1) }

    /// Parts of cut tiles that a tile's queue has in the balanced mode, at most.
    static func cutPartsOfQueue(_ workers: Int) -> Int { TailCuts.partsPerWorker * workers }

    /// Work items are numbered, and partial rows addressed, in 32 bits.
    private static func checked(_ size: PlanSize) throws(FlashInferError) -> PlanSize {
        guard size.partialRowCount <= Int(Int32.max), size.itemCount <= Int(Int32.max) else {
            throw .overflow("the plan's partial rows")
        }
        return size
    }

    /// The number of workers; checks what they are made of.
    static func workers(_ mode: Mode, _ traits: KernelTraits, _ processors: Int) throws(FlashInferError) -> Int {
        guard processors >= 1 else {
            throw .invalidArgument("processors", found: "\(processors)", expected: "1 or more")
        }
        let each = max(traits.workersPerProcessor, traits.tiles.reduce(1) { max($0, $1.blocksPerProcessor ?? 1) })
        guard processors <= maximumWorkers / each else {
            throw .invalidArgument(
                "processors", found: "\(processors) of \(each) workers each",
                expected: "\(maximumWorkers) workers at most")
        }
        if case .batchInvariant(let size) = mode, size < 1 || size % traits.kvGranularity != 0 {
            throw .invalidArgument(
                "splitSize", found: "\(size)", expected: "a positive multiple of \(traits.kvGranularity)")
        }
        return traits.listCount(processors)
    }

    /// More workers than any device has; a plan's fixed tables are sized by them.
    private static let maximumWorkers = 1 << 20
}
