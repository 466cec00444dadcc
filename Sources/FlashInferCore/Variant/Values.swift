/// What becomes of each element of a value as it is loaded.
///
/// ```swift
/// let gate = Parameter<Float>("gate", .perPosition)
/// let gated = Values { value, at in value * sigmoid(gate[at.keyPosition]) }   // forgets tokens, or widens a code of one's own
/// ```
/// It sees the element with the cache's scales, and of the site what a key has: request, key/value head, position and lengths. The sum of
/// the softmax is that of the weights alone, so a factor is not divided away.
///
/// What comes to a factor of the row, however it is written, is multiplied into the weights on a GPU, once for each key; anything
/// else is computed for each element. Either is rounded once more to the type of the products: with float16 queries, factors
/// belong between 2^−8 and 2^7. Elements of keys that a mask hides may be asked for too, and must not become NaN.
public struct Values: Sendable, Hashable {
    private let rule: HookRule<Expr<Float>?>

    /// The element that is used; `nil` for the element itself.
    public var expression: Expr<Float>? { rule.expression }

    /// Where it was written.
    public var place: SourcePlace { rule.place }

    /// Elements by their rule.
    public init(
        fileID: String = #fileID, line: Int = #line, _ element: (_ value: Expr<Float>, _ at: Site) -> Expr<Float>
    ) {
        self.init(element(.score, Site()), at: SourcePlace(file: fileID, line: line))
    }

    init(_ expression: Expr<Float>?, at place: SourcePlace) { rule = HookRule(changing: expression, at: place) }

    /// As they are.
    public static let plain = Values(nil, at: SourcePlace(file: #fileID, line: #line))
}

extension ExprGraph {
    /// What the score is multiplied by, where the result is the score times something without it; else `nil`.
    package var factorOfScore: ExprGraph? {
        /// What is known of a term: whether it has the score in it, and whether it is then a multiple of it.
        enum Share { case none, multiple, other }
        var shares: [Share] = []
        for node in nodes {
            let operands = node.operands.map { shares[$0] }
            let share: Share =
                switch node.operation {
                case .score: .multiple
                case _ where operands.allSatisfy { $0 == .none }: .none
                case .multiply: operands.contains(.none) && !operands.contains(.other) ? .multiple : .other
                case .divide: operands[0] == .multiple && operands[1] == .none ? .multiple : .other
                case .add, .subtract: operands.allSatisfy { $0 == .multiple } ? .multiple : .other
                case .negate: operands[0]
                case .select:
                    operands[0] == .none && operands[1] == .multiple && operands[2] == .multiple ? .multiple : .other
                default: .other
                }
            shares.append(share)
        }
        return shares[root] == .multiple ? replacingScore(by: .constant(Float(1))) : nil
    }
}
