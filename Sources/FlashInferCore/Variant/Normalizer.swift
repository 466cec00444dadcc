/// What a row's weighted sum of values is divided by, once the row is whole: a rule for the logarithm of the softmax's sum.
///
/// ```swift
/// let offByOne = Normalizer { sum, at in max(sum, 0) + log(1 + exp(-abs(sum))) }   // log(1 + exp(sum)): a sink of 0
/// let floor = Normalizer { sum, at in max(sum, 2) }   // rows that match little give little
/// ```
/// The softmax keeps a running pair for each row: the greatest logit `m`, and `s`, the sum of `exp(logit − m)`. Kernels raise `m` when they
/// like and cut rows where they like; what all of them agree on, and what merges of parts keep, is `m + log s`, the logarithm of the sum
/// of `exp(logit)`, sinks included. The hook replaces that number, natural scale, and with it both `m` and `s`: the output is the sum of
/// `exp(logit) · value` over the exponential of what it gives, and that is the row's log-sum-exp. It is asked once for a row, after
/// all parts and the sink have been merged, whatever the plan; so it needs no rule of its own for how parts add up.
///
/// Rows that saw nothing and have no sink are not asked: their output is 0, their log-sum-exp −∞. States of several calls of
/// attention that are merged afterwards have been normalized in each call.
public struct Normalizer: Sendable, Hashable {
    private let rule: HookRule<Expr<Float>?>

    /// The logarithm that is used; `nil` for the sum's own.
    public var expression: Expr<Float>? { rule.expression }

    /// Where it was written.
    public var place: SourcePlace { rule.place }

    /// Logarithms by their rule, from all of the site but the key's position.
    public init(
        fileID: String = #fileID, line: Int = #line,
        _ logSum: (_ logSum: Expr<Float>, _ at: Site) -> Expr<Float>
    ) {
        self.init(logSum(.score, Site()), at: SourcePlace(file: fileID, line: line))
    }

    init(_ expression: Expr<Float>?, at place: SourcePlace) { rule = HookRule(changing: expression, at: place) }

    /// The softmax's own sum.
    public static let plain = Normalizer(nil, at: SourcePlace(file: #fileID, line: #line))
}
