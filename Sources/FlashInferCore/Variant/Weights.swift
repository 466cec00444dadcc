/// How logits become the weights of values.
///
/// ```swift
/// let weights = Weights { logit, at in sigmoid(logit - log(at.keyLength.float)) }   // arXiv 2409.04431
/// ```
public struct Weights: Sendable, Hashable {
    private let rule: HookRule<Expr<Float>?>

    /// The weight of a logit, where each weight depends on its own logit only; `nil` for the softmax.
    public var expression: Expr<Float>? { rule.expression }

    /// Where it was written.
    public var place: SourcePlace { rule.place }

    /// Weights that are not normalised: the output is their sum with the values, and there is no log-sum-exp. Keys that the mask hides
    /// have weight 0.
    public init(
        fileID: String = #fileID, line: Int = #line, _ weight: (_ logit: Expr<Float>, _ at: Site) -> Expr<Float>
    ) {
        self.init(weight(.score, Site()), at: SourcePlace(file: fileID, line: line))
    }

    init(_ expression: Expr<Float>?, at place: SourcePlace) { rule = HookRule(expression, at: place) }

    /// `exp(logit)` over its sum.
    public static let softmax = Weights(nil, at: SourcePlace(file: #fileID, line: #line))

    /// `sigmoid(logit)`.
    public static let sigmoid = Weights { logit, _ in FlashInferCore.sigmoid(logit) }
}
