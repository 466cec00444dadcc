package import FlashInferCore

/// Random expressions of bounded size. Conditions are of whole numbers, so that no rounding decides what is seen, and logits are
/// smooth and bounded, so that errors stay small.
package struct RandomExpression {
    package var random: SeededGenerator
    package let documents = Parameter<Int32>("documents", .perPosition)
    package let lengths = Parameter<Int32>("lengths", .perRequest)
    package let gains = Parameter<Float>("gains", .perHead)
    package let bias = Parameter<Float>("bias", .perHeadTable(count: 9))
    package let table = Parameter<Int32>("table", .table(count: 5))
    package let shift = Parameter<Float>("shift", .scalar)

    package init(seed: UInt64) { random = SeededGenerator(seed: seed) }

    /// Elements for all of the parameters.
    package mutating func values(_ geometry: BatchGeometry, _ shape: AttentionShape) -> [String: ParameterValue] {
        func floats(_ count: Int) -> [Float] { (0..<count).map { _ in Float.random(in: -1...1, using: &random) } }
        let positions = (0..<geometry.requestCount).reduce(1) { max($0, geometry.kvLength($1)) } + 3
        var ids: [Int32] = []
        for _ in 0..<geometry.requestCount {
            var id: Int32 = 0
            for _ in 0..<positions {
                if Int.random(in: 0..<20, using: &random) == 0 { id += 1 }
                ids.append(id)
            }
        }
        return [
            "documents": ParameterValue(ids),
            "lengths": ParameterValue(
                (0..<geometry.requestCount).map { _ in Int32.random(in: 0...40, using: &random) }),
            "gains": ParameterValue(floats(shape.queryHeads)), "bias": ParameterValue(floats(shape.queryHeads * 9)),
            "table": ParameterValue((0..<5).map { _ in Int32.random(in: -3...30, using: &random) }),
            "shift": ParameterValue(floats(1)),
        ]
    }

    /// A whole number.
    package mutating func int(_ at: Site, depth: Int) -> Expr<Int32> {
        let leaves: [Expr<Int32>] = [
            at.queryPosition, at.keyPosition, at.queryPosition, at.keyPosition, at.queryIndex, at.head, at.kvHead,
            at.keyLength, at.queryLength, at.request, Expr(Int32.random(in: -9...40, using: &random)),
            documents[at.keyPosition], documents[at.queryPosition], lengths[at.request],
        ]
        if depth == 0 { return leaves.randomElement(using: &random)! }
        let (a, b) = (int(at, depth: depth - 1), int(at, depth: Int.random(in: 0..<depth, using: &random)))
        let small = Expr<Int32>(Int32.random(in: 1...7, using: &random))
        switch Int.random(in: 0..<16, using: &random) {
        case 0, 1: return a + b
        case 2, 3: return a - b
        case 4: return a * small
        case 5: return a / small
        case 6: return a % small
        case 7: return a / b
        case 8: return a % b
        case 9: return min(a, b)
        case 10: return max(a, b)
        case 11: return abs(a)
        case 12: return select(bool(at, depth: depth - 1), a, b)
        case 13: return a & b
        case 14: return (a ^ b) >> small
        default: return table[a]
        }
    }

    /// A condition.
    package mutating func bool(_ at: Site, depth: Int) -> Expr<Bool> {
        if depth == 0 { return at.keyPosition <= at.queryPosition }
        switch Int.random(in: 0..<8, using: &random) {
        case 0, 1: return int(at, depth: depth - 1) <= int(at, depth: depth - 1)
        case 2: return int(at, depth: depth - 1) < int(at, depth: depth - 1)
        case 3: return documents[at.queryPosition] == documents[at.keyPosition]
        case 4: return int(at, depth: depth - 1) == int(at, depth: depth - 1)
        case 5: return bool(at, depth: depth - 1) && bool(at, depth: depth - 1)
        case 6: return bool(at, depth: depth - 1) || bool(at, depth: depth - 1)
        default: return !bool(at, depth: depth - 1)
        }
    }

    /// A number of moderate size.
    package mutating func float(_ at: Site, _ score: Expr<Float>, depth: Int) -> Expr<Float> {
        let leaves: [Expr<Float>] = [
            score, score, score, gains[at.head], shift.value, bias[at.head, int(at, depth: 1)],
            Expr(Float.random(in: -2...2, using: &random)), tanh((at.keyPosition - at.queryPosition).float * 0.01),
        ]
        if depth == 0 { return leaves.randomElement(using: &random)! }
        let (a, b) = (
            float(at, score, depth: depth - 1), float(at, score, depth: Int.random(in: 0..<depth, using: &random))
        )
        switch Int.random(in: 0..<17, using: &random) {
        case 0: return a + b
        case 1: return a - b
        case 2: return 3 * tanh(a * b * 0.1)
        case 3: return a / (1 + abs(b))
        case 4: return min(a, b)
        case 5: return max(a, b)
        case 6: return -a
        case 7: return 4 * sigmoid(a)
        case 8: return exp(clamp(a, -4, 2))
        case 9: return exp2(clamp(a, -4, 2))
        case 10: return log(1 + abs(a))
        case 11: return log2(1 + abs(a))
        case 12: return sqrt(0.1 + abs(a))
        case 13: return sin(a)
        case 14: return cos(a)
        case 15: return select(bool(at, depth: 1), a, b)
        default: return a + 0.01 * int(at, depth: 1).float
        }
    }

    /// A whole variant.
    package mutating func variant(_ name: String) -> AttentionVariant {
        var copy = self
        let mask = Mask { copy.bool($0, depth: 3) }
        let logits = Logits { copy.float($1, $0, depth: 3) }
        let weights =
            Int.random(in: 0..<5, using: &copy.random) == 0
            ? Weights { score, at in sigmoid(copy.float(at, score, depth: 1)) } : .softmax
        self = copy
        var variant = AttentionVariant(
            name, mask: Bool.random(using: &random) ? mask : mask || .causal, logits: logits, weights: weights)
        addHooks(&variant)
        return variant
    }

    /// Hooks of values and of the running state, some of the time.
    private mutating func addHooks(_ variant: inout AttentionVariant) {
        var copy = self
        switch Int.random(in: 0..<4, using: &copy.random) {
        // A factor of the row, between 2^−4 and 2^2.
        case 0: variant.value = Values { value, at in value * exp2(clamp(copy.keyNumber(at), -4, 2)) }
        case 1: variant.value = Values { value, at in 2 * tanh(value * copy.keyNumber(at)) - 0.5 * value }
        default: break
        }
        if variant.weights == .softmax {
            switch Int.random(in: 0..<3, using: &copy.random) {
            case 0: variant.sink = .computed { at in copy.rowNumber(at) }
            case 1: variant.sink = .initial { at in (copy.rowNumber(at), 0.1 + abs(copy.rowNumber(at))) }
            default: break
            }
            switch Int.random(in: 0..<3, using: &copy.random) {
            case 0: variant.normalizer = Normalizer { sum, at in max(sum, copy.rowNumber(at)) }
            case 1: variant.normalizer = Normalizer { sum, at in 0.5 * sum + copy.rowNumber(at) }
            default: break
            }
        }
        self = copy
    }

    /// A number of a key's row of values.
    private mutating func keyNumber(_ at: Site) -> Expr<Float> {
        let numbers: [Expr<Float>] = [
            sin(at.keyPosition.float * 0.1), gains[at.kvHead] + 0.5, shift.value,
            documents[at.keyPosition].float * 0.2 - 1, cos((at.keyLength - at.keyPosition).float * 0.05),
            select(at.keyPosition % 3 == 0, Expr<Float>(0.5), gains[at.kvHead]),
        ]
        return numbers.randomElement(using: &random)! + 0.5 * numbers.randomElement(using: &random)!
    }

    /// A number of a query's row.
    private mutating func rowNumber(_ at: Site) -> Expr<Float> {
        let numbers: [Expr<Float>] = [
            gains[at.head], log((max(at.queryPosition, 0) + 2).float), shift.value * 2, sin(at.queryIndex.float),
            bias[at.head, at.queryIndex % 9], Expr(Float.random(in: -2...2, using: &random)),
        ]
        return numbers.randomElement(using: &random)! + numbers.randomElement(using: &random)!
    }
}
