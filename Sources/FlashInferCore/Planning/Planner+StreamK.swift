extension Planner {
    /// Gives each worker in turn an equal share of what is left, cutting a tile's keys where a share ends.
    static func emitStreamK<Sink: WorkSink>(
        _ survey: Survey, _ traits: KernelTraits, _ workers: Int, into sink: inout Sink
    ) {
        var share = Share(workers: workers, left: survey.listCost, traits)
        survey.forEachListed { tile, heads in
            let cost = Float64(tile.cost(heads: heads.count))
            if share.takeWhole(cost) {
                sink.advance(to: share.worker)
                sink.add(
                    tile.item(heads: heads, keys: Int(tile.keyStart)..<Int(tile.keyEnd), partialRow: -1, merge: -1))
                return
            }
            let keyCost = Float64(Float(heads.count) * tile.keyCost)
            let (first, merge, rows) = (sink.partialRows, sink.mergeCount, Int(tile.rowCount) * heads.count)
            var (start, end, parts) = (Int(tile.keyStart), Int(tile.keyEnd), 0)
            while start < end || parts == 0 {
                let count = share.take(end - start, from: start, fixedCost: Float64(tile.fixedCost), keyCost: keyCost)
                let isWhole = parts == 0 && count == end - start
                sink.advance(to: share.worker)
                sink.add(
                    tile.item(
                        heads: heads, keys: start..<start + count, partialRow: isWhole ? -1 : first + parts * rows,
                        merge: isWhole ? -1 : merge))
                if isWhole { return }
                parts += 1
                start += count
                if start < end { share.next() }
            }
            sink.reserve(partialRows: parts * rows)
            sink.add(tile.merge(heads: heads, partialRow: first, parts: parts))
        }
    }
}

/// What is left to be given out, and to whom.
private struct Share {
    /// The worker whose turn it is.
    private(set) var worker = 0
    /// What it can still take.
    private var budget: Float64
    /// What it was given in the first place.
    private var full: Float64
    /// The cost that was left when its turn came.
    private var left: Float64
    /// What it may take beyond its budget: cutting costs more than 1/64 of a share evens out.
    private var slack: Float64
    private let workers: Int
    private let granularity: Int
    private let perGranule: Float64
    private let minimumSplit: Int

    init(workers: Int, left: Float64, _ traits: KernelTraits) {
        self.workers = workers
        self.left = left
        granularity = traits.kvGranularity
        perGranule = 1 / Float64(traits.kvGranularity)
        minimumSplit = traits.minimumSplit
        full = left / Float64(workers)
        budget = full
        slack = full * (1 / 64)
    }

    /// Takes an item of this cost for the current worker if it has room for all of it.
    @inline(__always)
    mutating func takeWhole(_ cost: Float64) -> Bool {
        guard cost <= budget + slack || worker == workers - 1 else { return false }
        budget -= cost
        return true
    }

    /// How many of `rest` keys from `start` on the current worker takes; moves on to the next worker first where the current has
    /// too little room to be worth a cut. Where this is not all, ``next()`` is to be called after.
    mutating func take(_ rest: Int, from start: Int, fixedCost: Float64, keyCost: Float64) -> Int {
        while true {
            let cost = fixedCost + Float64(rest) * keyCost
            if takeWhole(cost) { return rest }
            // Cut where the share ends; where that leaves a part too short, at the nearest place that does not. Nothing, or
            // all, may be nearer still.
            let affordable = max((budget - fixedCost) / keyCost, 0)
            let count = cut(affordable, rest, from: start)
            let off = count > 0 ? abs(Float64(count) - affordable) * keyCost : .infinity
            let over = cost - budget
            if budget < full, budget <= min(off, over) {
                next()
            } else if over <= off {
                budget -= cost
                return rest
            } else {
                budget -= fixedCost + Float64(count) * keyCost
                // The other part starts an item of its own.
                left += fixedCost
                return count
            }
        }
    }

    /// The number of keys nearest to `affordable` after which to cut; 0 where no cut leaves both parts long enough.
    private func cut(_ affordable: Float64, _ rest: Int, from start: Int) -> Int {
        // Half a key more makes the product's rounding harmless: this is keys / granularity, without a division.
        func units(_ keys: Int) -> Int { Int((Float64(keys) + 0.5) * perGranule) }
        if rest < minimumSplit { return 0 }
        // Multiples of the granularity between which both parts are long enough.
        let low = units(start + minimumSplit + granularity - 1) * granularity
        let high = units(start + rest - minimumSplit) * granularity
        if high < low { return 0 }
        let wanted = Int((Float64(start) + min(affordable, Float64(rest))) * perGranule + 0.5) * granularity
        return min(max(wanted, low), high) - start
    }

    /// The next worker's share is an equal part of what is left, so that no over- or underrun adds up.
    @inline(__always)
    mutating func next() {
        left -= full - budget
        worker += 1
        full = max(left, 0) / Float64(workers - worker)
        budget = full
        slack = full * (1 / 64)
    }
}
