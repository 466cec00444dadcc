import FlashInferCore
import TestSupport
import Testing

/// A batch for planning tests.
struct PlanCase: Sendable, CustomTestStringConvertible {
    var name: String
    var queries: [Int]
    var keys: [Int]
    var variant = AttentionVariant.causal
    var shape = (queryHeads: 32, kvHeads: 8)

    var testDescription: String { name }

    func problem() throws -> AttentionProblem {
        func indptr(_ lengths: [Int]) -> [Int32] { lengths.reduce(into: [0]) { $0.append($0.last! + Int32($1)) } }
        return try AttentionProblem(
            geometry: .ragged(queryIndptr: indptr(queries), kvIndptr: indptr(keys)),
            shape: AttentionShape(queryHeads: shape.queryHeads, kvHeads: shape.kvHeads, headDimQK: 128),
            variant: variant, queryType: .bfloat16, kvType: .bfloat16)
    }

    static let skewed = PlanCase(
        name: "one 128k among 63 x 512", queries: .init(repeating: 1, count: 64),
        keys: [131_072] + .init(repeating: 512, count: 63))
    static let uniform = PlanCase(
        name: "64 x 2048", queries: .init(repeating: 1, count: 64), keys: .init(repeating: 2048, count: 64))
    static let zipf = PlanCase(
        name: "Zipf, 256 requests", queries: .init(repeating: 1, count: 256),
        keys: (1...256).map { max(65_536 / $0, 16) })
    static let prefill = PlanCase(
        name: "prefill 8192, 100, 1, 0, 3000", queries: [8192, 100, 1, 0, 3000], keys: [8192, 4096, 70_000, 9, 3000])
    static let window = PlanCase(
        name: "prefill with window", queries: [4096, 1, 64], keys: [4096, 100_000, 64],
        variant: AttentionVariant(mask: .causal, windowLeft: 1024))
}

/// Tiles like a GPU's: one head an item, 16 or 128 rows.
let gpuTraits = KernelTraits(
    tiles: [
        .init(maximumRows: 16, queryRows: 16, kvHeads: 1, fixedCost: 128, keyCost: 1, pairCost: 0),
        .init(maximumRows: .max, queryRows: 128, kvHeads: 1, fixedCost: 256, keyCost: 0, pairCost: 1 / 32),
    ], kvGranularity: 64, minimumSplit: 128)

/// Tiles like a CPU's: all heads of short requests in one item.
let cpuTraits = KernelTraits(
    tiles: [
        .init(maximumRows: 16, queryRows: 16, kvHeads: .max, fixedCost: 100, keyCost: 1, pairCost: 0.1),
        .init(maximumRows: .max, queryRows: 192, kvHeads: 1, fixedCost: 1000, keyCost: 1, pairCost: 0.05),
    ], kvGranularity: 64, minimumSplit: 64)

/// Tiles of a GPU with queues: lists for decode, two kinds of queue, two blocks a processor but one of the large ones.
let queueTraits = KernelTraits(
    tiles: [
        .init(maximumRows: 16, queryRows: 16, kvHeads: 1, fixedCost: 64, keyCost: 1, pairCost: 0),
        .init(
            maximumRows: 64, queryRows: 64, kvHeads: 1, fixedCost: 64, keyCost: 0.25, pairCost: 0.75 / 64,
            schedule: .queue),
        .init(
            maximumRows: .max, queryRows: 128, kvHeads: 1, fixedCost: 64, keyCost: 0.25, pairCost: 0.75 / 128,
            schedule: .queue, blocksPerProcessor: 1),
    ], kvGranularity: 64, minimumSplit: 64, workersPerProcessor: 2)

/// The same with the large ones in pairs.
let pairedTraits = {
    var traits = queueTraits
    traits.tiles[2].isPaired = true
    return traits
}()

/// Odd numbers everywhere: heads that do not divide, a granularity that is no power of two, a longer minimum.
let oddTraits = KernelTraits(
    tiles: [
        .init(maximumRows: 20, queryRows: 12, kvHeads: 3, fixedCost: 10, keyCost: 1, pairCost: 0.5),
        .init(
            maximumRows: .max, queryRows: 100, kvHeads: 5, fixedCost: 500, keyCost: 0, pairCost: 1, schedule: .queue),
    ], kvGranularity: 49, minimumSplit: 120, workersPerProcessor: 3, cachedKeys: 2000)

/// All traits that plans are checked with.
let allTraits = [gpuTraits, cpuTraits, queueTraits, pairedTraits, oddTraits]

/// Checks that every (packed row, head, visible key) is in exactly one item, and that partial rows and merges fit together.
func checkCoverage(_ plan: Plan) {
    struct Tile: Hashable {
        var request, headStart, headCount, rowStart, rowCount: Int32
    }
    var ranges: [Tile: [WorkItem]] = [:]
    for item in plan.items {
        ranges[
            Tile(
                request: item.request, headStart: item.headStart, headCount: item.headCount, rowStart: item.rowStart,
                rowCount: item.rowCount), default: []
        ].append(item)
    }
    var merges: [Tile: MergeItem] = [:]
    for merge in plan.merges {
        let tile = Tile(
            request: merge.request, headStart: merge.headStart, headCount: merge.headCount, rowStart: merge.rowStart,
            rowCount: merge.rowCount)
        #expect(merges.updateValue(merge, forKey: tile) == nil)
    }
    let (geometry, shape) = (plan.problem.geometry, plan.problem.shape)
    var covered = [Int: Int]()
    var partialRows = 0
    for (tile, items) in ranges {
        // Tiles partition rows × heads: their areas add up, and each lies inside its request.
        covered[Int(tile.request), default: 0] += Int(tile.rowCount) * Int(tile.headCount)
        #expect(Int(tile.rowStart) + Int(tile.rowCount) <= geometry.queryLength(Int(tile.request)) * shape.group)
        let parts = items.sorted { ($0.keyStart, $0.keyCount) < ($1.keyStart, $1.keyCount) }
        for (part, next) in zip(parts, parts.dropFirst()) { #expect(part.keyStart + part.keyCount == next.keyStart) }
        let queries = Int(tile.rowStart) / shape.group..<(Int(tile.rowStart + tile.rowCount) - 1) / shape.group + 1
        let seen = visibleByDefinition(plan.problem, Int(tile.request), queries)
        let first = Int(parts[0].keyStart)
        let last = Int(parts.last!.keyStart + parts.last!.keyCount)
        if let low = seen.min(), let high = seen.max() { #expect(first <= low && last > high) }
        if parts.count == 1 {
            #expect(parts[0].partialRow == -1)
            #expect(merges[tile] == nil)
        } else {
            let merge = merges[tile]
            #expect(merge?.partCount == Int32(parts.count))
            for (index, part) in parts.enumerated() {
                #expect(part.keyCount > 0)
                #expect(part.partialRow == (merge?.partialRow ?? -9) + Int32(index) * tile.rowCount * tile.headCount)
            }
            partialRows += parts.count * Int(tile.rowCount) * Int(tile.headCount)
        }
    }
    for request in 0..<geometry.requestCount {
        #expect(covered[request, default: 0] == geometry.queryLength(request) * shape.queryHeads)
    }
    #expect(partialRows == plan.partialRowCount)
    checkMergeFields(plan)
    checkRanges(plan)
}

/// Checks that the items that name a merge are its parts, in the order of the keys, and that no partial row is written twice.
private func checkMergeFields(_ plan: Plan) {
    var parts: [Int32: [WorkItem]] = [:]
    for item in plan.items {
        #expect((item.merge < 0) == (item.partialRow < 0))
        if item.merge >= 0 { parts[item.merge, default: []].append(item) }
    }
    #expect(parts.count == plan.merges.count)
    var nextRow: Int32 = 0
    for (index, merge) in plan.merges.enumerated() {
        let parts = parts[Int32(index), default: []]
        #expect(parts.count == Int(merge.partCount) && parts.count >= 2)
        #expect(merge.partialRow == nextRow)
        for part in parts {
            #expect(
                [part.request, part.headStart, part.headCount, part.rowStart, part.rowCount]
                    == [merge.request, merge.headStart, merge.headCount, merge.rowStart, merge.rowCount])
            #expect(part.partialRow == nextRow)
            nextRow += part.rowCount * part.headCount
        }
        for (part, next) in zip(parts, parts.dropFirst()) { #expect(part.keyStart + part.keyCount == next.keyStart) }
    }
    #expect(Int(nextRow) == plan.partialRowCount)
}

/// Checks that lists and queues are ranges of the items, one after another, each with items of its own tile only.
private func checkRanges(_ plan: Plan) {
    #expect(plan.itemIndptr.first == 0)
    #expect(zip(plan.itemIndptr, plan.itemIndptr.dropFirst()).allSatisfy { $0 <= $1 })
    #expect(plan.itemIndptr.last == Int32(plan.listItemCount))
    #expect(plan.queueIndptr.count == plan.traits.tiles.count + 1)
    #expect(plan.queueIndptr.first == Int32(plan.listItemCount))
    #expect(plan.queueIndptr.last == Int32(plan.items.count))
    #expect(plan.queue == plan.listItemCount..<plan.items.count)
    for item in plan.items[..<plan.listItemCount] {
        #expect(plan.traits.tiles[Int(item.tile)].schedule == .lists)
    }
    for tile in plan.traits.tiles.indices {
        let items = plan.items[plan.queue(ofTile: tile)]
        #expect(items.isEmpty || plan.traits.tiles[tile].schedule == .queue)
        #expect(items.allSatisfy { $0.tile == tile })
    }
}

/// The smallest and largest key that any of `queries` sees, by the variant's definition.
private func visibleByDefinition(_ problem: AttentionProblem, _ request: Int, _ queries: Range<Int>) -> [Int] {
    let offset = problem.geometry.kvLength(request) - problem.geometry.queryLength(request)
    let keys = problem.geometry.kvLength(request)
    var seen: [Int] = []
    for query in [queries.lowerBound, queries.upperBound - 1] {
        let high = problem.variant.form.mask == .causal ? min(query + offset, keys - 1) : keys - 1
        let low = max(0, problem.variant.windowLeft.map { query + offset - $0 } ?? 0)
        if low <= high { seen += [low, high] }
    }
    return seen
}

/// Cost of each worker's list.
func loads(_ plan: Plan) -> [Float] {
    (0..<plan.workerCount).map { worker in
        plan.items[Int(plan.itemIndptr[worker])..<Int(plan.itemIndptr[worker + 1])].reduce(0) {
            $0 + plan.traits.cost($1)
        }
    }
}
