public import FlashInferCore

/// Rows of logits or probabilities with their filters, drawn from a seed: every width, type, alignment and kind of distribution, with
/// rows among them that have none.
public struct DrawnRows: CustomStringConvertible {
    /// What the numbers are.
    public let form: DistributionForm
    /// Whether top-p is a share of what top-k leaves, or of the whole.
    public let order: SampleOperation.FilterOrder
    /// `[rows, width]`
    public let input: OpsTensor
    /// One for each draw.
    public let rows: [SampleOperation.Row]

    /// - Parameter widest: entries of a row, at most.
    public init(from seed: UInt64, widest: Int) throws {
        var g = SeededGenerator(seed: seed &* 53 &+ 19)
        let form: DistributionForm = g.pick([.logits, .logits, .probabilities])
        order = g.pick([.topKFirst, .joint])
        let width = min(
            g.pick([1, 2, 5, 31, 64, 127, 128, 129, 300, 1_000, 4_096, 20_000, 60_000]) + g.pick([0, 0, 1, 3]), widest)
        let count = width > 5_000 ? g.pick([1, 2, 5]) : g.pick([1, 2, 3, 9, 40])
        let dtype: DType = form == .probabilities ? .float32 : g.pick([.float32, .float16, .bfloat16])
        let input = try OpsTensor(
            dtype, [count, width], padding: g.pick([0, 1, 3, 4, 16]), lead: g.pick([0, 0, 1, 2]))
        // Normal, flat, few values (all ties), one far above, spread over all magnitudes.
        for row in 0..<count {
            let kind = g.pick([0, 0, 0, 1, 2, 3, 4])
            let scale = g.pick([0.1, 1, 3, 10])
            for index in 0..<width {
                var x: Double
                switch kind {
                case 1: x = 0.5
                case 2: x = Double(Int.random(in: -2...2, using: &g))
                case 3: x = index == width / 2 ? 40 : Double(g.normal())
                case 4: x = -Double(index) * 40 / Double(width)
                default: x = Double(g.normal()) * scale
                }
                if Int.random(in: 0..<50, using: &g) == 0 { x = -.infinity }
                input[row * width + index] = form == .logits ? x : ElementaryFunctions.exp(x)
            }
            let place = row * width + Int.random(in: 0..<width, using: &g)
            switch Int.random(in: 0..<24, using: &g) {
            case 0: input[place] = .nan
            case 1: input[place] = .infinity
            case 2: for index in 0..<width { input[row * width + index] = form == .logits ? -.infinity : 0 }
            case 3 where form == .probabilities: input[place] = -1e-6
            default: break
            }
        }
        (self.form, self.input) = (form, input)
        rows = (0..<count).map { index in
            SampleOperation.Row(
                temperature: form == .probabilities ? g.pick([1, 1, 1, 0]) : g.pick([1, 1, 0.7, 0.05, 4, 0, 1e-3]),
                topK: g.pick([0, 0, 0, 1, 2, 7, 50, 64, 127, 128, 129, 255, 256, 257, 1_000, width, width + 1]),
                topP: g.pick([1, 1, 1, 0.9, 0.5, 0.999, 0.1, 1e-6, 0]), minP: g.pick([0, 0, 0, 0.01, 0.3, 1, 1e-7]),
                seed: g.next(), step: UInt64(index))
        }
    }

    /// The rows' filters for ``FilterOperation``, which knows no greedy rows: a temperature of 0 becomes 1.
    public var filters: [FilterOperation.Row] {
        rows.map { row in
            FilterOperation.Row(
                temperature: row.temperature == 0 ? 1 : row.temperature, topK: row.topK, topP: row.topP, minP: row.minP)
        }
    }

    /// The numbers of one row.
    public func values(_ row: Int) -> [Double] {
        let width = input.view.shape[1]
        return (0..<width).map { input[row * width + $0] }
    }

    /// The status that a row must be given.
    public func status(_ row: Int) -> RowStatus {
        let (x, isGreedy) = (values(row), rows[row].temperature == 0)
        if x.contains(where: \.isNaN) { return .notANumber }
        if form == .probabilities, x.contains(where: { $0 < 0 }) { return .negative }
        if x.allSatisfy({ form == .logits ? $0 == -.infinity : $0 == 0 }) { return .empty }
        if !isGreedy, x.contains(.infinity) { return .infinite }
        return .ok
    }

    /// What is wrong with a token and a status found for a row; `nil` for nothing.
    public func problem(_ row: Int, token: Int, status found: Int) -> String? {
        let expected = status(row)
        guard found == Int(expected.rawValue) else { return "row \(row): status \(found), not \(expected)" }
        if expected != .ok { return token == -1 ? nil : "row \(row): token \(token) of a row that is \(expected)" }
        let (x, filter) = (values(row), rows[row])
        if filter.temperature == 0 {
            let greatest = x.indices.reduce(0) { x[$1] > x[$0] ? $1 : $0 }
            return token == greatest ? nil : "row \(row): token \(token), the greatest is \(greatest)"
        }
        let oracle = SamplingOracle(x, filter, joint: order == .joint, form: form)
        return oracle.accepts(token, of: filter) ? nil : "row \(row): token \(token) of \(oracle), \(filter)"
    }

    /// The text shown to people.
    public var description: String {
        "\(form) \(order) \(input.view.dtype) \(input.view.shape) strides \(input.view.strides)"
    }
}
