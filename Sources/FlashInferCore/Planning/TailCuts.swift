/// Which items of a queue are cut, and how: those that would end after all others, where there are too few to go round.
///
/// The queue is run in thought, each item by the worker that is free first. From the first item on that ends more than 1/20
/// after the mean load, items are cut into parts of at most some cost, and that cost is the one of a few for which the queue then
/// ends earliest. With many items a worker nothing ends late, and nothing is cut.
struct TailCuts {
    /// The first entry that is cut.
    private var first: Int
    /// The most that the keys of a part cost.
    private var partCost: Float
    /// Heads of an item.
    private let heads: Int

    /// No cuts.
    static var none: TailCuts { TailCuts(first: .max, partCost: .infinity, heads: 1) }

    /// Whether nothing is cut.
    var isNone: Bool { first == .max }

    private init(first: Int, partCost: Float, heads: Int) {
        (self.first, self.partCost, self.heads) = (first, partCost, heads)
    }

    /// Partial states of a queue for each worker, at most: what the capacity of plans promises.
    static let partsPerWorker = 3

    /// Items for each worker from which on nothing but a last round of equal items is cut: an uneven end is then short beside the whole.
    private static let manyItems = 8

    /// Rounds of equal items from which on the last one is short beside the whole.
    private static let manyRounds = 64

    /// Parts of an item of a last round, at most: they are merged by one block.
    private static let mostParts = 8

    /// Ticks of the longest item of a queue of many.
    private static let itemTicks = 128

    /// Whether a queue of so many items is not run in thought.
    static func isLongEnough(_ items: Int, _ workers: Int) -> Bool { items >= manyItems * workers }

    /// The cuts of a queue; where some heads of an entry are cut, those become one of their own.
    init(_ queue: inout WorkQueue, _ survey: Survey, _ traits: KernelTraits, _ workers: Int) {
        self.init(first: .max, partCost: .infinity, heads: queue.heads.step)
        if queue.count == 0 { return }
        if Self.isLongEnough(queue.count, workers) {
            if survey.sharedColumns == nil { cutLastRound(of: &queue, survey, traits, workers) }
            return
        }
        let total = queue.entries.reduce(Float64(0)) { $0 + Float64($1.count) * Float64($1.cost) }
        guard total > 0 else { return }
        let scale = Float(Float64(Clock.resolution * workers) / total)
        let late = Clock.resolution + Clock.resolution / 20
        var clock = Clock(workers: workers, ticks: 4 * Clock.resolution)
        var before = clock
        var tail: Int?
        for (place, entry) in queue.entries.enumerated() {
            if tail == nil { before = clock }
            clock.run(entry.count, cost: entry.cost * scale)
            if tail == nil, clock.end > late { tail = place }
        }
        guard let tail else { return }
        // Among cuts that end equally early, fewer parts are better; a gain below 1/20 is not worth the merges.
        var best = clock.end - clock.end / 20
        let longest = queue.entries[tail].cost
        let least = max(Int((longest * scale / Float(Clock.resolution)).rounded(.up)), 2)
        // Rounded down, too: 16 items for 132 workers are best in 8 parts each, not in 9.
        for parts in max(least - 1, 2)..<least + 5 {
            let candidate = TailCuts(first: tail, partCost: longest / Float(parts) * (1 + 1 / 1024), heads: heads)
            var trial = before
            guard candidate.run(queue, survey, traits, workers, on: &trial, scale: scale) != nil else { break }
            if trial.end < best {
                best = trial.end
                self = candidate
            }
            if best <= late { break }
        }
    }

    /// Cuts what items of nearly equal cost leave over for a last round: 4,096 are 31 for each of 132 workers and 4 more, for which all others would
    /// wait as long as for an item each. Where short items are among long ones, they level the end by themselves.
    ///
    /// Workers that are not equally fast (``KernelTraits/paceSpread``) come to a last round one after another, so a whole item in it costs less than an
    /// item's time; its parts cost their starts and a merge, which one worker does alone when the last part is done.
    private mutating func cutLastRound(
        of queue: inout WorkQueue, _ survey: Survey, _ traits: KernelTraits, _ workers: Int
    ) {
        let longest = queue.entries.reduce(0) { max($0, $1.cost) }
        guard queue.count < Self.manyRounds * workers, queue.entries.allSatisfy({ 2 * $0.cost >= longest }) else {
            return
        }
        let total = queue.entries.reduce(Float64(0)) { $0 + Float64($1.count) * Float64($1.cost) }
        let scale = Float(Self.itemTicks) / longest
        let mean = Float(total / Float64(workers)) * scale
        let spread = Int(traits.paceSpread * mean)
        // The slowest worker's last item, in a schedule that is level but for that, ends no later.
        let late = Int(mean.rounded(.up)) + spread
        var level = Clock(workers: workers, ticks: late + 4 * Self.itemTicks, spread: spread)
        var left = queue.count
        for entry in queue.entries {
            let count = level.run(entry.count, cost: entry.cost * scale, until: late)
            left -= count
            if count < entry.count { break }
        }
        if left == 0 { return }
        let firstLate = queue.separate(last: left)
        var uncut = level
        for entry in queue.entries[firstLate...] { uncut.run(entry.count, cost: entry.cost * scale) }
        // Gains below 1/256 are within what clocks differ by.
        var best = (end: Float(uncut.end) - mean / 256, parts: Float.infinity)
        guard Float(level.end) < best.end else { return }
        let tile = survey.queued[queue.entries[firstLate].rowTiles.lowerBound]
        let merge = traits.mergeTime * Float(tile.rowCount) / traits.tiles[Int(tile.tile)].unitTime * scale
        for parts in 2...Self.mostParts {
            let candidate = TailCuts(
                first: firstLate, partCost: (longest - tile.fixedCost) / Float(parts) * (1 + 1 / 1024), heads: heads)
            var trial = level
            trial.end = 0
            guard candidate.run(queue, survey, traits, workers, on: &trial, scale: scale) != nil else { break }
            // Of cuts that end no later than the slowest worker does anyway, the one whose parts are merged first.
            let merged = Float(trial.end) + Float(parts) * merge
            let end = max(Float(level.end), merged)
            if (end, merged) < best { (best, self) = ((end, merged), candidate) }
        }
    }

    /// Runs the queue from the first cut entry on, in thought, and returns how many parts there are; `nil` where they are too many.
    private func run(
        _ queue: WorkQueue, _ survey: Survey, _ traits: KernelTraits, _ workers: Int, on clock: inout Clock,
        scale: Float
    ) -> Int? {
        var partials = 0
        for place in first..<queue.entries.count {
            let entry = queue.entries[place]
            for rowTile in entry.rowTiles {
                let tile = survey.queued[rowTile]
                let cuts = cuts(tile, at: place, traits)
                let cost =
                    cuts.count == 1
                    ? entry.cost : tile.fixedCost + Float(cuts.longest) * (Float(heads) * tile.keyCost)
                if cuts.count > 1 { partials += entry.steps.count * cuts.count }
                if partials > Self.partsPerWorker * workers { return nil }
                clock.run(entry.steps.count * cuts.count, cost: cost * scale)
            }
        }
        return partials
    }

    /// How the tile of entry `place` is cut.
    @inline(__always)
    func cuts(_ tile: RowTile, at place: Int, _ traits: KernelTraits) -> KeyCuts {
        let keys = tile.cost(heads: heads) - tile.fixedCost
        if place < first || keys <= partCost { return KeyCuts(whole: tile) }
        return KeyCuts(tile, parts: Int(min((keys / partCost).rounded(.up), Float(tile.keyCount))), traits)
    }
}

/// When workers that take items from a queue are free, in whole ticks: each pass of the hand is a counting sort.
private struct Clock {
    /// Ticks of the mean load, where the queue is short.
    static let resolution = 1024

    /// How many workers are free at each tick. Later than this no worker is free before all items are taken, or hardly.
    private var free: [Int32]
    private var now = 0
    /// When the last item ends.
    var end = 0

    /// Workers that come one after another, the last at tick `spread`.
    init(workers: Int, ticks: Int, spread: Int = 0) {
        free = [Int32](repeating: 0, count: ticks)
        if spread == 0 {
            free[0] = Int32(workers)
        } else {
            for worker in 0..<workers { free[worker * spread / max(workers - 1, 1)] += 1 }
        }
    }

    /// Runs items of `cost` ticks, `count` of them but for those that would end after tick `limit`, and returns how many.
    @discardableResult
    mutating func run(_ count: Int, cost: Float, until limit: Int = .max) -> Int {
        let ticks = max(Int(min(cost, Float(free.count)).rounded()), 1)
        var left = count
        while left > 0 {
            while now < free.count, free[now] == 0 { now += 1 }
            if now == free.count {
                end = .max
                return count - left
            }
            if now + ticks > limit { break }
            let taken = min(left, Int(free[now]))
            free[now] -= Int32(taken)
            left -= taken
            end = max(end, now + ticks)
            if now + ticks < free.count { free[now + ticks] += Int32(taken) }
        }
        return count - left
    }
}
