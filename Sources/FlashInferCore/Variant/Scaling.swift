/// What queries or keys are multiplied by as they are loaded: a number for each row of a head, from its site.
///
/// ```swift
/// let logN = Scaling { at in max(log((at.queryPosition + 1).float) / log(Expr<Float>(512)), 1) }   // arXiv 2202.12172
/// let variant = AttentionVariant("log-n", mask: .causal, query: logN)
/// ```
/// Each is computed once for its row, and multiplies the score before the logits see it.
public struct Scaling: Sendable, Hashable {
    private let rule: HookRule<Expr<Float>?>

    /// The factor; `nil` for 1.
    public var expression: Expr<Float>? { rule.expression }

    /// Where it was written.
    public var place: SourcePlace { rule.place }

    /// A factor by its rule: a query's from all of the site but the key's position, a key's from request, key/value head, position
    /// and lengths.
    public init(fileID: String = #fileID, line: Int = #line, _ factor: (_ at: Site) -> Expr<Float>) {
        self.init(factor(Site()), at: SourcePlace(file: fileID, line: line))
    }

    init(_ expression: Expr<Float>?, at place: SourcePlace) { rule = HookRule(expression, at: place) }

    /// As they are.
    public static let none = Scaling(nil, at: SourcePlace(file: #fileID, line: #line))
}
