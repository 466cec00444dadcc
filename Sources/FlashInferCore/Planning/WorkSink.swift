/// Where planning puts its items: a counter or a buffer. One algorithm, so that the count is exact.
protocol WorkSink {
    /// The number of partial rows reserved so far.
    var partialRows: Int { get }

    /// The number of merges so far: the index of the next.
    var mergeCount: Int { get }

    /// Adds an item to the list of the current worker, or to the queue.
    mutating func add(_ item: WorkItem)

    /// Adds `count` items that are as `item` but for their heads: each takes the `item.headCount` after the one before.
    mutating func add(_ item: WorkItem, count: Int)

    /// Adds a merge.
    mutating func add(_ merge: MergeItem)

    /// Reserves `count` rows of partial state.
    mutating func reserve(partialRows count: Int)

    /// Ends all lists before `worker`'s, which items are added to from now on.
    mutating func advance(to worker: Int)
}

extension WorkSink {
    /// Adds the items of one tile that is cut, and what merges them.
    @inline(__always)
    mutating func add(_ tile: RowTile, heads: Range<Int>, _ cuts: KeyCuts, at worker: () -> Int?) {
        let parts = parts(tile, heads, cuts)
        for part in 0..<cuts.count {
            if let worker = worker() { advance(to: worker) }
            add(parts[part])
        }
    }
}

extension WorkSink {
    /// The items of one tile, whole or cut, to be added in an order of the caller's; reserves what merges them.
    @inline(__always)
    mutating func parts(_ tile: RowTile, _ heads: Range<Int>, _ cuts: KeyCuts) -> TileParts {
        let parts = TileParts(tile: tile, heads: heads, cuts: cuts, partialRow: partialRows, merge: mergeCount)
        if cuts.count > 1 {
            reserve(partialRows: cuts.count * parts.rows)
            add(tile.merge(heads: heads, partialRow: parts.partialRow, parts: cuts.count))
        }
        return parts
    }
}

/// The items of a tile.
struct TileParts {
    let tile: RowTile
    let heads: Range<Int>
    let cuts: KeyCuts
    let partialRow: Int
    let merge: Int

    var count: Int { cuts.count }
    /// Rows of partial state of each.
    var rows: Int { Int(tile.rowCount) * heads.count }

    @inline(__always)
    subscript(part: Int) -> WorkItem {
        cuts.count == 1
            ? tile.item(heads: heads)
            : tile.item(heads: heads, keys: cuts.keys(part), partialRow: partialRow + part * rows, merge: merge)
    }
}

/// Counts.
struct WorkCount: WorkSink {
    var items = 0
    var mergeCount = 0
    var partialRows = 0

    mutating func add(_ item: WorkItem) { items += 1 }
    mutating func add(_ item: WorkItem, count: Int) { items += count }
    mutating func add(_ merge: MergeItem) { mergeCount += 1 }
    mutating func reserve(partialRows count: Int) { partialRows += count }
    mutating func advance(to worker: Int) {}
}

/// Writes into memory of a size that was counted before.
struct WorkWriter: WorkSink {
    private(set) var count = 0
    private(set) var mergeCount = 0
    private(set) var partialRows = 0
    private var worker = 0
    private let items: UnsafeMutablePointer<WorkItem>
    private let itemLimit: Int
    private let merges: UnsafeMutablePointer<MergeItem>
    private let mergeLimit: Int
    /// `[workers + 1]`; the entries up to the current worker's are written.
    private let itemIndptr: UnsafeMutableBufferPointer<Int32>

    init(
        items: UnsafeMutableBufferPointer<WorkItem>, merges: UnsafeMutableBufferPointer<MergeItem>,
        itemIndptr: UnsafeMutableBufferPointer<Int32>
    ) {
        // An empty buffer may have no address, and is never written to.
        self.items = items.baseAddress ?? UnsafeMutablePointer(bitPattern: 64)!
        self.merges = merges.baseAddress ?? UnsafeMutablePointer(bitPattern: 64)!
        (itemLimit, mergeLimit) = (items.count, merges.count)
        self.itemIndptr = itemIndptr
        itemIndptr[0] = 0
    }

    // A wrong count would write past the end, so limits are checked in release builds too.

    @inline(__always)
    mutating func add(_ item: WorkItem) {
        precondition(count < itemLimit, "more items than were counted")
        (items + count).initialize(to: item)
        count &+= 1
    }

    @inline(__always)
    mutating func add(_ item: WorkItem, count added: Int) {
        precondition(added <= itemLimit &- count, "more items than were counted")
        // From registers: a copy that was changed in memory is read back by halves, which waits for its stores.
        var first = SIMD4(item.request, item.tile, item.headStart, item.headCount)
        let second = SIMD4(item.rowStart, item.rowCount, item.keyStart, item.keyCount)
        let third = SIMD2(item.partialRow, item.merge)
        let step = SIMD4(0, 0, item.headCount, 0)
        var place = UnsafeMutableRawPointer(items + count)
        for _ in 0..<added {
            place.storeBytes(of: first, as: SIMD4<Int32>.self)
            place.storeBytes(of: second, toByteOffset: 16, as: SIMD4<Int32>.self)
            place.storeBytes(of: third, toByteOffset: 32, as: SIMD2<Int32>.self)
            first &+= step
            place += MemoryLayout<WorkItem>.stride
        }
        count &+= added
    }

    @inline(__always)
    mutating func add(_ merge: MergeItem) {
        precondition(mergeCount < mergeLimit, "more merges than were counted")
        (merges + mergeCount).initialize(to: merge)
        mergeCount &+= 1
    }

    @inline(__always)
    mutating func reserve(partialRows count: Int) { partialRows += count }

    @inline(__always)
    mutating func advance(to worker: Int) {
        while self.worker < worker {
            self.worker &+= 1
            itemIndptr[self.worker] = Int32(truncatingIfNeeded: count)
        }
    }
}
