extension Planner {
    /// Gives each processor in turn an equal share of what is left, cutting a tile's keys where a share ends.
    static func emitBalanced<Sink: WorkSink>(
        _ problem: AttentionProblem, _ traits: KernelTraits, _ processors: Int, into sink: inout Sink
    ) {
        var share = Share(processors: processors, left: problem.totalCost(traits))
        problem.forEachTile(traits) { tile in
            var start = tile.keyStart
            var parts = 0
            let firstRow = sink.partialRows
            repeat {
                let rest = tile.keyEnd - start
                let (count, processor) = share.take(rest, of: tile, traits)
                let isWhole = parts == 0 && count == rest
                sink.add(
                    tile.item(
                        keys: start..<start + count,
                        partialRow: isWhole ? -1 : firstRow + parts * tile.rowCount * tile.headCount,
                        merge: isWhole ? -1 : sink.mergeCount),
                    processor: processor)
                if !isWhole { sink.reserve(partialRows: tile.rowCount * tile.headCount) }
                parts += 1
                start += count
            } while start < tile.keyEnd
            if parts > 1 { sink.add(tile.merge(partialRow: firstRow, parts: parts)) }
        }
    }
}

/// What is left to be given out, and to whom.
private struct Share {
    /// The processor whose turn it is.
    private var processor = 0
    /// What it can still take.
    private var budget: Float64
    /// What it was given in the first place.
    private var full: Float64
    /// The cost that no processor has taken yet.
    private var left: Float64
    private let processors: Int

    init(processors: Int, left: Float64) {
        self.processors = processors
        self.left = left
        budget = left / Float64(processors)
        full = budget
    }

    /// How many of `rest` keys go to which processor: the current one, or if that is full, the next.
    mutating func take(_ rest: Int, of tile: TileWork, _ traits: KernelTraits) -> (keys: Int, processor: Int) {
        while true {
            let cost = Float64(tile.fixedCost) + Float64(rest) * Float64(tile.keyCost)
            // A share may be overrun by 1/64: cutting costs more than that evens out.
            if cost <= budget + full / 64 || processor == processors - 1 {
                spend(cost)
                return (rest, processor)
            }
            let affordable = (budget - Float64(tile.fixedCost)) / Float64(tile.keyCost)
            let count = cut(affordable, rest, from: tile.keyEnd - rest, traits)
            if count > 0 {
                spend(Float64(tile.fixedCost) + Float64(count) * Float64(tile.keyCost))
                // The other part starts an item of its own.
                left += Float64(tile.fixedCost)
                defer { next() }
                return (count, processor)
            }
            // Not worth a cut. A tile that is more than half this processor's stays with it, or the shares would drift.
            if budget >= full || cost - budget <= budget {
                spend(cost)
                return (rest, processor)
            }
            next()
        }
    }

    /// The number of keys, up to about `affordable`, after which to cut; 0 where no cut leaves both parts long enough.
    private func cut(_ affordable: Float64, _ rest: Int, from start: Int, _ traits: KernelTraits) -> Int {
        guard affordable >= 1 else { return 0 }
        let wanted = start + Int(min(affordable.rounded(), Float64(rest)))
        let end = (wanted + traits.kvGranularity / 2) / traits.kvGranularity * traits.kvGranularity
        let count = end - start
        return count >= traits.minimumSplit && rest - count >= traits.minimumSplit ? count : 0
    }

    private mutating func spend(_ cost: Float64) {
        budget -= cost
        left -= cost
    }

    /// The next processor's share is an equal part of what is left, so that no over- or underrun adds up.
    private mutating func next() {
        processor += 1
        budget = max(left, 0) / Float64(processors - processor)
        full = budget
    }
}
