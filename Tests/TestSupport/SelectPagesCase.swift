package import FlashInferCore

/// Rows of scores of which pages are selected, with what they are by definition.
package struct SelectPagesCase: Sendable, CustomStringConvertible {
    package var width: Int
    package var k: Int
    package var dtype = DType.float32
    package var recent = 1
    package var ties = SelectPagesOperation.Ties.lowest
    package var hasTable = true
    package var hasRequests = false
    package var rows = 4

    /// Widths below, at and above a round of the kernel's threads; ties, NaN and infinities in all.
    package static let all: [SelectPagesCase] = {
        var cases: [SelectPagesCase] = []
        for (index, width) in [1, 3, 64, 511, 512, 513, 2_050].enumerated() {
            for (number, k) in Set([1, 2, 17, width - 1, width, width + 3]).filter({ $0 >= 1 }).sorted().enumerated() {
                let turn = index + number
                cases.append(
                    SelectPagesCase(
                        width: width, k: k, dtype: [.float32, .bfloat16, .float16][turn % 3],
                        recent: [1, 0, 3][turn % 3],
                        ties: turn % 2 == 0 ? .lowest : .highest, hasTable: turn % 4 != 3, hasRequests: turn % 4 == 1))
            }
        }
        return cases
    }()

    package var description: String {
        "\(k) of \(width) \(dtype) recent \(recent) ties \(ties) \(hasTable ? hasRequests ? "requests" : "table" : "offsets")"
    }

    /// The tensors of the case.
    package struct Tensors {
        package let scores, lengths, table, offsets, requests: OpsTensor
    }

    /// Its tensors, always the same.
    package func tensors() throws -> Tensors {
        var random = OpsRandom(UInt64(97 + width + k))
        // Few different scores, so that many are equal.
        var values = (0..<rows * width).map { _ in (random.uniform() * 8).rounded(.down) - 3 }
        for index in values.indices where values[index] == 0 && index % 2 == 0 { values[index] = -0.0 }
        if width > 20 { (values[3], values[7], values[width + 4]) = (.nan, .infinity, -.infinity) }
        let counts = [width, width / 2, min(k, width), 0]
        return Tensors(
            scores: try OpsTensor(dtype, [rows, width], padding: 3, values: values),
            lengths: try OpsTensor(.int32, [rows], values: (0..<rows).map { Double(counts[$0 % 4]) }),
            table: try OpsTensor(
                .int32, [rows, width + 2], padding: 1,
                values: (0..<rows * (width + 2)).map { Double($0 * 7_919 % 100_003) }),
            offsets: try OpsTensor(.int32, [rows], values: (0..<rows).map { Double($0 * 1_000) }),
            requests: try OpsTensor(.int32, [rows], values: (0..<rows).map { Double(($0 + 2) / 2 % rows) }))
    }

    /// The operation on tensors that lie anywhere.
    package func operation(
        scores: TensorView, lengths: TensorView, table: TensorView, offsets: TensorView, requests: TensorView,
        pages: TensorView
    ) -> SelectPagesOperation {
        SelectPagesOperation(
            scores: scores, lengths: lengths, transform: hasTable ? .table(table) : .offsets(offsets),
            requests: hasTable && hasRequests ? requests : nil, recent: recent, ties: ties, pages: pages)
    }

    /// The pages by definition: a sort.
    package func expected(_ tensors: Tensors) -> [Int] {
        (0..<rows).flatMap { row -> [Int] in
            let length = Int(tensors.lengths.values[row])
            let x = Array(tensors.scores.values[row * width..<(row + 1) * width])
            let kept = min(recent, min(k, length))
            let order = (0..<length - kept).sorted { a, b in
                if x[a].isNaN || x[b].isNaN, !(x[a].isNaN && x[b].isNaN) { return x[a].isNaN }
                if x[a] == x[b] || x[a].isNaN { return ties == .lowest ? a < b : a > b }
                return x[a] > x[b]
            }
            let places = order.prefix(min(k, length) - kept).sorted() + Array(length - kept..<length)
            let request = hasRequests ? Int(tensors.requests.values[row]) : row
            let pages = places.map {
                hasTable
                    ? Int(tensors.table.values[request * (width + 2) + $0]) : $0 + Int(tensors.offsets.values[row])
            }
            return pages + [Int](repeating: -1, count: k - pages.count)
        }
    }
}
