/// One tile of packed query rows with the keys that any of its rows can see.
struct TileWork {
    var request: Int
    var tile: Int
    var headStart: Int
    var headCount: Int
    var rowStart: Int
    var rowCount: Int
    var keyStart: Int
    var keyEnd: Int
    /// Cost of one key of this tile.
    var keyCost: Float
    /// Cost of starting an item of this tile.
    var fixedCost: Float

    var keyCount: Int { keyEnd - keyStart }
    var cost: Float { fixedCost + Float(keyCount) * keyCost }

    /// The item for part of the keys.
    func item(keys: Range<Int>, partialRow: Int) -> WorkItem {
        WorkItem(
            request: Int32(request), tile: Int32(tile), headStart: Int32(headStart), headCount: Int32(headCount),
            rowStart: Int32(rowStart), rowCount: Int32(rowCount), keyStart: Int32(keys.lowerBound),
            keyCount: Int32(keys.count), partialRow: Int32(truncatingIfNeeded: partialRow))
    }

    /// The merge of `parts` partial states.
    func merge(partialRow: Int, parts: Int) -> MergeItem {
        MergeItem(
            request: Int32(request), headStart: Int32(headStart), headCount: Int32(headCount),
            rowStart: Int32(rowStart),
            rowCount: Int32(rowCount), partialRow: Int32(truncatingIfNeeded: partialRow), partCount: Int32(parts))
    }
}

extension AttentionProblem {
    /// Calls `body` with every tile: request by request, heads outside, rows inside.
    @inline(__always)
    func forEachTile(_ traits: KernelTraits, _ body: (TileWork) -> Void) {
        let group = shape.group
        for request in 0..<geometry.requestCount {
            let rows = geometry.queryLength(request) * group
            if rows == 0 { continue }
            let index = traits.tileIndex(rows: rows)
            let tile = traits.tiles[index]
            let headStep = min(tile.kvHeads, shape.kvHeads)
            for headStart in stride(from: 0, to: shape.kvHeads, by: headStep) {
                let headCount = min(headStep, shape.kvHeads - headStart)
                for rowStart in stride(from: 0, to: rows, by: tile.queryRows) {
                    let rowCount = min(tile.queryRows, rows - rowStart)
                    let keys = visibleKeys(
                        request, queries: rowStart / group..<(rowStart + rowCount - 1) / group + 1)
                    body(
                        TileWork(
                            request: request, tile: index, headStart: headStart, headCount: headCount,
                            rowStart: rowStart, rowCount: rowCount, keyStart: keys.lowerBound, keyEnd: keys.upperBound,
                            keyCost: Float(headCount) * (tile.keyCost + Float(rowCount) * tile.pairCost),
                            fixedCost: tile.fixedCost))
                }
            }
        }
    }

    /// A range that holds every key that any of `queries` (rows of request `request`) can see; empty where they see none.
    package func visibleKeys(_ request: Int, queries: Range<Int>) -> Range<Int> {
        let keys = geometry.kvLength(request)
        // With keys at their matrix columns, positions are not in the order of the list: masks then hide, but skip nothing.
        guard geometry.blocks.keyPositions == .sequential else { return 0..<keys }
        let offset = keys - geometry.queryLength(request)
        var end = keys
        if variant.mask == .causal { end = min(max(queries.upperBound + offset, 0), keys) }
        var start = 0
        if let window = variant.windowLeft {
            // Both terms fit in 32 bits but a window may be as large as Int.max.
            start = min(max((queries.lowerBound + offset).subtractingReportingOverflow(window).partialValue, 0), keys)
            if window > keys { start = 0 }
        }
        return min(start, end)..<end
    }
}
