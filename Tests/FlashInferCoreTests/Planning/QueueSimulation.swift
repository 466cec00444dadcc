import FlashInferCore

/// A queue run in thought: each item goes, in order, to the thread block that is free first, as a GPU starts blocks.
struct QueueSimulation {
    /// When the last item ends, in units of cost.
    private(set) var makespan: Float64 = 0
    /// The cost of all items over the workers: no order is faster.
    private(set) var ideal: Float64 = 0
    /// (request, head) pairs with an item running, averaged over the starts of items.
    private(set) var pairsInFlight: Float64 = 0
    /// Keys of those pairs that running items read.
    private(set) var keysInFlight: Float64 = 0

    init(_ items: [WorkItem], _ traits: KernelTraits, workers: Int) {
        struct Pair: Hashable { var request, head: Int32 }
        var free = [(time: Float64, item: Int)](repeating: (0, -1), count: workers)
        var running: [Pair: (count: Int, keys: Int32)] = [:]
        var keys = 0
        for (index, item) in items.enumerated() {
            // A plain search: the fewer the cleverer an oracle is.
            let next = free.indices.min { free[$0].time < free[$1].time }!
            if free[next].item >= 0 {
                let pair = Pair(request: items[free[next].item].request, head: items[free[next].item].headStart)
                running[pair]!.count -= 1
                if running[pair]!.count == 0 {
                    keys -= Int(running[pair]!.keys)
                    running[pair] = nil
                }
            }
            let pair = Pair(request: item.request, head: item.headStart)
            let old = running[pair, default: (0, 0)]
            let longest = max(old.keys, item.keyStart + item.keyCount)
            running[pair] = (old.count + 1, longest)
            keys += Int(longest - old.keys)
            let cost = Float64(traits.cost(item))
            free[next] = (free[next].time + cost, index)
            makespan = max(makespan, free[next].time)
            ideal += cost / Float64(workers)
            pairsInFlight += Float64(running.count) / Float64(items.count)
            keysInFlight += Float64(keys) / Float64(items.count)
        }
    }
}

extension KernelTraits {
    /// The cost of an item.
    func cost(_ item: WorkItem) -> Float {
        let tile = tiles[Int(item.tile)]
        return tile.fixedCost + Float(item.headCount) * Float(item.keyCount)
            * (tile.keyCost + Float(item.rowCount) * tile.pairCost)
    }
}

/// Orders of uncut items to compare the planner's with.
enum QueueOrder: CaseIterable {
    /// Request by request, head by head, longest rows first.
    case headByHead
    /// As `headByHead`, with the rows in turn from the long and from the short end.
    case interleaved
    /// The longest items of all first.
    case longestFirst

    func sorted(_ items: [WorkItem], _ traits: KernelTraits) -> [WorkItem] {
        switch self {
        case .headByHead:
            return items.sorted { ($0.request, $0.headStart, -$0.rowStart) < ($1.request, $1.headStart, -$1.rowStart) }
        case .interleaved:
            var result: [WorkItem] = []
            var rest = QueueOrder.headByHead.sorted(items, traits)[...]
            while let first = rest.first {
                var pair = rest.prefix { $0.request == first.request && $0.headStart == first.headStart }
                rest = rest.dropFirst(pair.count)
                while let long = pair.popFirst() {
                    result.append(long)
                    if let short = pair.popLast() { result.append(short) }
                }
            }
            return result
        case .longestFirst:
            return items.enumerated().sorted {
                (-traits.cost($0.element), $0.offset) < (-traits.cost($1.element), $1.offset)
            }.map(\.element)
        }
    }
}
