/// How logits become the weights of values.
///
/// ```swift
/// let sigmoid = Weights { logit, at in sigmoid(logit - log(at.keyLength.float)) }   // arXiv 2409.04431
/// ```
public struct Weights: Sendable {
    /// The weight of a logit, where each weight depends on its own logit only; `nil` for the softmax.
    public let expression: Expr<Float>?

    /// Where it was written.
    public let place: SourcePlace

    /// Weights that are not normalised: the output is their sum with the values, and there is no log-sum-exp. Keys that the mask hides
    /// have weight 0.
    public init(
        fileID: String = #fileID, line: Int = #line, _ weight: (_ logit: Expr<Float>, _ at: Site) -> Expr<Float>
    ) {
        expression = weight(.score, Site())
        place = SourcePlace(file: fileID, line: line)
    }

    init(_ expression: Expr<Float>, at place: SourcePlace) { (self.expression, self.place) = (expression, place) }

    private init(_ expression: Expr<Float>?) {
        self.expression = expression
        place = SourcePlace(file: #fileID, line: #line)
    }

    /// `exp(logit)` over its sum.
    public static let softmax = Weights(nil)

    /// `sigmoid(logit)`.
    public static let sigmoid = Weights { logit, _ in FlashInferCore.sigmoid(logit) }
}

extension Weights: Hashable {
    /// By what they compute.
    public static func == (left: Weights, right: Weights) -> Bool { left.expression == right.expression }

    /// Feeds what they compute.
    public func hash(into hasher: inout Hasher) { hasher.combine(expression) }
}
