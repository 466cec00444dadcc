extension Planner {
    /// Lays all tiles end to end, cuts that line in equal shares, one a worker, and a tile's keys where a share ends (Stream-K,
    /// arXiv 2301.03598).
    ///
    /// A share's end does not depend on how those before were rounded. So roundings do not add up, and a processor computes many
    /// ends at a time: one after another, each waited 100 cycles for the last.
    static func emitStreamK<Sink: WorkSink>(
        _ survey: Survey, _ traits: KernelTraits, _ workers: Int, into sink: inout Sink
    ) {
        let shares = Shares(survey, traits, workers)
        let cutter = ShareCutter(traits, shares)
        var worker = 0
        var shareEnd = shares.end(of: 0)
        var position: Float64 = 0
        var runs = ListedRuns(survey)
        while let run = runs.next() {
            var tile = CutTile(run)
            let price = ShareCutter.Price(run)
            let cost = Float64(run.tile.cost(heads: run.heads))
            let perCost = cost > 0 ? 1 / cost : 0
            let end = position + Float64(run.count) * cost
            while worker < workers - 1, shareEnd < end {
                let offset = shareEnd - position
                let step = min(Int(offset * perCost), run.count - 1)
                if step >= tile.step {
                    tile.emitAll(before: step, into: &sink)
                    let affordable = offset - Float64(step) * cost - price.fixed
                    let key = cutter.place(affordable, in: tile.start, tile.end, from: tile.firstKey, price)
                    tile.emit(before: key, into: &sink)
                }
                worker &+= 1
                sink.advance(to: worker)
                shareEnd = shares.end(of: worker)
            }
            tile.emitAll(before: run.count, into: &sink)
            position = end
        }
    }
}

/// The items of a run as they are emitted: those before `step` are, and of `step` the keys before `start`.
private struct CutTile {
    private let run: ListedRun
    private(set) var step = 0
    private(set) var start: Int
    private var parts = 0
    private var merge = 0
    private var firstRow = 0
    let firstKey: Int
    let end: Int

    @inline(__always)
    init(_ run: ListedRun) {
        self.run = run
        (firstKey, end) = (Int(run.tile.keyStart), Int(run.tile.keyEnd))
        start = firstKey
    }

    /// Emits all that is left of the items before `other`.
    @inline(__always)
    mutating func emitAll<Sink: WorkSink>(before other: Int, into sink: inout Sink) {
        if other <= step { return }
        if parts > 0 { emit(before: end, into: &sink) }
        if other > step {
            sink.add(run.tile.item(heads: run.heads(step)), count: other &- step)
            step = other
        }
    }

    /// Emits the keys before `key` of the current item, which is next then if that is all of them.
    @inline(__always)
    mutating func emit<Sink: WorkSink>(before key: Int, into sink: inout Sink) {
        let heads = run.heads(step)
        if parts == 0 {
            if key == end {
                sink.add(run.tile.item(heads: heads))
                step &+= 1
                return
            }
            (merge, firstRow) = (sink.mergeCount, sink.partialRows)
        }
        if key == start { return }
        let rows = Int(run.tile.rowCount) &* heads.count
        let keys = Range(uncheckedBounds: (start, key))
        sink.add(run.tile.item(heads: heads, keys: keys, partialRow: firstRow &+ parts &* rows, merge: merge))
        parts &+= 1
        start = key
        if key == end {
            sink.reserve(partialRows: parts &* rows)
            sink.add(run.tile.merge(heads: heads, partialRow: firstRow, parts: parts))
            step &+= 1
            (parts, start) = (0, firstKey)
        }
    }
}

/// Where each worker's share of the line of all tiles ends.
private struct Shares {
    /// What each worker does.
    let size: Float64
    /// Set aside for each worker but the first: the cost of starting the rest of what was cut before it.
    private let restart: Float64

    init(_ survey: Survey, _ traits: KernelTraits, _ workers: Int) {
        restart = Float64(traits.tiles.reduce(0) { $1.schedule == .lists ? max($0, $1.fixedCost) : $0 })
        size = (survey.listCost + Float64(workers - 1) * restart) / Float64(workers)
    }

    @inline(__always)
    func end(of worker: Int) -> Float64 { Float64(worker + 1) * size - Float64(worker) * restart }
}

/// Where a tile is cut whose keys a share's end falls among.
private struct ShareCutter {
    private let granularity: Int
    private let perGranule: Float64
    private let minimumSplit: Int
    /// A share may be off by this: a cut costs more than it evens out.
    private let slack: Float64

    init(_ traits: KernelTraits, _ shares: Shares) {
        granularity = traits.kvGranularity
        perGranule = 1 / Float64(traits.kvGranularity)
        minimumSplit = traits.minimumSplit
        slack = shares.size / 64
    }

    /// What an item costs: its start, and each key; and how many keys a unit of cost buys.
    struct Price {
        let fixed: Float64
        let key: Float64
        let perKey: Float64

        @inline(__always)
        init(_ run: ListedRun) {
            fixed = Float64(run.tile.fixedCost)
            key = Float64(Float(run.heads) * run.tile.keyCost)
            perKey = 1 / key
        }
    }

    /// The key before which to cut when the share has `affordable` left for keys from `first` on, of which those before `start`
    /// are gone: `start` where the share gets none of the rest, `end` where it gets all.
    @inline(__always)
    func place(
        _ affordable: Float64, in start: Int, _ end: Int, from first: Int, _ price: Price
    ) -> Int {
        let wanted = Float64(first) + min(max(affordable * price.perKey, 0), Float64(end &- first))
        let key = Int(wanted * perGranule + 0.5) &* granularity
        let (before, after) = (key &- start, end &- key)
        if min(before, after) >= minimumSplit, Float64(min(before, after)) * price.key > slack { return key }
        return nearest(wanted, start, end, price)
    }

    /// The nearest place to `wanted` that leaves both parts long enough, or either end of the rest, if that is nearer or a cut is
    /// not worth its cost.
    @inline(never)
    private func nearest(_ wanted: Float64, _ start: Int, _ end: Int, _ price: Price) -> Int {
        func off(_ key: Int) -> Float64 { abs(Float64(key) - wanted) * price.key }
        let side = off(start) < off(end) ? start : end
        if off(side) <= slack { return side }
        let low = (start + minimumSplit + granularity - 1) / granularity * granularity
        let high = max(end - minimumSplit, 0) / granularity * granularity
        if high < low { return side }
        let key = min(max(Int(wanted * perGranule + 0.5) * granularity, low), high)
        return off(key) < off(side) ? key : side
    }
}
