/// A tensor's least and largest elements over any range of a row: in steps of 32 and 1,024 elements, and one by one at the ends.
final class RangeTable: Sendable {
    let rows: Int
    private let columns: Int
    private let levels: [Level]
    /// The elements themselves, as the lowest level has them.
    private let lowest: [Double]
    private let hasNaN: Bool
    private let isFloat: Bool
    /// Of each row: whether no element is less than the one before.
    private let isAscending: [Bool]
    /// Of each element of an ascending row: where in the row the run of equal ones that it is in starts, and where it ends.
    private let runStarts: [Int32]
    private let runEnds: [Int32]

    private struct Level: Sendable {
        /// Elements of the level below that one of this level stands for.
        static let step = 32
        let lows: [Double]
        let highs: [Double]
        let columns: Int
    }

    /// A tensor of `rows` equal rows.
    init(_ value: ParameterValue, rows: Int) {
        let elements = value.doubles
        self.rows = Swift.max(rows, 1)
        let columns = elements.count / self.rows
        lowest = elements
        self.columns = columns
        isFloat = value.isFloat
        hasNaN = elements.contains { $0.isNaN }
        isAscending = (0..<self.rows).map { row in
            (row * columns..<(row + 1) * columns).dropFirst().allSatisfy { elements[$0 - 1] <= elements[$0] }
        }
        (runStarts, runEnds) = Self.runs(elements, columns: columns)
        var levels = [Level(lows: elements, highs: elements, columns: columns)]
        while let last = levels.last, last.columns > Level.step {
            let count = (last.columns + Level.step - 1) / Level.step
            var (lows, highs): ([Double], [Double]) = ([], [])
            for row in 0..<self.rows {
                for block in 0..<count {
                    let range =
                        row * last.columns + block * Level.step..<row * last.columns
                        + Swift.min((block + 1) * Level.step, last.columns)
                    lows.append(last.lows[range].min() ?? 0)
                    highs.append(last.highs[range].max() ?? 0)
                }
            }
            levels.append(Level(lows: lows, highs: highs, columns: count))
        }
        self.levels = levels
    }

    private static func runs(_ elements: [Double], columns: Int) -> ([Int32], [Int32]) {
        var starts = [Int32](repeating: 0, count: elements.count)
        var ends = starts
        guard columns > 0 else { return (starts, ends) }
        for row in stride(from: 0, through: elements.count - columns, by: columns) {
            for column in 1..<columns {
                let isNew = elements[row + column] != elements[row + column - 1]
                starts[row + column] = isNew ? Int32(truncatingIfNeeded: column) : starts[row + column - 1]
            }
            ends[row + columns - 1] = Int32(truncatingIfNeeded: columns)
            for column in (0..<columns - 1).reversed() {
                let isNew = elements[row + column] != elements[row + column + 1]
                ends[row + column] = isNew ? Int32(truncatingIfNeeded: column + 1) : ends[row + column + 1]
            }
        }
        return (starts, ends)
    }

    /// What the elements of ranges of rows and columns may be, indices clamped as loads clamp them.
    func range(rows: Interval, columns: Interval) -> Interval {
        if self.columns == 0 || hasNaN { return .unknown(isFloat ? .float : .int) }
        func clamped(_ index: Double, _ count: Int) -> Int { Int(Swift.min(Swift.max(index, 0), Double(count - 1))) }
        let wanted = clamped(columns.low, self.columns)...clamped(columns.high, self.columns)
        if rows.isPoint {
            let row = clamped(rows.low, self.rows)
            if isAscending[row] {
                return Interval(
                    lowest[row * self.columns + wanted.lowerBound], lowest[row * self.columns + wanted.upperBound])
            }
        }
        var (low, high) = (Double.infinity, -Double.infinity)
        for row in clamped(rows.low, self.rows)...clamped(rows.high, self.rows) {
            scan(row, wanted, level: levels.count - 1, &low, &high)
        }
        return Interval(low, high)
    }

    /// The least and the greatest of whole numbers in a row, the ends clamped as loads clamp them; `nil` where there are none.
    @inline(__always)
    func bounds(row: Int, columns wanted: (low: Int, high: Int)) -> (low: Int, high: Int)? {
        guard columns > 0 else { return nil }
        let low = Swift.min(Swift.max(wanted.low, 0), columns - 1)
        let high = Swift.min(Swift.max(wanted.high, 0), columns - 1)
        let row = Swift.min(row, rows - 1)
        if low == high || isAscending[row] {
            return (Int(lowest[row * columns + low]), Int(lowest[row * columns + high]))
        }
        let range = range(rows: Interval(Double(row)), columns: Interval(Double(low), Double(high)))
        return (Int(range.low), Int(range.high))
    }

    /// Of the positions `keys` of an ascending row: those whose elements may be one of `wanted`'s, and whether that is one value;
    /// `nil` where the row is not ascending.
    func positions(of wanted: Interval, row: Int, in keys: Range<Int>) -> (some: Range<Int>, isOne: Bool)? {
        let row = Swift.min(row, rows - 1)
        guard columns > 0, isAscending[row], keys.upperBound <= columns else { return nil }
        let start = row * columns
        let elements = lowest
        /// The first key whose element is not before the wanted ones; or, past them, not one of them.
        func boundary(_ isBefore: (Double) -> Bool) -> Int {
            var (low, high) = (keys.lowerBound, keys.upperBound)
            while low < high {
                let middle = (low + high) / 2
                if isBefore(elements[start + middle]) { low = middle + 1 } else { high = middle }
            }
            return low
        }
        let first = boundary { $0 < wanted.low }
        return (first..<Swift.max(boundary { $0 <= wanted.high }, first), wanted.isPoint)
    }

    /// The same for the elements at some indices of that row, clamped as loads clamp them.
    @inline(__always)
    func positions(
        ofElements indices: (low: Int, high: Int), row: Int, in keys: Range<Int>
    ) -> (some: Range<Int>, isOne: Bool)? {
        let row = Swift.min(row, rows - 1)
        guard columns > 0, isAscending[row], keys.upperBound <= columns else { return nil }
        let start = row * columns
        let first = Int(runStarts[start + Swift.min(Swift.max(indices.low, 0), columns - 1)])
        let last = start + Swift.min(Swift.max(indices.high, 0), columns - 1)
        let some = Swift.min(Swift.max(first, keys.lowerBound), keys.upperBound)
        let end = Swift.min(Swift.max(Int(runEnds[last]), some), keys.upperBound)
        return (some..<end, first == Int(runStarts[last]))
    }

    /// The whole blocks of a level, then what is left at both ends at the level below.
    private func scan(_ row: Int, _ wanted: ClosedRange<Int>, level: Int, _ low: inout Double, _ high: inout Double) {
        var width = 1
        for _ in 0..<level { width *= Level.step }
        let (first, end) = ((wanted.lowerBound + width - 1) / width, (wanted.upperBound + 1) / width)
        let table = levels[level]
        if first < end {
            for block in first..<end {
                low = Swift.min(low, table.lows[row * table.columns + block])
                high = Swift.max(high, table.highs[row * table.columns + block])
            }
            if level == 0 { return }
            if wanted.lowerBound < first * width {
                scan(row, wanted.lowerBound...first * width - 1, level: level - 1, &low, &high)
            }
            if end * width <= wanted.upperBound {
                scan(row, end * width...wanted.upperBound, level: level - 1, &low, &high)
            }
        } else {
            scan(row, wanted, level: level - 1, &low, &high)
        }
    }
}
