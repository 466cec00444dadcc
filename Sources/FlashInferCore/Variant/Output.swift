/// What becomes of each element of the output, once its row is finished.
///
/// ```swift
/// let gate = Parameter<Float>("gate", .perHead)
/// let gated = Output { value, at in value * sigmoid(gate[at.head]) }
/// ```
/// It sees the element after the division by the softmax's sum and the cache's scales, in float32, and 0 for rows that saw nothing. The
/// log-sum-exp is that of the scores, so states whose outputs were changed by more than a factor must not be merged.
public struct Output: Sendable, Hashable {
    private let rule: HookRule<Expr<Float>?>

    /// The element that is stored; `nil` for the element itself.
    public var expression: Expr<Float>? { rule.expression }

    /// Where it was written.
    public var place: SourcePlace { rule.place }

    /// Elements by their rule, from all of the site but the key's position.
    public init(
        fileID: String = #fileID, line: Int = #line, _ element: (_ value: Expr<Float>, _ at: Site) -> Expr<Float>
    ) {
        self.init(element(.score, Site()), at: SourcePlace(file: fileID, line: line))
    }

    init(_ expression: Expr<Float>?, at place: SourcePlace) { rule = HookRule(changing: expression, at: place) }

    /// As it is.
    public static let plain = Output(nil, at: SourcePlace(file: #fileID, line: #line))
}
