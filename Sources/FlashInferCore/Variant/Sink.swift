/// What a row's softmax starts from: a logit that joins its sum and has no value, so that a head may attend to nothing.
///
/// In terms of the running state, a row starts at maximum `logit`, sum 1 and output 0. It joins once for a row, when all of its
/// parts have been merged, so how a plan cuts keys does not matter.
public enum Sink: Sendable, Hashable {
    /// None: a row starts at maximum −∞ and sum 0.
    case none
    /// The run's `sinks`, one for each head (GPT-OSS).
    case perHead
    /// One number for all heads; 0 is "softmax plus one".
    case logit(Float)
    /// A number for each row, from its site.
    case rule(SinkRule)

    /// A logit by its rule: all of the site but the key's position.
    ///
    /// ```swift
    /// let strength = Parameter<Float>("strength", .perHead)
    /// let sink = Sink.computed { at in strength[at.head] - log((at.queryPosition + 1).float) }
    /// ```
    public static func computed(
        fileID: String = #fileID, line: Int = #line, _ logit: (_ at: Site) -> Expr<Float>
    ) -> Sink {
        Sink(logit(Site()), at: SourcePlace(file: fileID, line: line))
    }

    /// The state that a row starts from, as another attention would have left it over keys whose values are 0: its greatest logit, and
    /// the sum of `exp(logit − maximum)`, above 0. The same as a sink of `maximum + log(sum)`.
    public static func initial(
        fileID: String = #fileID, line: Int = #line,
        _ state: (_ at: Site) -> (maximum: Expr<Float>, sum: Expr<Float>)
    ) -> Sink {
        let (maximum, sum) = state(Site())
        return Sink(maximum + log(sum), at: SourcePlace(file: fileID, line: line))
    }

    /// Where its rule was written; of one without a rule, here.
    package var place: SourcePlace {
        if case .rule(let rule) = self { rule.place } else { SourcePlace(file: #fileID, line: #line) }
    }

    /// A constant is one number for all heads.
    init(_ expression: Expr<Float>, at place: SourcePlace) {
        let root = expression.graph.nodes[expression.graph.root]
        if root.operation == .constant, !root.float.isNaN {
            self = root.float == -.infinity ? .none : .logit(root.float)
        } else {
            self = .rule(SinkRule(expression, at: place))
        }
    }
}

/// A sink's logit as an expression, and where it was written.
public struct SinkRule: Sendable, Hashable {
    private let rule: HookRule<Expr<Float>>

    /// The logit, natural scale; −∞ for none.
    public var expression: Expr<Float> { rule.expression }

    /// Where it was written.
    public var place: SourcePlace { rule.place }

    init(_ expression: Expr<Float>, at place: SourcePlace) { rule = HookRule(expression, at: place) }
}
