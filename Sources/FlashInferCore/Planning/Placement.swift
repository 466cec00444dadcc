/// Which worker the next items go to, for items that are cut already: neighbours stay together.
///
/// Items of equal cost, and items of any cost where there is a worker for each, are shared out by number, the first workers
/// getting one more: a GPU starts its first thread blocks on different processors, so few items spread widest. Other items go to
/// the worker in whose equal share of the cost their middle falls, so a load is off the mean by one item at most, and nothing
/// has to be searched.
struct Placement {
    private let workers: Int
    /// The worker whose turn it is, where items are shared out by number.
    private var worker = 0
    /// Items that it still gets, where they are shared out by number.
    private var room: Int
    private let quotient: Int
    private let remainder: Int
    private let isByNumber: Bool
    /// Cost of the items placed.
    private var position: Float64 = 0
    private let share: Float64
    private let perShare: Float64

    init(_ parts: Parts, workers: Int) {
        self.workers = workers
        isByNumber = parts.count <= workers || parts.areEqual
        (quotient, remainder) = parts.count.quotientAndRemainder(dividingBy: workers)
        room = quotient + (remainder > 0 ? 1 : 0)
        share = parts.cost / Float64(workers)
        perShare = share > 0 ? 1 / share : 0
    }

    /// The most items that a worker gets where items are shared out by number, else `nil`.
    var mostItems: Int? { isByNumber ? quotient + (remainder > 0 ? 1 : 0) : nil }

    /// Items of equal cost.
    struct Row {
        /// The cost of each; all parts of a tile are taken as equal.
        let cost: Float64
        fileprivate let perCost: Float64

        @inline(__always)
        init(_ tile: RowTile, heads: Int, _ cuts: KeyCuts) {
            var cost = Float64(tile.cost(heads: heads))
            if cuts.count > 1 {
                let fixed = Float64(tile.fixedCost)
                cost = fixed + (cost - fixed) / Float64(cuts.count)
            }
            self.cost = cost
            perCost = cost > 0 ? 1 / cost : 0
        }
    }

    /// What is to be placed.
    struct Parts {
        private(set) var count = 0
        private(set) var cost: Float64 = 0
        private var least = Float64.infinity
        private(set) var most: Float64 = 0
        var areEqual: Bool { least == most }

        @inline(__always)
        mutating func add(_ row: Row, count added: Int) {
            count += added
            cost += Float64(added) * row.cost
            least = min(least, row.cost)
            most = max(most, row.cost)
        }
    }

    /// The worker for the next of `count` equal items, and how many of them it gets.
    @inline(__always)
    mutating func next(_ row: Row, upTo count: Int) -> (worker: Int, count: Int) {
        if isByNumber {
            if room == 0 {
                worker += 1
                room = quotient + (worker < remainder ? 1 : 0)
            }
            let taken = min(room, count)
            room -= taken
            return (worker, taken)
        }
        let middle = position + 0.5 * row.cost
        let worker = min(Int(middle * perShare), workers - 1)
        var taken = count
        if worker < workers - 1, count > 1 {
            let room = (Float64(worker + 1) * share - middle) * row.perCost
            taken = min(Int(max(room, 0)) + 1, count)
        }
        position += Float64(taken) * row.cost
        return (worker, taken)
    }
}

extension Survey {
    /// The listed items when they are cut by `cuts`.
    @inline(__always)
    func parts(_ cuts: (RowTile, Int) -> KeyCuts) -> Placement.Parts {
        var parts = Placement.Parts()
        var runs = ListedRuns(self)
        while let run = runs.next() {
            let cuts = cuts(run.tile, run.heads)
            parts.add(Placement.Row(run.tile, heads: run.heads, cuts), count: run.count * cuts.count)
        }
        return parts
    }
}
