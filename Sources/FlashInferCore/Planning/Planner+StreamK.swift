extension Planner {
    /// Gives each worker in turn an equal share of what is left, cutting a tile's keys where a share ends.
    static func emitStreamK<Sink: WorkSink>(
        _ survey: Survey, _ traits: KernelTraits, _ workers: Int, into sink: inout Sink
    ) {
        var share = Share(survey, traits, workers: workers)
        var runs = ListedRuns(survey)
        while let run = runs.next() {
            let tile = run.tile
            let cost = Float64(tile.cost(heads: run.heads))
            let perCost = cost > 0 ? 1 / cost : 0
            let keyCost = Float64(Float(run.heads) * tile.keyCost)
            let price = Share.Price(fixed: Float64(tile.fixedCost), key: keyCost, perKey: 1 / keyCost)
            var index = 0
            while index < run.count {
                // First the items that the worker has room for whole, then the one that it may have room for a part of.
                let whole = share.takeWhole(upTo: run.count - index, cost: cost, perCost: perCost)
                if whole > 0 {
                    sink.advance(to: share.worker)
                    sink.add(tile.item(heads: run.heads(index)), count: whole)
                    index += whole
                    if index == run.count { break }
                }
                emit(tile, run.heads(index), price, &share, into: &sink)
                index += 1
            }
        }
    }

    /// Emits one item, cut where the share ends.
    @inline(__always)
    private static func emit<Sink: WorkSink>(
        _ tile: RowTile, _ heads: Range<Int>, _ price: Share.Price, _ share: inout Share, into sink: inout Sink
    ) {
        let (first, merge, rows) = (sink.partialRows, sink.mergeCount, Int(tile.rowCount) * heads.count)
        let end = Int(tile.keyEnd)
        var (start, parts) = (Int(tile.keyStart), 0)
        while true {
            let count = share.take(end - start, from: start, price)
            sink.advance(to: share.worker)
            if parts == 0, count == end - start {
                sink.add(tile.item(heads: heads))
                return
            }
            let keys = Range(uncheckedBounds: (start, start + count))
            sink.add(tile.item(heads: heads, keys: keys, partialRow: first + parts * rows, merge: merge))
            parts += 1
            start += count
            if start == end { break }
            share.next(startCost: price.fixed)
        }
        sink.reserve(partialRows: parts * rows)
        sink.add(tile.merge(heads: heads, partialRow: first, parts: parts))
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
    /// Whether it has taken nothing yet.
    private var isFresh = true
    /// Set aside for each worker but the first: the cost of starting the rest of what was cut before it. Were it added to what is
    /// left only when a cut is made, the last workers would pay for the cuts of all: with 400 cuts, 15 % of a share.
    private let reserve: Float64
    /// What it may take beyond its budget: cutting costs more than 1/64 of a share evens out.
    private var slack: Float64
    private let workers: Int
    /// `1 / n` for `n` workers: a division in every share waits for the one before.
    private let perWorkers: [Float64]
    private let granularity: Int
    private let perGranule: Float64
    private let minimumSplit: Int

    init(_ survey: Survey, _ traits: KernelTraits, workers: Int) {
        self.workers = workers
        perWorkers = (0...workers).map { 1 / Float64($0) }
        reserve = Float64(traits.tiles.reduce(0) { $1.schedule == .lists ? max($0, $1.fixedCost) : $0 })
        left = survey.listCost + Float64(workers - 1) * reserve
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
        isFresh = false
        return true
    }

    /// Takes as many of `count` items of this cost as the current worker has room for.
    @inline(__always)
    mutating func takeWhole(upTo count: Int, cost: Float64, perCost: Float64) -> Int {
        if worker == workers - 1 { return count }
        let room = max((budget + slack) * perCost, 0)
        let taken = room < Float64(count) ? Int(room) : count
        budget -= Float64(taken) * cost
        if taken > 0 { isFresh = false }
        return taken
    }

    /// What an item costs: its start, and each key; and how many keys a unit of cost buys.
    struct Price {
        var fixed: Float64
        var key: Float64
        var perKey: Float64
    }

    /// How many of `rest` keys from `start` on the current worker takes; moves on to the next worker first where the current has
    /// too little room to be worth a cut. Where this is not all, ``next(startCost:)`` is to be called after.
    @inline(__always)
    mutating func take(_ rest: Int, from start: Int, _ price: Price) -> Int {
        if takeWhole(price.fixed + Float64(rest) * price.key) { return rest }
        let affordable = max((budget - price.fixed) * price.perKey, 0)
        let count = multiple(near: start, plus: affordable, rest) - start
        if count >= minimumSplit, rest - count >= minimumSplit {
            budget -= price.fixed + Float64(count) * price.key
            return count
        }
        return takeNearest(rest, from: start, price)
    }

    /// As `take`, where the place to cut at leaves a part too short: cuts at the nearest place that does not, or takes nothing,
    /// or all, whichever comes nearest to the share.
    @inline(never)
    private mutating func takeNearest(_ rest: Int, from start: Int, _ price: Price) -> Int {
        while true {
            let cost = price.fixed + Float64(rest) * price.key
            if takeWhole(cost) { return rest }
            let affordable = max((budget - price.fixed) * price.perKey, 0)
            let low = (start + minimumSplit + granularity - 1) / granularity * granularity
            let high = max(start + rest - minimumSplit, 0) / granularity * granularity
            let count = min(max(multiple(near: start, plus: affordable, rest), low), high) - start
            let off = high >= low ? abs(Float64(count) - affordable) * price.key : .infinity
            let over = cost - budget
            if !isFresh, budget <= min(off, over) {
                next(startCost: 0)
            } else if over <= off {
                budget -= cost
                return rest
            } else {
                budget -= price.fixed + Float64(count) * price.key
                return count
            }
        }
    }

    /// The multiple of the granularity nearest to `affordable` of `rest` keys after `start`.
    @inline(__always)
    private func multiple(near start: Int, plus affordable: Float64, _ rest: Int) -> Int {
        Int((Float64(start) + min(affordable, Float64(rest))) * perGranule + 0.5) &* granularity
    }

    /// The next worker's share is an equal part of what is left, so that no over- or underrun adds up. `startCost` is the cost of
    /// starting the rest of a cut item, which comes on top of the item's own, or 0 where nothing was cut.
    @inline(__always)
    mutating func next(startCost: Float64) {
        left -= full - budget
        worker += 1
        full = max(left, 0) * perWorkers[workers - worker]
        budget = full - (reserve - startCost)
        slack = full * (1 / 64)
        isFresh = true
    }
}
