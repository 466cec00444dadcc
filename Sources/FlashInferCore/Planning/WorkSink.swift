/// Where planning puts its items: a counter or a list. One algorithm, so that the count is exact.
protocol WorkSink {
    /// The number of partial rows reserved so far.
    var partialRows: Int { get }

    /// The number of merges so far: the index of the next.
    var mergeCount: Int { get }

    /// Adds work for `processor`. Items come processor by processor in the balanced mode, in any order else.
    mutating func add(_ item: WorkItem, processor: Int)

    /// Adds a merge.
    mutating func add(_ merge: MergeItem)

    /// Reserves `count` rows of partial state.
    mutating func reserve(partialRows count: Int)
}

/// Counts.
struct WorkCount: WorkSink {
    var items = 0
    var merges = 0
    var partialRows = 0

    var mergeCount: Int { merges }

    mutating func add(_ item: WorkItem, processor: Int) { items += 1 }
    mutating func add(_ merge: MergeItem) { merges += 1 }
    mutating func reserve(partialRows count: Int) { partialRows += count }
}

/// Collects.
struct WorkList: WorkSink {
    private var items: [WorkItem] = []
    private var owners: [Int32] = []
    private var merges: [MergeItem] = []
    private var counts: [Int32]
    /// The processor of the last item while items came in processors' order, or `.max` once they did not.
    private var last: Int32 = 0
    private(set) var partialRows = 0
    var mergeCount: Int { merges.count }

    init(processors: Int, items capacity: Int) {
        items.reserveCapacity(capacity)
        counts = [Int32](repeating: 0, count: processors)
    }

    @inline(__always)
    mutating func add(_ item: WorkItem, processor: Int) {
        let owner = Int32(truncatingIfNeeded: processor)
        if last == .max {
            owners.append(owner)
        } else if owner < last {
            // The first item out of order: only now are owners worth keeping, and the counts say whose those so far were.
            for (processor, count) in counts.enumerated() {
                owners.append(contentsOf: repeatElement(Int32(processor), count: Int(count)))
            }
            owners.append(owner)
            last = .max
        } else {
            last = owner
        }
        items.append(item)
        counts[processor] += 1
    }

    mutating func add(_ merge: MergeItem) { merges.append(merge) }
    mutating func reserve(partialRows count: Int) { partialRows += count }

    /// The plan, with items grouped by processor and otherwise in the order they came.
    consuming func plan(_ problem: AttentionProblem, _ traits: KernelTraits) -> Plan {
        var indptr: [Int32] = [0]
        indptr.reserveCapacity(counts.count + 1)
        var sum: Int32 = 0
        for count in counts {
            sum += count
            indptr.append(sum)
        }
        return Plan(
            problem: problem, traits: traits, items: owners.isEmpty ? items : grouped(indptr), itemIndptr: indptr,
            merges: merges, partialRowCount: partialRows)
    }

    /// A stable counting sort of the items by processor.
    private func grouped(_ indptr: [Int32]) -> [WorkItem] {
        var cursors = indptr
        var order = [Int](repeating: 0, count: items.count)
        for (index, owner) in owners.enumerated() {
            order[Int(cursors[Int(owner)])] = index
            cursors[Int(owner)] += 1
        }
        return order.map { items[$0] }
    }
}
