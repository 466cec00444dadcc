/// One tile's queue: its row tiles in the order in which thread blocks take them.
///
/// Two things are wanted of the order. Items in flight together should share keys, so that the processors' common cache serves
/// them: so the (request, head) pairs are taken in sections, each with no more keys than that cache holds. And the launch should
/// end evenly: so within a section the longest items come first (LPT, Graham 1969), the requests with the longest items come
/// first, and the last section is two rounds long or more, so that there are short items enough to level what the long ones
/// leave ragged. Where two blocks take items side by side, neighbouring row tiles of a request that begin at the same key come
/// together. Block rows of one matrix read the same columns: they count as one request, so that the heads come one after another.
struct WorkQueue {
    /// A row tile, or a pair of neighbours, for some steps of heads, one after another.
    struct Entry {
        var rowTiles: Range<Int>
        var steps: Range<Int>
        /// Cost of the item of one step; of a pair, of the longer one.
        var cost: Float

        /// Items, uncut.
        var count: Int { rowTiles.count * steps.count }
    }

    private(set) var entries: [Entry] = []
    /// Items, uncut.
    private(set) var count = 0
    let heads: HeadSteps
    /// Where the last section starts: a step of heads where there is one request, the first of whose sections are as long as the first one,
    /// but perhaps for the one before the last.
    private(set) var lastSection = 0

    /// The queue of a tile.
    ///
    /// - Parameter hasFirstSectionOnly: whether entries of later sections are left out, where those are as the first's for other heads.
    init(
        _ survey: Survey, _ traits: KernelTraits, tile: Int, _ workers: Int, hasFirstSectionOnly: Bool = false
    ) {
        heads = survey.heads[tile]
        var requests = Self.requests(survey, tile, heads)
        if requests.isEmpty { return }
        requests.sort {
            $0.longest > $1.longest || ($0.longest == $1.longest && $0.rowTiles.lowerBound < $1.rowTiles.lowerBound)
        }
        count = requests.reduce(0) { $0 + $1.rowTiles.count } * heads.count
        entries.reserveCapacity(count / heads.count + requests.count)
        // Pairs are numbered request by request, and step by step within a request.
        let pairs = requests.count * heads.count
        let isPaired = traits.tiles[tile].isPaired
        let lastStart = firstPair(ofLast: Self.lastRounds * workers, requests)
        var (start, firstEntries) = (0, 0)
        while start < pairs {
            let fitting = sectionEnd(start, requests, traits.cachedKeys)
            let end = fitting >= pairs || start >= lastStart ? pairs : min(fitting, lastStart)
            if requests.count == 1, start > 0 {
                // The same row tiles in the same order.
                for place in 0..<(hasFirstSectionOnly ? 0 : firstEntries) {
                    var entry = entries[place]
                    entry.steps = start..<end
                    entries.append(entry)
                }
            } else {
                appendSection(start..<end, requests, survey, isPaired: isPaired)
            }
            if start == 0 { firstEntries = entries.count }
            lastSection = start
            start = end
        }
    }

    /// Makes the last `items` items, or one more of a pair, entries of their own, and returns the place of the first.
    mutating func separate(last items: Int) -> Int {
        var (place, left) = (entries.count, items)
        while left > 0 {
            place -= 1
            let entry = entries[place]
            let steps = (left + entry.rowTiles.count - 1) / entry.rowTiles.count
            if steps < entry.steps.count {
                let middle = entry.steps.upperBound - steps
                entries[place].steps = entry.steps.lowerBound..<middle
                place += 1
                var last = entry
                last.steps = middle..<entry.steps.upperBound
                entries.insert(last, at: place)
                break
            }
            left -= entry.count
        }
        return place
    }

    /// Items for each worker that the last section has at least.
    private static let lastRounds = 3

    private struct Request {
        /// Its row tiles in the survey; of all block rows, where those share their columns.
        var rowTiles: Range<Int>
        /// Keys of one step's heads, all together.
        var keys: Int
        /// Cost of its longest item.
        var longest: Float
    }

    private static func requests(_ survey: Survey, _ tile: Int, _ heads: HeadSteps) -> [Request] {
        var requests: [Request] = []
        let tiles = survey.queued
        var first = 0
        while first < tiles.count {
            var (end, last, start, longest) = (first, Int32(0), Int32.max, Float(0))
            var keys = 0
            while end < tiles.count,
                survey.sharedColumns == nil
                    ? tiles[end].request == tiles[first].request : tiles[end].tile == tiles[first].tile
            {
                last = max(last, tiles[end].keyEnd)
                start = min(start, tiles[end].keyStart)
                keys += tiles[end].keyCount
                longest = max(longest, tiles[end].cost(heads: heads.step))
                end += 1
            }
            if tiles[first].tile == tile {
                let distinct = survey.sharedColumns.map { min($0, keys) } ?? Int(last) - Int(start)
                requests.append(Request(rowTiles: first..<end, keys: distinct * heads.step, longest: longest))
            }
            first = end
        }
        return requests
    }

    /// The first pair of the shortest end of the queue that has `items` items; 0 where there are not so many.
    private func firstPair(ofLast items: Int, _ requests: [Request]) -> Int {
        var left = items
        for index in requests.indices.reversed() {
            let rowTiles = requests[index].rowTiles.count
            if rowTiles * heads.count >= left {
                return index * heads.count + heads.count - (left + rowTiles - 1) / rowTiles
            }
            left -= rowTiles * heads.count
        }
        return 0
    }

    /// Where a section that begins with pair `start` ends: with the last pair whose keys still fit, or the first.
    private func sectionEnd(_ start: Int, _ requests: [Request], _ cachedKeys: Int) -> Int {
        var (end, room) = (start, cachedKeys)
        while true {
            let (index, step) = end.quotientAndRemainder(dividingBy: heads.count)
            if index == requests.count { break }
            let fitting = requests[index].keys == 0 ? heads.count : max(room, 0) / requests[index].keys
            if fitting < heads.count - step {
                end += fitting
                break
            }
            end += heads.count - step
            room -= (heads.count - step) * requests[index].keys
        }
        return max(end, start + 1)
    }

    /// Adds a section's items, longest first.
    private mutating func appendSection(
        _ pairs: Range<Int>, _ requests: [Request], _ survey: Survey, isPaired: Bool
    ) {
        let first = entries.count
        var isOrdered = true
        var next = pairs.lowerBound
        while next < pairs.upperBound {
            let (index, step) = next.quotientAndRemainder(dividingBy: heads.count)
            let steps = step..<min(heads.count, step + pairs.upperBound - next)
            // Under a causal mask the last rows are the longest.
            let rowTiles = requests[index].rowTiles
            var end = rowTiles.upperBound
            while end > rowTiles.lowerBound {
                var cost = survey.queued[end - 1].cost(heads: heads.step)
                var start = end - 1
                // Block rows that share their columns are requests of their own, and tiles of other documents have other keys.
                if isPaired, start > rowTiles.lowerBound,
                    survey.queued[start].request == survey.queued[start - 1].request,
                    survey.queued[start].keyStart == survey.queued[start - 1].keyStart
                {
                    start -= 1
                    cost = max(cost, survey.queued[start].cost(heads: heads.step))
                }
                if let last = entries.last, entries.count > first, last.cost < cost { isOrdered = false }
                entries.append(Entry(rowTiles: start..<end, steps: steps, cost: cost))
                end = start
            }
            next += steps.count
        }
        if !isOrdered { sort(from: first) }
    }

    /// The places of `keys` by what lies there, ascending; of equal keys in order. Counted, digit by digit, as there are hundreds.
    static func ascending(_ keys: [UInt32]) -> [UInt32] {
        let (bits, digits) = (8, 1 << 8)
        var places = [UInt32](0..<UInt32(keys.count))
        var next = places
        var starts = [UInt32](repeating: 0, count: digits)
        // Digits that all keys share change no order.
        let differing = keys.reduce(0) { $0 | ($1 ^ keys[0]) }
        for shift in stride(from: 0, to: 32, by: bits) where differing >> UInt32(shift) & UInt32(digits - 1) != 0 {
            for digit in 0..<digits { starts[digit] = 0 }
            for key in keys { starts[Int(key >> UInt32(shift)) & (digits - 1)] += 1 }
            var sum: UInt32 = 0
            for digit in 0..<digits {
                let count = starts[digit]
                starts[digit] = sum
                sum += count
            }
            for place in places {
                let digit = Int(keys[Int(place)] >> UInt32(shift)) & (digits - 1)
                next[Int(starts[digit])] = place
                starts[digit] += 1
            }
            swap(&places, &next)
        }
        return places
    }

    /// Sorts the entries from `first` on by cost, falling; equal costs stay in order.
    private mutating func sort(from first: Int) {
        // Positive floats order as their bit patterns do; the place breaks ties, so the order is one and stable.
        let unsorted = Array(entries[first...])
        let costs = unsorted.map { ~$0.cost.bitPattern }
        let places = Self.ascending(costs)
        for (place, from) in places.enumerated() { entries[first + place] = unsorted[Int(from)] }
    }
}
