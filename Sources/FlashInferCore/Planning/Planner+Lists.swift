extension Planner {
    /// Puts the listed items, in order, on the workers: each worker gets neighbours.
    static func emitLists<Sink: WorkSink>(
        _ survey: Survey, _ traits: KernelTraits, _ workers: Int, _ mode: Mode, into sink: inout Sink
    ) {
        if !survey.lists.isEmpty {
            switch mode {
            case .balanced:
                let cutter = LevelCutter(survey, traits, workers)
                if let placement = cutter.placement(survey, workers) {
                    emit(survey, placement, into: &sink) { cutter.cuts($0, heads: $1) }
                } else {
                    emitStreamK(survey, traits, workers, into: &sink)
                }
            case .batchInvariant(let size):
                let placement = Placement(survey, workers) { tile, _ in KeyCuts(tile, every: size) }
                emit(survey, placement, into: &sink) { tile, _ in KeyCuts(tile, every: size) }
            case .unsplit:
                let placement = Placement(survey, workers) { tile, _ in KeyCuts(whole: tile) }
                emit(survey, placement, into: &sink) { tile, _ in KeyCuts(whole: tile) }
            }
        }
        sink.advance(to: workers)
    }

    @inline(__always)
    private static func emit<Sink: WorkSink>(
        _ survey: Survey, _ placement: Placement, into sink: inout Sink, cuts: (RowTile, Int) -> KeyCuts
    ) {
        var placement = placement
        survey.forEachListed { tile, heads in
            let cuts = cuts(tile, heads.count)
            let cost = Placement.partCost(tile, heads: heads.count, cuts)
            sink.add(tile, heads: heads, cuts) { _ in placement.next(cost) }
        }
    }
}

extension Survey {
    /// Calls `body` with every listed item, uncut: request by request, heads outside, rows inside.
    @inline(__always)
    func forEachListed(_ body: (_ tile: RowTile, _ heads: Range<Int>) -> Void) {
        let tiles = lists.span
        var first = 0
        while first < tiles.count {
            let tile = tiles[first]
            let steps = heads[Int(tile.tile)]
            var end = first + 1
            while end < tiles.count, tiles[end].request == tile.request { end += 1 }
            for step in 0..<steps.count {
                let heads = steps.heads(step)
                for index in first..<end { body(tiles[index], heads) }
            }
            first = end
        }
    }
}

/// Which worker the next item goes to, for items that are cut already.
///
/// Where there are no more items than workers, each has a worker of its own, from the first on: a GPU starts its thread blocks
/// on different processors first, so this spreads them widest. Else the worker in whose equal share of the cost an item's
/// middle falls, so a worker's load is off the mean by one item at most, and nothing has to be searched.
struct Placement {
    private var position: Float64 = 0
    private let perCost: Float64
    private let last: Int
    /// Whether each item has a worker of its own; `position` then counts items.
    private let isOneEach: Bool

    init(parts: Int, cost: Float64, workers: Int) {
        isOneEach = parts <= workers
        perCost = cost > 0 ? Float64(workers) / cost : 0
        last = workers - 1
    }

    /// The placement of `survey`'s items when they are cut by `cuts`.
    @inline(__always)
    init(_ survey: Survey, _ workers: Int, cuts: (RowTile, Int) -> KeyCuts) {
        var parts = 0
        var cost: Float64 = 0
        survey.forEachListed { tile, heads in
            let cuts = cuts(tile, heads.count)
            parts += cuts.count
            cost += Float64(cuts.count) * Float64(Self.partCost(tile, heads: heads.count, cuts))
        }
        self.init(parts: parts, cost: cost, workers: workers)
    }

    /// The worker for an item of this cost.
    @inline(__always)
    mutating func next(_ cost: Float) -> Int {
        if isOneEach {
            position += 1
            return Int(position) - 1
        }
        let middle = position + 0.5 * Float64(cost)
        position += Float64(cost)
        return min(Int(middle * perCost), last)
    }

    /// The cost of a part, all parts of a tile taken as equal.
    @inline(__always)
    static func partCost(_ tile: RowTile, heads: Int, _ cuts: KeyCuts) -> Float {
        if cuts.count == 1 { return tile.cost(heads: heads) }
        return tile.fixedCost + (tile.cost(heads: heads) - tile.fixedCost) / Float(cuts.count)
    }
}
