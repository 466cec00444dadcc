internal import CUDAKernels
internal import FlashInferCore

/// A plan's items as kernels read them, and where they find them.
///
/// First the first item of each list, so that a block's first read needs no table; then the lists' other items; then the queues.
struct DeviceItems {
    private let plan: Plan
    /// `[lists + 1]`: where each list's items but the first are.
    let restIndptr: [Int32]
    /// `[tiles + 1]`: where each tile's queue is.
    let queueIndptr: [Int32]

    init(_ plan: Plan) {
        self.plan = plan
        let lists = plan.workerCount
        var next = Int32(lists)
        restIndptr = [Int32](unsafeUninitializedCapacity: lists + 1) { rest, count in
            plan.itemIndptr.withUnsafeBufferPointer { indptr in
                for list in 0..<lists {
                    rest[list] = next
                    next += max(indptr[list + 1] - indptr[list] - 1, 0)
                }
                rest[lists] = next
            }
            count = lists + 1
        }
        let shift = next - Int32(plan.listItemCount)
        queueIndptr = plan.queueIndptr.map { $0 + shift }
    }

    /// The number of items, with one for each list that has none.
    var count: Int { Int(queueIndptr[queueIndptr.count - 1]) }

    /// Writes the items.
    ///
    /// - Parameter memory: room for `count` of `fi_attention_item`, aligned for them.
    func write(to memory: UnsafeMutableRawPointer) {
        let out = memory.bindMemory(to: fi_attention_item.self, capacity: count)
        let geometry = plan.problem.geometry
        let areRows = geometry.blocks.blocksAreRows
        let whole = geometry.blocks.sequenceLengths
        let lists = plan.stateLists
        var finder = RunFinder(plan)
        let isSameForHeads = finder.isSameForHeads
        plan.items.withUnsafeBufferPointer { items in
            plan.merges.withUnsafeBufferPointer { merges in
                geometry.queryIndptr.withUnsafeBufferPointer { queryIndptr in
                    geometry.blocks.indptr.withUnsafeBufferPointer { blockIndptr in
                        geometry.blocks.lengths.withUnsafeBufferPointer { lengths in
                            geometry.blocks.indices.withUnsafeBufferPointer { indices in
                                func entry(_ item: WorkItem) -> fi_attention_item {
                                    let request = Int(item.request)
                                    let block = blockIndptr[request]
                                    let first =
                                        lists == nil
                                        ? queryIndptr[request] : Int32(geometry.firstQuery(request))
                                    let queryCount = queryIndptr[request + 1] - queryIndptr[request]
                                    // Where rows see all keys, those come before the first row.
                                    let keyTotal = lengths[request] + (geometry.isShared(request) ? queryCount : 0)
                                    let merge = Int(item.merge)
                                    let runs = finder.runs(of: item)
                                    let isPart = merge >= 0 && lists == nil
                                    return fi_attention_item(
                                        request: item.request, tile: item.tile, head: item.headStart,
                                        row: item.rowStart, row_count: item.rowCount, key: item.keyStart,
                                        key_count: item.keyCount, partial_row: item.partialRow,
                                        parts: lists != nil ? 0 : isPart ? merges[merge].partCount : 1,
                                        merge_row: isPart ? merges[merge].partialRow : 0, first_query: first,
                                        query_count: queryCount, key_total: keyTotal,
                                        first_block: block, heads: item.headCount,
                                        only_block: areRows ? indices[Int(block)] : whole.isEmpty ? -1 : whole[request],
                                        hole: Int32(runs.empty.lowerBound), hole_count: Int32(runs.empty.count),
                                        full: Int32(runs.full.lowerBound), full_count: Int32(runs.full.count))
                                }
                                var empty = fi_attention_item()
                                empty.tile = -1
                                var next = 0
                                for list in 0..<plan.workerCount {
                                    let end = Int(plan.itemIndptr[list + 1])
                                    guard next < end else {
                                        out[list] = empty
                                        continue
                                    }
                                    out[list] = entry(items[next])
                                    next += 1
                                    var rest = Int(restIndptr[list])
                                    while next < end {
                                        out[rest] = entry(items[next])
                                        rest += 1
                                        next += 1
                                    }
                                }
                                var rest = Int(restIndptr[plan.workerCount])
                                while next < items.count {
                                    // Neighbours in a queue often differ in nothing but their head.
                                    let item = items[next]
                                    if isSameForHeads, next > 0, item.partialRow < 0, rest > plan.workerCount,
                                        item.hasRowsAndKeys(of: items[next - 1])
                                    {
                                        out[rest] = out[rest - 1]
                                        out[rest].head = item.headStart
                                    } else {
                                        out[rest] = entry(item)
                                    }
                                    rest += 1
                                    next += 1
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

extension WorkItem {
    /// Whether this is `other` but for its head, and neither is part of a cut tile.
    @inline(__always)
    fileprivate func hasRowsAndKeys(of other: WorkItem) -> Bool {
        request == other.request && tile == other.tile && headCount == other.headCount && rowStart == other.rowStart
            && rowCount == other.rowCount && keyStart == other.keyStart && keyCount == other.keyCount
            && partialRow == other.partialRow
    }
}

/// What a plan's analysis says of its items' keys.
private struct RunFinder {
    private let plan: Plan
    private let group: Int
    /// Whether items that differ in nothing but their head have the same runs.
    let isSameForHeads: Bool
    /// Items of other heads often have the same rows and keys.
    private var known: [SiteBlock: BlockAnalysis.Runs] = [:]

    init(_ plan: Plan) {
        self.plan = plan
        group = plan.problem.shape.group
        let mask = plan.problem.variant.form.restOfMask
        isSameForHeads = mask.map { !$0.contains(.head) && !$0.contains(.kvHead) } ?? true
    }

    @inline(__always)
    mutating func runs(of item: WorkItem) -> BlockAnalysis.Runs {
        guard let analysis = plan.analysis else { return BlockAnalysis.Runs() }
        return runs(of: item, analysis)
    }

    private mutating func runs(of item: WorkItem, _ analysis: BlockAnalysis) -> BlockAnalysis.Runs {
        let (row, key, head) = (Int(item.rowStart), Int(item.keyStart), isSameForHeads ? 0 : Int(item.headStart))
        let block = SiteBlock(
            request: Int(item.request),
            heads: head * group..<(head + (isSameForHeads ? 1 : Int(item.headCount))) * group,
            queries: row / group..<(row + Int(item.rowCount) - 1) / group + 1, keys: key..<key + Int(item.keyCount))
        if let runs = known[block] { return runs }
        let runs = analysis.runs(block)
        known[block] = runs
        return runs
    }
}
