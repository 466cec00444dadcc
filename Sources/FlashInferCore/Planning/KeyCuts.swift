/// Where a row tile's keys are cut: at multiples of `unit`, in `count` parts that differ by one unit at most.
struct KeyCuts {
    /// The number of parts, 1 or more.
    let count: Int
    private let unit: Int
    private let first: Int
    private let quotient: Int
    private let remainder: Int
    private let start: Int
    private let end: Int

    /// No cut.
    @inline(__always)
    init(whole tile: RowTile) {
        (start, end) = (Int(tile.keyStart), Int(tile.keyEnd))
        (count, unit, first, quotient, remainder) = (1, 1, 0, 0, 0)
    }

    /// A cut at every multiple of `splitSize`, which depends on nothing but the request.
    init(_ tile: RowTile, every splitSize: Int) {
        (start, end) = (Int(tile.keyStart), Int(tile.keyEnd))
        (unit, first, quotient, remainder) = (splitSize, start / splitSize, 1, 0)
        count = max((end - 1) / splitSize - first + 1, 1)
    }

    /// About `wanted` equal parts, fewer where parts would be shorter than the traits allow or where fewer are as good.
    init(_ tile: RowTile, parts wanted: Int, _ traits: KernelTraits) {
        (start, end) = (Int(tile.keyStart), Int(tile.keyEnd))
        unit = traits.kvGranularity
        first = start / unit
        let units = max((end - 1) / unit - first + 1, 1)
        let least = (traits.minimumSplit + unit - 1) / unit
        var parts = max(min(wanted, units / least), 1)
        // No more parts than the longest one asks for: five units in four parts, of 2, 1, 1 and 1, are no better than 2, 2, 1.
        func trimmed(_ parts: Int) -> Int {
            let longest = (units + parts - 1) / parts
            return (units + longest - 1) / longest
        }
        parts = trimmed(parts)
        if parts > 1 {
            // The outer parts begin and end inside a unit. Where that makes one too short, every part gets a unit more.
            let longer = min(units % parts, 1)
            let head = (first + units / parts + longer) * unit - start
            let tail = end - (first + units - units / parts) * unit
            if min(head, tail) < traits.minimumSplit { parts = trimmed(max(min(parts, units / (least + 1)), 1)) }
        }
        count = parts
        (quotient, remainder) = units.quotientAndRemainder(dividingBy: parts)
    }

    /// The keys of part `index`.
    @inline(__always)
    func keys(_ index: Int) -> Range<Int> {
        Range(uncheckedBounds: (index == 0 ? start : boundary(index), index == count - 1 ? end : boundary(index + 1)))
    }

    /// The number of keys of the longest part, or at most one unit more.
    var longest: Int { count == 1 ? end - start : (quotient + min(remainder, 1)) * unit }

    @inline(__always)
    private func boundary(_ index: Int) -> Int { (first + index * quotient + min(index, remainder)) * unit }
}
