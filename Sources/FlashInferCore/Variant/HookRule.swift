/// What a hook of a variant computes, and where it was written. Rules are equal when their expressions are: a variant that is written anew,
/// elsewhere, is the same variant and has the same kernels.
struct HookRule<Expression: Hashable & Sendable>: Hashable, Sendable {
    let expression: Expression
    let place: SourcePlace

    init(_ expression: Expression, at place: SourcePlace) { (self.expression, self.place) = (expression, place) }

    static func == (left: HookRule, right: HookRule) -> Bool { left.expression == right.expression }

    func hash(into hasher: inout Hasher) { hasher.combine(expression) }
}

extension HookRule<Expr<Float>?> {
    /// The rule of a hook that is given a number and gives another. One that gives back what it was given is none, so that kernels skip it.
    init(changing expression: Expr<Float>?, at place: SourcePlace) {
        self.init(expression?.graph == Expr<Float>.score.graph ? nil : expression, at: place)
    }
}
