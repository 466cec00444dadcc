/// A batch's row tiles with their costs: what all of planning works on, from one pass over the requests.
struct Survey {
    /// Row tiles of the kernels whose items workers have lists of, request by request.
    private(set) var lists: [RowTile] = []
    /// Row tiles of the kernels that take their items from a queue, request by request.
    private(set) var queued: [RowTile] = []
    /// Items of `lists`, uncut.
    private(set) var listItems = 0
    /// Items of `queued`, uncut.
    private(set) var queuedItems = 0
    /// Cost of all items of `lists`, uncut.
    private(set) var listCost: Float64 = 0
    /// Columns of the matrix whose block rows the requests are, if they are.
    let sharedColumns: Int?
    /// How each of the traits' tiles shares out the heads.
    let heads: [HeadSteps]

    /// Surveys `problem`.
    ///
    /// - Throws: ``FlashInferError/overflow(_:)`` where a request's packed rows or the number of items exceed 32 bits.
    init(_ problem: AttentionProblem, _ traits: KernelTraits, _ analysis: BlockAnalysis?) throws(FlashInferError) {
        heads = traits.tiles.map { HeadSteps($0, problem.shape) }
        let blocks = problem.geometry.blocks
        sharedColumns = blocks.keyPositions == .columns ? blocks.blockLimit * blocks.blockSize : nil
        let requests = problem.geometry.requestCount
        let group = problem.shape.group
        let queries = problem.geometry.queryIndptr.span
        let lengths = problem.geometry.blocks.lengths.span
        let visibility = KeyVisibility(problem, analysis: analysis)
        let shared = problem.geometry.levelStarts.last ?? 0
        let form = problem.variant.form
        let laterRowsSeeMore =
            form.mask == .causal && form.windowLeft == nil && analysis == nil && blocks.keyPositions == .sequential
            && shared == 0 && !problem.shape.isLatent
        // Enough for decode; others grow.
        lists.reserveCapacity(requests)
        var kind = Kind(traits, rows: 0, group: group, heads)
        for request in 0..<requests {
            let queryCount = Int(queries[unchecked: request + 1]) - Int(queries[unchecked: request])
            let rows = queryCount * group
            if rows == 0 { continue }
            if rows != kind.rows {
                guard rows <= Int(Int32.max) else { throw .overflow("request \(request)'s query rows × group") }
                kind = Kind(traits, rows: rows, group: group, heads)
            }
            let keyCount = Int(lengths[unchecked: request])
            // A row that sees nothing at all is its last level's.
            if keyCount == 0, request < shared { continue }
            if kind.isListed {
                listItems += kind.items
            } else {
                queuedItems += kind.items
            }
            // Before they are made: a huge batch is an error, not out of memory.
            guard listItems + queuedItems <= Int(Int32.max) else { throw .overflow("the plan's items") }
            var rowStart = 0
            var rowCount = laterRowsSeeMore ? kind.firstRows : min(kind.tileRows, rows)
            repeat {
                let seen =
                    rowCount == rows
                    ? Range(uncheckedBounds: (0, queryCount))
                    : Range(uncheckedBounds: (rowStart / group, (rowStart + rowCount - 1) / group + 1))
                let keys = visibility.keys(request, of: seen, queryCount: queryCount, keyCount: keyCount)
                let tile = RowTile(
                    request: Int32(truncatingIfNeeded: request), tile: kind.tile,
                    rowStart: Int32(truncatingIfNeeded: rowStart), rowCount: Int32(truncatingIfNeeded: rowCount),
                    keyStart: Int32(truncatingIfNeeded: keys.lowerBound),
                    keyEnd: Int32(truncatingIfNeeded: keys.upperBound),
                    keyCost: kind.keyCost + Float(rowCount) * kind.pairCost, fixedCost: kind.fixedCost)
                if kind.isListed {
                    lists.append(tile)
                    listCost += kind.restartCost + Float64(tile.cost(heads: kind.heads))
                } else {
                    queued.append(tile)
                }
                rowStart += rowCount
                rowCount = min(kind.tileRows, rows - rowStart)
            } while rowStart < rows
        }
    }

    /// What is the same for all requests of equally many rows.
    private struct Kind {
        let rows: Int
        let tile: Int32
        let tileRows: Int
        /// Rows of the first row tile where later ones see more keys.
        let firstRows: Int
        /// Items of a request.
        let items: Int
        let isListed: Bool
        let heads: Int
        let keyCost: Float
        let pairCost: Float
        let fixedCost: Float
        /// Cost of starting the items of a row tile but for one.
        let restartCost: Float64

        init(_ traits: KernelTraits, rows: Int, group: Int, _ heads: [HeadSteps]) {
            self.rows = rows
            let index = traits.tileIndex(rows: rows)
            let tile = traits.tiles[index]
            self.tile = Int32(truncatingIfNeeded: index)
            tileRows = tile.queryRows
            firstRows = Self.firstRows(of: rows, tile, group: group)
            items = (rows + tileRows - 1) / tileRows * heads[index].count
            isListed = tile.schedule == .lists
            self.heads = heads[index].total
            (keyCost, pairCost, fixedCost) = (tile.keyCost, tile.pairCost, tile.fixedCost)
            restartCost = Float64(heads[index].count - 1) * Float64(tile.fixedCost)
        }

        /// The rows that whole tiles leave over, where those are better the first than the last: then it is the tile with the fewest keys that
        /// is not full, and not the one with the most.
        ///
        /// All other tiles see fewer keys by what the first one lacks, and are worth as much less where that is whole steps of the places in a stage at
        /// which tiles end: of 192 rows and stages of 128 keys, 64. Else their last stages are asked for some keys only.
        private static func firstRows(of rows: Int, _ tile: KernelTraits.Tile, group: Int) -> Int {
            let rest = rows % tile.queryRows
            guard rows > tile.queryRows, rest > 0, let stageKeys = tile.stageKeys, tile.schedule == .queue else {
                return min(rows, tile.queryRows)
            }
            var (step, remainder) = (tile.queryRows, stageKeys * group)
            while remainder > 0 { (step, remainder) = (remainder, step % remainder) }
            return (rest + step - 1) / step * step < tile.queryRows ? rest : tile.queryRows
        }
    }
}
