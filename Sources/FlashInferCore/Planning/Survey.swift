/// A batch's row tiles with their costs: what all of planning works on, from one pass over the requests.
struct Survey {
    /// Row tiles of the kernels whose items workers have lists of, request by request.
    var lists: [RowTile] = []
    /// Row tiles of the kernels that take their items from a queue, request by request.
    var queued: [RowTile] = []
    /// Items of `lists`, uncut.
    var listItems = 0
    /// Items of `queued`, uncut.
    var queuedItems = 0
    /// Cost of all items of `lists`, uncut.
    var listCost: Float64 = 0
    /// How each of the traits' tiles shares out the heads.
    let heads: [HeadSteps]

    /// Surveys `problem`.
    ///
    /// - Throws: ``FlashInferError/overflow(_:)`` where a request's packed rows or the number of items exceed 32 bits.
    init(_ problem: AttentionProblem, _ traits: KernelTraits) throws(FlashInferError) {
        heads = traits.tiles.map { HeadSteps($0, problem.shape) }
        try count(problem, traits)
        guard listItems <= Int(Int32.max), queuedItems <= Int(Int32.max) else { throw .overflow("the plan's items") }
        collect(problem, traits)
    }

    /// Counts row tiles and items, so that what follows allocates once.
    private mutating func count(_ problem: AttentionProblem, _ traits: KernelTraits) throws(FlashInferError) {
        let group = problem.shape.group
        let queries = problem.geometry.queryIndptr.span
        let tiles = traits.tiles.span
        var (listTiles, queueTiles) = (0, 0)
        for request in 0..<problem.geometry.requestCount {
            let rows = (Int(queries[request + 1]) - Int(queries[request])) * group
            if rows == 0 { continue }
            guard rows <= Int(Int32.max) else { throw .overflow("request \(request)'s query rows × group") }
            let index = traits.tileIndex(rows: rows)
            let size = tiles[index].queryRows
            let rowTiles = rows <= size ? 1 : (rows + size - 1) / size
            if tiles[index].schedule == .lists {
                listTiles += rowTiles
                listItems += rowTiles * heads[index].count
            } else {
                queueTiles += rowTiles
                queuedItems += rowTiles * heads[index].count
            }
        }
        lists.reserveCapacity(listTiles)
        queued.reserveCapacity(queueTiles)
    }

    private mutating func collect(_ problem: AttentionProblem, _ traits: KernelTraits) {
        let group = problem.shape.group
        let queries = problem.geometry.queryIndptr.span
        let lengths = problem.geometry.blocks.lengths.span
        let visibility = KeyVisibility(problem)
        let tiles = traits.tiles.span
        for request in 0..<problem.geometry.requestCount {
            let queryCount = Int(queries[request + 1]) - Int(queries[request])
            let rows = queryCount * group
            if rows == 0 { continue }
            let index = traits.tileIndex(rows: rows)
            let (size, keyCost, pairCost) = (tiles[index].queryRows, tiles[index].keyCost, tiles[index].pairCost)
            let keyCount = Int(lengths[request])
            let isList = tiles[index].schedule == .lists
            var rowStart = 0
            repeat {
                let rowCount = min(size, rows - rowStart)
                let seen =
                    rowCount == rows
                    ? 0..<queryCount : rowStart / group..<(rowStart + rowCount - 1) / group + 1
                let keys = visibility.keys(of: seen, queryCount: queryCount, keyCount: keyCount)
                let tile = RowTile(
                    request: Int32(truncatingIfNeeded: request), tile: Int32(truncatingIfNeeded: index),
                    rowStart: Int32(truncatingIfNeeded: rowStart), rowCount: Int32(truncatingIfNeeded: rowCount),
                    keyStart: Int32(truncatingIfNeeded: keys.lowerBound),
                    keyEnd: Int32(truncatingIfNeeded: keys.upperBound),
                    keyCost: keyCost + Float(rowCount) * pairCost, fixedCost: tiles[index].fixedCost)
                if isList {
                    lists.append(tile)
                    // The last step may have fewer heads: its keys cost less, its start does not.
                    listCost += Float64(heads[index].count - 1) * Float64(tile.fixedCost)
                    listCost += Float64(tile.cost(heads: heads[index].total))
                } else {
                    queued.append(tile)
                }
                rowStart += rowCount
            } while rowStart < rows
        }
    }
}
