/// Some keys of a request as at most four ranges, in order and apart: a superset of the keys that are meant, as more ranges than there is
/// room for are joined where the gap between them is least.
struct KeySet: BitwiseCopyable {
    /// Each range's first key and its end; those from `count` on mean nothing.
    private var starts = SIMD4<Int32>.zero
    private var ends = SIMD4<Int32>.zero
    private(set) var count = 0

    /// No key.
    init() {}

    /// The keys of a range; none where it ends before it starts.
    init(_ start: Int, _ end: Int) {
        if start < end { (starts[0], ends[0], count) = (Int32(start), Int32(end), 1) }
    }

    /// One of the ranges.
    @inline(__always)
    subscript(_ index: Int) -> Range<Int> {
        Range(uncheckedBounds: (Int(starts[index]), Int(ends[index])))
    }

    /// The least range that holds all keys.
    var hull: Range<Int> {
        count == 0 ? 0..<0 : Range(uncheckedBounds: (Int(starts[0]), Int(ends[count - 1])))
    }

    /// Adds a range that starts at or after all others' starts.
    @inline(__always)
    private mutating func append(_ start: Int32, _ end: Int32) {
        if count > 0, start <= ends[count - 1] {
            ends[count - 1] = Swift.max(ends[count - 1], end)
            return
        }
        if count == 4 { joinNearest() }
        (starts[count], ends[count]) = (start, end)
        count += 1
    }

    /// Joins the two neighbours that are nearest to each other.
    private mutating func joinNearest() {
        var best = 0
        for index in 1..<3 where starts[index + 1] - ends[index] < starts[best + 1] - ends[best] { best = index }
        ends[best] = ends[best + 1]
        for index in best + 1..<3 { (starts[index], ends[index]) = (starts[index + 1], ends[index + 1]) }
        count = 3
    }

    /// The keys of both.
    @inline(__always)
    func intersection(_ other: KeySet) -> KeySet {
        if count == 0 || other.count == 0 { return KeySet() }
        if count == 1, other.count == 1 {
            return KeySet(
                Int(Swift.max(starts[0], other.starts[0])), Int(Swift.min(ends[0], other.ends[0])))
        }
        return walkedIntersection(other)
    }

    private func walkedIntersection(_ other: KeySet) -> KeySet {
        var (result, a, b) = (KeySet(), 0, 0)
        while a < count, b < other.count {
            let (start, end) = (Swift.max(starts[a], other.starts[b]), Swift.min(ends[a], other.ends[b]))
            if start < end { result.append(start, end) }
            if ends[a] < other.ends[b] { a += 1 } else { b += 1 }
        }
        return result
    }

    /// The keys of either.
    @inline(__always)
    func union(_ other: KeySet) -> KeySet {
        if count == 0 { return other }
        if other.count == 0 { return self }
        if count == 1, other.count == 1 {
            if starts[0] <= other.ends[0], other.starts[0] <= ends[0] {
                return KeySet(
                    Int(Swift.min(starts[0], other.starts[0])), Int(Swift.max(ends[0], other.ends[0])))
            }
            var result = starts[0] < other.starts[0] ? self : other
            let last = starts[0] < other.starts[0] ? other : self
            (result.starts[1], result.ends[1], result.count) = (last.starts[0], last.ends[0], 2)
            return result
        }
        return walkedUnion(other)
    }

    private func walkedUnion(_ other: KeySet) -> KeySet {
        var (result, a, b) = (KeySet(), 0, 0)
        while a < count || b < other.count {
            if b == other.count || (a < count && starts[a] <= other.starts[b]) {
                result.append(starts[a], ends[a])
                a += 1
            } else {
                result.append(other.starts[b], other.ends[b])
                b += 1
            }
        }
        return result
    }

    /// The longest range of `keys` that has none of them.
    func longestGap(in keys: Range<Int>) -> Range<Int> {
        var (best, next) = (0..<0, keys.lowerBound)
        for index in 0..<count {
            let start = Swift.min(Int(starts[index]), keys.upperBound)
            if start - next > best.count { best = next..<start }
            next = Swift.max(next, Int(ends[index]))
        }
        return keys.upperBound - next > best.count ? next..<keys.upperBound : best
    }
}
