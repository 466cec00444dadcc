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
    func item(keys: Range<Int>, partialRow: Int, merge: Int) -> WorkItem {
        WorkItem(
            request: Int32(request), tile: Int32(tile), headStart: Int32(headStart), headCount: Int32(headCount),
            rowStart: Int32(rowStart), rowCount: Int32(rowCount), keyStart: Int32(keys.lowerBound),
            keyCount: Int32(keys.count), partialRow: Int32(truncatingIfNeeded: partialRow),
            merge: Int32(truncatingIfNeeded: merge))
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
        forEachRequest(traits) { request, rows, index, tile in
            let headStep = min(tile.kvHeads, shape.kvHeads)
            if rows <= tile.queryRows, shape.kvHeads % headStep == 0 {
                // Decode: the heads' tiles differ in their number alone.
                var work = tileWork(request, index, tile, rows: 0..<rows, heads: 0..<headStep)
                while work.headStart < shape.kvHeads {
                    body(work)
                    work.headStart += headStep
                }
                return
            }
            for headStart in stride(from: 0, to: shape.kvHeads, by: headStep) {
                let headCount = min(headStep, shape.kvHeads - headStart)
                for rowStart in stride(from: 0, to: rows, by: tile.queryRows) {
                    body(
                        tileWork(
                            request, index, tile, rows: rowStart..<min(rowStart + tile.queryRows, rows),
                            heads: headStart..<headStart + headCount))
                }
            }
        }
    }

    /// The cost of all tiles, uncut: heads differ in nothing but their number, so only rows are walked.
    func totalCost(_ traits: KernelTraits) -> Float64 {
        var sum: Float64 = 0
        forEachRequest(traits) { request, rows, index, tile in
            let headStep = min(tile.kvHeads, shape.kvHeads)
            let (whole, rest) = shape.kvHeads.quotientAndRemainder(dividingBy: headStep)
            for rowStart in stride(from: 0, to: rows, by: tile.queryRows) {
                let range = rowStart..<min(rowStart + tile.queryRows, rows)
                sum += Float64(whole) * Float64(tileWork(request, index, tile, rows: range, heads: 0..<headStep).cost)
                if rest > 0 { sum += Float64(tileWork(request, index, tile, rows: range, heads: 0..<rest).cost) }
            }
        }
        return sum
    }

    @inline(__always)
    private func forEachRequest(
        _ traits: KernelTraits, _ body: (_ request: Int, _ rows: Int, _ index: Int, _ tile: KernelTraits.Tile) -> Void
    ) {
        for request in 0..<geometry.requestCount {
            let rows = geometry.queryLength(request) * shape.group
            if rows == 0 { continue }
            let index = traits.tileIndex(rows: rows)
            body(request, rows, index, traits.tiles[index])
        }
    }

    @inline(__always)
    private func tileWork(
        _ request: Int, _ index: Int, _ tile: KernelTraits.Tile, rows: Range<Int>, heads: Range<Int>
    ) -> TileWork {
        let keys = visibleKeys(
            request, queries: rows.lowerBound / shape.group..<(rows.upperBound - 1) / shape.group + 1)
        return TileWork(
            request: request, tile: index, headStart: heads.lowerBound, headCount: heads.count,
            rowStart: rows.lowerBound, rowCount: rows.count, keyStart: keys.lowerBound, keyEnd: keys.upperBound,
            keyCost: Float(heads.count) * (tile.keyCost + Float(rows.count) * tile.pairCost),
            fixedCost: tile.fixedCost)
    }

    /// A range that holds every key that any of `queries` (rows of request `request`) can see; empty where they see none.
    @inline(__always)
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
