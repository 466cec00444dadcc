public import FlashInferCore

extension CPUOps {
    /// The pages of the greatest scores of each row.
    public func execute(_ operation: SelectPagesOperation) {
        let rows = operation.scores.rowCount
        spread(rows: rows, units: 8 * operation.scores.elementCount) { _, first, last in
            switch operation.scores.dtype {
            case .float16: Self.select(operation, Int(first)..<Int(last), of: Float16.self) { Float($0) }
            case .bfloat16: Self.select(operation, Int(first)..<Int(last), of: BFloat16.self) { Float($0) }
            default: Self.select(operation, Int(first)..<Int(last), of: Float.self) { $0 }
            }
        }
    }

    @inline(__always)
    private static func select<Element>(
        _ operation: SelectPagesOperation, _ rows: Range<Int>, of _: Element.Type, _ value: (Element) -> Float
    ) {
        guard let output = operation.pages.elements(as: Int32.self),
            let lengths = operation.lengths.elements(as: Int32.self)
        else { return }
        let (k, width, heads) = (operation.pages.shape[-1], operation.scores.shape[-1], operation.rowsPerRequest)
        let positions = operation.positions?.elements(as: Int32.self)
        let requests = operation.requests?.elements(as: Int32.self)
        var keys: [UInt32] = []
        for row in rows {
            let own = row / heads
            let to = output + operation.pages.rowOffset(row)
            let placed = operation.positions.flatMap { view in positions.map { $0 + view.rowOffset(row) } }
            let length = min(max(Int(lengths[own]), 0), width)
            let count = min(k, length), recent = min(operation.recent, count)
            let ranked = count == length ? 0 : length - recent
            let table: UnsafeMutablePointer<Int32>?
            var offset: Int32 = 0
            switch operation.transform {
            case .table(let view):
                table = view.elements(as: Int32.self).map { $0 + Int(requests?[own] ?? Int32(own)) * view.strides[0] }
            case .offsets(let view):
                table = nil
                offset = view.elements(as: Int32.self)?[own] ?? 0
            }
            var done = 0
            func put(_ place: Int) {
                to[done] = table?[place] ?? Int32(place) &+ offset
                placed?[done] = Int32(place)
                done += 1
            }
            if ranked > 0, count > recent, let scores = operation.scores.elements(as: Element.self) {
                let own = scores + operation.scores.rowOffset(row)
                keys.removeAll(keepingCapacity: true)
                for place in 0..<ranked { keys.append(orderKey(value(own[place]))) }
                let kth = PageSelection(keys, count - recent, operation.ties)
                var equal = 0
                for (place, key) in keys.enumerated() {
                    if key > kth.key {
                        put(place)
                    } else if key == kth.key {
                        if equal >= kth.skipped, equal - kth.skipped < kth.wanted { put(place) }
                        equal += 1
                    }
                }
            }
            for place in length - (count - done)..<length { put(place) }
            for index in count..<k {
                to[index] = -1
                placed?[index] = -1
            }
        }
    }

    /// Integers in the order of the floats, zeros of both signs being equal and a NaN above all.
    private static func orderKey(_ x: Float) -> UInt32 {
        if x.isNaN { return .max }
        let bits = (x + 0).bitPattern
        return bits >> 31 == 1 ? ~bits : bits | 0x8000_0000
    }
}

/// What is chosen of a row: what is above a key, and some of what is equal to it.
private struct PageSelection {
    var key: UInt32 = 0
    /// Equals that are chosen, from number `skipped` on.
    var wanted: Int
    var skipped = 0

    /// The `wanted` greatest of more keys, found eight bits at a time.
    init(_ keys: [UInt32], _ wanted: Int, _ ties: SelectPagesOperation.Ties) {
        self.wanted = wanted
        var equals = keys.count
        for shift: UInt32 in [24, 16, 8, 0] {
            let known = shift == 24 ? 0 : UInt32.max << (shift + 8)
            let counts = keys.reduce(into: [Int](repeating: 0, count: 256)) { counts, other in
                if (other ^ key) & known == 0 { counts[Int(other >> shift & 255)] += 1 }
            }
            var digit = 255
            while counts[digit] < self.wanted {
                self.wanted -= counts[digit]
                digit -= 1
            }
            key |= UInt32(digit) << shift
            equals = counts[digit]
        }
        if ties == .highest { skipped = equals - self.wanted }
    }
}

extension TensorView {
    /// Elements from the first to those of row `row`: rank 3 is rows of rows.
    fileprivate func rowOffset(_ row: Int) -> Int {
        let inner = Int(innerRows)
        return row / inner * strides[0] + (rank > 2 ? row % inner * strides[1] : 0)
    }
}
