extension Planner {
    /// A size that every batch within these bounds fits in: what fixed buffers (a captured graph's) must hold.
    ///
    /// - Parameters:
    ///   - maximumRequests: requests of a batch.
    ///   - maximumQueries: query rows of a batch, all requests together.
    ///   - maximumKeys: keys of one request; matters to ``Mode/batchInvariant(splitSize:)`` only.
    ///   - maximumBlocks: block ids (pages) of a batch's table, all requests together.
    /// - Throws: ``FlashInferError/overflow(_:)`` where the bound does not fit in 32 bits.
    public static func capacity(
        maximumRequests: Int, maximumQueries: Int, maximumKeys: Int, maximumBlocks: Int, shape: AttentionShape,
        traits: KernelTraits,
        processors: Int, mode: Mode = .balanced
    ) throws(FlashInferError) -> PlanSize {
        for (name, value) in [
            ("maximumRequests", maximumRequests), ("maximumQueries", maximumQueries), ("maximumKeys", maximumKeys),
            ("maximumBlocks", maximumBlocks),
        ] where value < 0 || value > Int(Int32.max) {
            throw .invalidArgument(name, found: "\(value)", expected: "in 0 ... \(Int32.max)")
        }
        // A request has at most one short tile a head; all others are full. A batch may mix the kernels' tiles, so each of the
        // two terms takes its own worst.
        let rowCount = maximumQueries * shape.group
        var shortTiles = 0
        var fullTiles = 0
        var rowsPerItem = 0
        for tile in traits.tiles {
            let heads = min(tile.kvHeads, shape.kvHeads)
            let headTiles = (shape.kvHeads + heads - 1) / heads
            shortTiles = max(shortTiles, headTiles * maximumRequests)
            fullTiles = max(fullTiles, (headTiles * rowCount + tile.queryRows - 1) / tile.queryRows)
            rowsPerItem = max(rowsPerItem, min(tile.queryRows, rowCount) * heads)
        }
        let tileCount = shortTiles + fullTiles
        let parts: Int
        switch mode {
        case .balanced: parts = 2 * (processors - 1)
        case .unsplit: parts = 0
        case .batchInvariant(let splitSize):
            parts = maximumKeys <= splitSize ? 0 : tileCount * ((maximumKeys - 1) / splitSize + 1)
        }
        let (rows, overflow) = parts.multipliedReportingOverflow(by: rowsPerItem)
        guard !overflow, rows <= Int(Int32.max), tileCount + parts <= Int(Int32.max) else {
            throw .overflow("the plan's capacity")
        }
        return PlanSize(
            itemCount: tileCount + parts, mergeCount: parts / 2, partialRowCount: rows, headDimVO: shape.headDimVO,
            requestCount: maximumRequests, blockCount: maximumBlocks)
    }
}
