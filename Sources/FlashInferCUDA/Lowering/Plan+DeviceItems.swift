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

    /// What the device writes the items from, if it does: where all heads have the same.
    var sections: HeadSections? { plan.hasItemsAlikeForHeads ? plan.sections : nil }

    /// Writes the items of row tiles for the first head.
    ///
    /// - Parameter memory: room for one of each, as in ``write(to:)``.
    func writeRowTiles(of sections: HeadSections, to memory: UnsafeMutableRawPointer) {
        let tiles = (0..<sections.rowTileCount).map { sections.item($0) }
        write(tiles, lists: 0, to: memory)
    }

    /// The number of items, with one for each list that has none.
    var count: Int { Int(queueIndptr[queueIndptr.count - 1]) }

    /// Writes the items.
    ///
    /// - Parameter memory: room for `count` of `fi_attention_item`, aligned for them.
    func write(to memory: UnsafeMutableRawPointer) { write(plan.items, lists: plan.workerCount, to: memory) }

    /// Writes items, of which those of the first lists come first.
    private func write(_ items: [WorkItem], lists listCount: Int, to memory: UnsafeMutableRawPointer) {
        let out = memory.bindMemory(to: fi_attention_item.self, capacity: listCount + items.count)
        let geometry = plan.problem.geometry
        let areRows = geometry.blocks.blocksAreRows
        let whole = geometry.blocks.sequenceLengths
        let lists = plan.stateLists
        var finder = RunFinder(plan)
        let isSameForHeads = finder.isSameForHeads
        items.withUnsafeBufferPointer { items in
            plan.merges.withUnsafeBufferPointer { merges in
                geometry.queryIndptr.withUnsafeBufferPointer { queryIndptr in
                    geometry.blocks.indptr.withUnsafeBufferPointer { blockIndptr in
                        geometry.blocks.lengths.withUnsafeBufferPointer { lengths in
                            geometry.blocks.indices.withUnsafeBufferPointer { indices in
                                @inline(__always) func entry(_ item: WorkItem) -> PackedItem {
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
                                    return PackedItem(
                                        SIMD4(item.request, item.tile, item.headStart, item.rowStart),
                                        SIMD4(item.rowCount, item.keyStart, item.keyCount, item.partialRow),
                                        SIMD4(
                                            lists != nil ? 0 : isPart ? merges[merge].partCount : 1,
                                            isPart ? merges[merge].partialRow : 0, first, queryCount),
                                        SIMD4(
                                            keyTotal, block, item.headCount,
                                            areRows ? indices[Int(block)] : whole.isEmpty ? -1 : whole[request]),
                                        SIMD4(
                                            Int32(runs.empty.lowerBound), Int32(runs.empty.count),
                                            Int32(runs.full.lowerBound), Int32(runs.full.count)))
                                }
                                let empty = PackedItem(SIMD4(0, -1, 0, 0), SIMD4(), SIMD4(), SIMD4(), SIMD4())
                                var next = 0
                                for list in 0..<listCount {
                                    let end = Int(plan.itemIndptr[list + 1])
                                    guard next < end else {
                                        empty.store(to: out + list)
                                        continue
                                    }
                                    entry(items[next]).store(to: out + list)
                                    next += 1
                                    var rest = Int(restIndptr[list])
                                    while next < end {
                                        entry(items[next]).store(to: out + rest)
                                        rest += 1
                                        next += 1
                                    }
                                }
                                var rest = listCount == 0 ? 0 : Int(restIndptr[listCount])
                                while next < items.count {
                                    let item = items[next]
                                    var packed = entry(item)
                                    packed.store(to: out + rest)
                                    rest += 1
                                    next += 1
                                    guard isSameForHeads, item.partialRow < 0 else { continue }
                                    // Neighbours in a queue often differ in nothing but their head.
                                    let first = ItemWords(items, next - 1)
                                    while next < items.count {
                                        let words = ItemWords(items, next)
                                        guard words.isSameButForHead(as: first) else { break }
                                        packed.head = words.head
                                        packed.store(to: out + rest)
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
}

/// A `fi_attention_item` in registers: one that was written field by field and is read back whole waits for its stores, which took longer
/// than all else (EPYC: 4.6 ns an item, and 2.7 so).
private struct PackedItem {
    private var first: SIMD4<Int32>
    private let others: (SIMD4<Int32>, SIMD4<Int32>, SIMD4<Int32>, SIMD4<Int32>)

    /// The fields in their order, by fours.
    @inline(__always)
    init(
        _ first: SIMD4<Int32>, _ second: SIMD4<Int32>, _ third: SIMD4<Int32>, _ fourth: SIMD4<Int32>,
        _ fifth: SIMD4<Int32>
    ) {
        self.first = first
        others = (second, third, fourth, fifth)
    }

    var head: Int32 {
        @inline(__always) get { first[2] }
        @inline(__always) set { first[2] = newValue }
    }

    @inline(__always)
    func store(to item: UnsafeMutablePointer<fi_attention_item>) {
        let place = UnsafeMutableRawPointer(item)
        place.storeBytes(of: first, as: SIMD4<Int32>.self)
        place.storeBytes(of: others.0, toByteOffset: 16, as: SIMD4<Int32>.self)
        place.storeBytes(of: others.1, toByteOffset: 32, as: SIMD4<Int32>.self)
        place.storeBytes(of: others.2, toByteOffset: 48, as: SIMD4<Int32>.self)
        place.storeBytes(of: others.3, toByteOffset: 64, as: SIMD4<Int32>.self)
    }
}

/// An item as words of two fields each, to be compared but for the head.
private struct ItemWords {
    private let words: (UInt64, UInt64, UInt64, UInt64, UInt64)

    @inline(__always)
    init(_ items: UnsafeBufferPointer<WorkItem>, _ index: Int) {
        let item = UnsafeRawPointer(items.baseAddress! + index)
        func word(_ index: Int) -> UInt64 { item.loadUnaligned(fromByteOffset: index * 8, as: UInt64.self) }
        // request and tile, headStart and headCount, rowStart and rowCount, keyStart and keyCount, partialRow and merge
        words = (word(0), word(1), word(2), word(3), word(4))
    }

    var head: Int32 { Int32(truncatingIfNeeded: UInt64(littleEndian: words.1)) }

    /// Whether these items differ in their first head at most.
    @inline(__always)
    func isSameButForHead(as other: ItemWords) -> Bool {
        let heads = UInt64(littleEndian: words.1 ^ other.words.1) >> 32
        return (words.0 ^ other.words.0) | heads | (words.2 ^ other.words.2) | (words.3 ^ other.words.3)
            | (words.4 ^ other.words.4) == 0
    }
}

extension Plan {
    /// Whether items that differ in nothing but their head are alike in all that the analysis says of them.
    fileprivate var hasItemsAlikeForHeads: Bool {
        problem.variant.form.restOfMask.map { !$0.contains(.head) && !$0.contains(.kvHead) } ?? true
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
        isSameForHeads = plan.hasItemsAlikeForHeads
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
