/// One tile of a request's packed query rows with the keys that any of them can see: for all heads alike, which differ in
/// nothing but their number.
struct RowTile: BitwiseCopyable, Sendable {
    var request: Int32
    /// Which of the traits' tiles runs it.
    var tile: Int32
    var rowStart: Int32
    var rowCount: Int32
    var keyStart: Int32
    var keyEnd: Int32
    /// Cost of one key of one head.
    var keyCost: Float
    /// Cost of starting an item.
    var fixedCost: Float

    @inline(__always) var keyCount: Int { Int(keyEnd) - Int(keyStart) }

    /// Cost of all its keys for `heads` heads, uncut.
    @inline(__always)
    func cost(heads: Int) -> Float { fixedCost + Float(keyCount) * (Float(heads) * keyCost) }

    /// The item for part of the keys.
    @inline(__always)
    func item(heads: Range<Int>, keys: Range<Int>, partialRow: Int, merge: Int) -> WorkItem {
        WorkItem(
            request: request, tile: tile, headStart: Int32(truncatingIfNeeded: heads.lowerBound),
            headCount: Int32(truncatingIfNeeded: heads.count), rowStart: rowStart, rowCount: rowCount,
            keyStart: Int32(truncatingIfNeeded: keys.lowerBound), keyCount: Int32(truncatingIfNeeded: keys.count),
            partialRow: Int32(truncatingIfNeeded: partialRow), merge: Int32(truncatingIfNeeded: merge))
    }

    /// The item for all keys.
    @inline(__always)
    func item(heads: Range<Int>) -> WorkItem {
        item(heads: heads, keys: Range(uncheckedBounds: (Int(keyStart), Int(keyEnd))), partialRow: -1, merge: -1)
    }

    /// The merge of `parts` partial states.
    @inline(__always)
    func merge(heads: Range<Int>, partialRow: Int, parts: Int) -> MergeItem {
        MergeItem(
            request: request, headStart: Int32(truncatingIfNeeded: heads.lowerBound),
            headCount: Int32(truncatingIfNeeded: heads.count), rowStart: rowStart, rowCount: rowCount,
            partialRow: Int32(truncatingIfNeeded: partialRow), partCount: Int32(truncatingIfNeeded: parts))
    }
}

/// How a kernel's tiles share out the key/value heads: `step` at a time, the last time perhaps fewer.
struct HeadSteps {
    let step: Int
    let total: Int
    /// Steps: items that the heads of one row tile make.
    let count: Int
    /// Steps that have all of `step` heads: all, or all but the last.
    let full: Int

    init(_ tile: KernelTraits.Tile, _ shape: AttentionShape) {
        // Heads fit in 16 bits, so nothing below overflows.
        step = min(tile.kvHeads, shape.kvHeads)
        total = shape.kvHeads
        count = (total + step - 1) / step
        full = total / step
    }

    /// The heads of step `index`.
    @inline(__always)
    func heads(_ index: Int) -> Range<Int> {
        Range(uncheckedBounds: (index &* step, min(index &* step &+ step, total)))
    }
}
