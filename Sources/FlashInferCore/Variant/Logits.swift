/// What becomes of a score before the softmax: an expression of the score, `scale · (q · k)`, and the site.
///
/// ```swift
/// let gemma = Logits.softCap(50)
/// let relative = Logits { score, at in score + bias[at.head, clamp(at.queryPosition - at.keyPosition, 0, 127)] }
/// let both = gemma.then(relative)
/// ```
/// A score of −∞ hides its key, though only a ``Mask`` saves the work.
public struct Logits: Sendable, Hashable {
    private let rule: HookRule<Expr<Float>>

    /// The logit, natural scale.
    public var expression: Expr<Float> { rule.expression }

    /// Where it was written.
    public var place: SourcePlace { rule.place }

    /// Logits by their rule.
    public init(
        fileID: String = #fileID, line: Int = #line, _ logit: (_ score: Expr<Float>, _ at: Site) -> Expr<Float>
    ) {
        self.init(logit(.score, Site()), at: SourcePlace(file: fileID, line: line))
    }

    init(_ expression: Expr<Float>, at place: SourcePlace) { rule = HookRule(expression, at: place) }

    /// What `next` makes of these logits.
    public func then(_ next: Logits) -> Logits {
        Logits(Expr(graph: next.expression.graph.replacingScore(by: expression.graph)), at: next.place)
    }

    /// The score as it is.
    public static let plain = Logits { score, _ in score }

    /// `cap · tanh(score / cap)` (Gemma 2, arXiv 2408.00118).
    public static func softCap(_ cap: Float, fileID: String = #fileID, line: Int = #line) -> Logits {
        Logits(fileID: fileID, line: line) { score, _ in Expr(cap) * tanh(score / Expr(cap)) }
    }

    /// Adds `slope · (j − i)`, with `j` the key's position and `i` the query's row in its request (arXiv 2108.12409). The slopes are the
    /// run's `alibiSlopes`, or ALiBi's own.
    public static let alibi = Logits { score, at in
        score + Parameter<Float>.alibiSlopes[at.head] * (at.keyPosition - at.queryIndex).float
    }
}

extension Logits: CustomStringConvertible {
    /// The expression's text.
    public var description: String { expression.description }
}

extension Parameter where Value == Float {
    /// ALiBi's slopes: the run's, or those of its paper.
    public static var alibiSlopes: Parameter { Parameter("alibiSlopes", .perHead) }
}

extension Expr where Value == Float {
    /// The score that a hook is given.
    static var score: Expr { Expr(graph: ExprGraph(.init(.score, .float))) }
}
