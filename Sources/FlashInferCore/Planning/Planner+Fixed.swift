extension Planner {
    /// Cuts every `splitSize` keys, whatever the batch, and gives each part to the processor with the least to do.
    ///
    /// Cuts fall on multiples of `splitSize` counted from key 0, so they depend on nothing but the request.
    static func emitFixed<Sink: WorkSink>(
        _ problem: AttentionProblem, _ traits: KernelTraits, _ processors: Int, splitSize: Int, into sink: inout Sink
    ) {
        var loads = LoadHeap(count: processors)
        problem.forEachTile(traits) { tile in
            var start = tile.keyStart
            var parts = 0
            let firstRow = sink.partialRows
            repeat {
                let end = splitSize == .max ? tile.keyEnd : min((start / splitSize + 1) * splitSize, tile.keyEnd)
                let isWhole = parts == 0 && end == tile.keyEnd
                sink.add(
                    tile.item(
                        keys: start..<end,
                        partialRow: isWhole ? -1 : firstRow + parts * tile.rowCount * tile.headCount,
                        merge: isWhole ? -1 : sink.mergeCount),
                    processor: loads.takeLeast(adding: tile.fixedCost + Float(end - start) * tile.keyCost))
                if !isWhole { sink.reserve(partialRows: tile.rowCount * tile.headCount) }
                parts += 1
                start = end
            } while start < tile.keyEnd
            if parts > 1 { sink.add(tile.merge(partialRow: firstRow, parts: parts)) }
        }
    }
}

/// The processors by how much they have to do: a binary heap, least first; equal loads by number, so that plans are deterministic.
private struct LoadHeap {
    private var entries: [(load: Float, processor: Int)]

    init(count: Int) { entries = (0..<count).map { (0, $0) } }

    /// The least loaded processor, which takes `cost` more.
    mutating func takeLeast(adding cost: Float) -> Int {
        let processor = entries[0].processor
        entries[0].load += cost
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < entries.count && entries[child] < entries[least]
            {
                least = child
            }
            if least == parent { return processor }
            entries.swapAt(parent, least)
            parent = least
        }
    }
}
