extension Planner {
    /// A size that every batch within these bounds fits in: what fixed buffers (a captured graph's) must hold.
    ///
    /// - Parameters:
    ///   - maximumRequests: requests of a batch; of all its levels together.
    ///   - maximumQueries: query rows of a batch, all requests together.
    ///   - maximumRequestQueries: query rows of one request; `maximumQueries` where not given. 1 for decode: it rules out the tiles
    ///     of longer requests, whose partial states take far more room.
    ///   - maximumKeys: keys of one request; matters to ``Mode/batchInvariant(splitSize:)`` only.
    ///   - maximumBlocks: block ids (pages) of a batch's table, all requests together.
    ///   - maximumLevels: levels of composed geometries. Any request but the last level's may have all of the query rows.
    /// - Throws: ``FlashInferError/overflow(_:)`` where the bound does not fit in 32 bits.
    public static func capacity(
        maximumRequests: Int, maximumQueries: Int, maximumRequestQueries: Int? = nil, maximumKeys: Int,
        maximumBlocks: Int, maximumLevels: Int = 1, shape: AttentionShape, traits: KernelTraits, processors: Int,
        mode: Mode = .balanced
    ) throws(FlashInferError) -> PlanSize {
        let requestQueries =
            maximumLevels > 1 ? maximumQueries : min(maximumRequestQueries ?? maximumQueries, maximumQueries)
        for (name, value) in [
            ("maximumRequests", maximumRequests), ("maximumQueries", maximumQueries),
            ("maximumRequestQueries", requestQueries), ("maximumKeys", maximumKeys), ("maximumBlocks", maximumBlocks),
            ("maximumLevels", maximumLevels), ("maximumQueries × maximumLevels", maximumQueries &* maximumLevels),
        ] where value < 0 || value > Int(Int32.max) {
            throw .invalidArgument(name, found: "\(value)", expected: "in 0 ... \(Int32.max)")
        }
        let workers = try workers(mode, traits, processors)
        var bound = CapacityBound()
        var reached: [Bool] = []
        var shorter = 0
        for (index, tile) in traits.tiles.enumerated() {
            // Requests of this tile have more rows than those of the tile before.
            let isReached = requestQueries * shape.group > shorter
            reached.append(isReached)
            let isLast = index == traits.tiles.count - 1
            if isReached {
                let longest = min(requestQueries * shape.group, isLast ? .max : tile.maximumRows)
                bound.add(
                    tile, HeadSteps(tile, shape),
                    queueWorkers: traits.queueWorkers(tile: index, processors),
                    rows: maximumQueries * shape.group * maximumLevels, longest: longest,
                    requests: maximumRequests)
            }
            shorter = max(shorter, tile.maximumRows)
        }
        let size = try bound.size(
            mode, workers: workers, maximumKeys: maximumKeys, headDimVO: shape.headDimVO,
            requestCount: maximumRequests, blockCount: maximumBlocks,
            tileMask: traits.tileMask { reached[$0] })
        return maximumLevels > 1
            ? try withLevels(size, maximumLevels, maximumQueries: maximumQueries, shape, traits) : size
    }

    /// The size with the states of rows that several levels have: one for each row, head and level, besides those of cut tiles. There are
    /// no more lists than rows and heads, and no more states in them than rows of partial state.
    private static func withLevels(
        _ size: PlanSize, _ levels: Int, maximumQueries: Int, _ shape: AttentionShape, _ traits: KernelTraits
    ) throws(FlashInferError) -> PlanSize {
        let rows = maximumQueries * shape.group
        let shortest = traits.tiles.reduce(Int.max) { min($0, $1.queryRows) }
        let segments = min(rows, size.requestCount + rows * levels / shortest)
        var size = size
        size.partialRowCount += rows * shape.kvHeads * levels
        guard size.partialRowCount <= Int(Int32.max) else { throw .overflow("the plan's capacity") }
        size.stateListCount = segments * shape.kvHeads
        size.stateCount = size.partialRowCount
        return size
    }
}

/// The most that a batch's tiles come to.
private struct CapacityBound {
    /// A request has at most one short tile a head step; all others are full. A batch may mix the kernels' tiles, so each of the
    /// two takes its own worst.
    private var shortTiles = 0
    private var fullTiles = 0
    /// Rows of partial state of an item on a list.
    private var listRows = 0
    /// Blocks at a time, and rows of partial state of an item, of each queue.
    private var queues: [(workers: Int, rows: Int)] = []

    mutating func add(
        _ tile: KernelTraits.Tile, _ heads: HeadSteps, queueWorkers: Int, rows: Int, longest: Int,
        requests: Int
    ) {
        shortTiles = max(shortTiles, heads.count * requests)
        fullTiles = max(fullTiles, (heads.count * rows + tile.queryRows - 1) / tile.queryRows)
        let rowsPerItem = min(tile.queryRows, longest) * heads.step
        switch tile.schedule {
        case .lists: listRows = max(listRows, rowsPerItem)
        case .queue: queues.append((queueWorkers, rowsPerItem))
        }
    }

    func size(
        _ mode: Planner.Mode, workers: Int, maximumKeys: Int, headDimVO: Int, requestCount: Int, blockCount: Int,
        tileMask: UInt32
    ) throws(FlashInferError) -> PlanSize {
        let tiles = shortTiles + fullTiles
        // The parts of cut tiles, by the rows of each.
        var groups: [(parts: Int, rows: Int)] = []
        switch mode {
        case .unsplit: break
        case .balanced:
            if listRows > 0 { groups.append((Planner.cutPartsOfLists(workers), listRows)) }
            groups += queues.map { (Planner.cutPartsOfQueue($0.workers), $0.rows) }
        case .batchInvariant(let splitSize):
            let (parts, overflow) = tiles.multipliedReportingOverflow(by: (max(maximumKeys, 1) - 1) / splitSize + 1)
            guard !overflow else { throw .overflow("the plan's capacity") }
            if maximumKeys > splitSize { groups.append((parts, queues.reduce(listRows) { max($0, $1.rows) })) }
        }
        var (parts, rows) = (0, 0)
        let limit = Int(Int32.max)
        for group in groups {
            let (product, overflow) = group.parts.multipliedReportingOverflow(by: group.rows)
            guard !overflow, product <= limit, group.parts <= limit else { throw .overflow("the plan's capacity") }
            parts += group.parts
            rows += product
        }
        guard rows <= limit, tiles <= limit, tiles + parts <= limit else { throw .overflow("the plan's capacity") }
        return PlanSize(
            itemCount: tiles + parts, mergeCount: parts / 2, partialRowCount: rows, headDimVO: headDimVO,
            requestCount: requestCount, blockCount: blockCount, tileMask: tileMask)
    }
}
