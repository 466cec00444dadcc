public import FlashInferCore

/// The definition of sampling in double, by plain loops: which tokens may be drawn, and which one a number picks.
public struct SamplingOracle {
    /// Each token's weight where it is certainly or possibly kept, else 0.
    public let weights: [Double]
    /// Tokens whose membership depends on rounding: their mass is within 1e-6 of the top-p boundary.
    public let isBorderline: [Bool]
    private let total: Double

    /// The distribution of one row of finite logits (or −∞), temperature above 0; or of probabilities.
    public init(
        _ logits: [Double], _ row: SampleOperation.Row, joint: Bool = false, form: DistributionForm = .logits
    ) {
        let top = logits.max() ?? 0
        var weights =
            form == .probabilities
            ? logits.map { $0 / top } : logits.map { ElementaryFunctions.exp(($0 - top) / Double(row.temperature)) }
        let whole = weights.reduce(0, +)
        let order = logits.indices.sorted { logits[$0] != logits[$1] ? logits[$0] > logits[$1] : $0 < $1 }
        if row.topK > 0 { for token in order.dropFirst(row.topK) { weights[token] = 0 } }
        // More than none, so that a share of 0 has the greatest.
        let mass = max((joint ? whole : weights.reduce(0, +)) * Double(row.topP), .leastNormalMagnitude)
        var borderline = [Bool](repeating: false, count: logits.count)
        if row.topP < 1 {
            var (above, tied) = (0.0, 0.0)
            var previous = Double.infinity
            var dropped = [Int]()
            for token in order where weights[token] > 0 {
                if logits[token] < previous { (above, tied, previous) = (above + tied, 0, logits[token]) }
                if above >= mass { dropped.append(token) }
                if abs(above - mass) < 1e-6 * whole { borderline[token] = true }
                tied += weights[token]
            }
            for token in dropped { weights[token] = 0 }
        }
        // One rounding of the product, which the operation has as well.
        for token in weights.indices where weights[token] < Double(row.minP) * (1 - 0x1p-23) { weights[token] = 0 }
        self.weights = weights
        isBorderline = borderline
        total = weights.reduce(0, +)
    }

    /// The probability of each token.
    public var probabilities: [Double] { weights.map { $0 / total } }

    /// Whether `token` is what a row's own random number picks, up to rounding of the running sums.
    public func accepts(_ token: Int, of row: SampleOperation.Row) -> Bool {
        accepts(token, uniform: Philox4x32(seed: row.seed, step: row.step).uniform())
    }

    /// Whether `token` is what `uniform` picks, up to rounding of the running sums.
    public func accepts(_ token: Int, uniform: Double) -> Bool {
        guard token >= 0, token < weights.count else { return false }
        if isBorderline.contains(true) { return weights[token] > 0 || isBorderline[token] }
        guard weights[token] > 0 else { return false }
        let before = weights[..<token].reduce(0, +)
        let target = uniform * total
        return target > before - 1e-5 * total && target <= before + weights[token] + 1e-5 * total
    }
}

extension SamplingOracle {
    /// Whether tokens were drawn with these probabilities: Pearson's chi-square, p above 1e-3 after Bonferroni's correction for
    /// `tests` of them. Neighbouring tokens share a cell until it expects 20 draws; a token of no probability fails at once.
    public static func follows(_ tokens: [Int], _ probabilities: [Double], tests: Int = 20) -> Bool {
        var counts = [Double](repeating: 0, count: probabilities.count)
        for token in tokens {
            guard counts.indices.contains(token), probabilities[token] > 0 else { return false }
            counts[token] += 1
        }
        var (statistic, freedom, expected, found) = (0.0, -1.0, 0.0, 0.0)
        for (token, probability) in probabilities.enumerated() {
            expected += probability * Double(tokens.count)
            found += counts[token]
            if expected >= 20 {
                statistic += (found - expected) * (found - expected) / expected
                freedom += 1
                (expected, found) = (0, 0)
            }
        }
        guard freedom > 0 else { return true }
        // Wilson and Hilferty: the cube root is about normal. 4.06 is the quantile of 1 - 1e-3 / 20; wider for more tests.
        let spread = 2 / (9 * freedom)
        let deviate =
            (ElementaryFunctions.pow(statistic / freedom, 1.0 / 3) - (1 - spread)) / spread.squareRoot()
        return deviate < (tests <= 20 ? 4.06 : 4.75)
    }
}

extension SampleOperation.Row {
    /// The same row at each of these steps.
    public func at(steps: Range<Int>) -> [SampleOperation.Row] {
        steps.map { step in
            var row = self
            row.step = UInt64(step)
            return row
        }
    }
}

extension SamplingOracle: CustomStringConvertible {
    /// Short, whatever the vocabulary: a failed expectation prints it.
    public var description: String {
        "\(weights.count) tokens, \(weights.filter { $0 > 0 }.count) kept, of weight \(total)"
    }
}
