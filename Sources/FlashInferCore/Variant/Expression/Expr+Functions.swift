// The functions of expressions, by their usual names.

/// e to the power `x`.
public func exp(_ x: Expr<Float>) -> Expr<Float> { Expr(graph: .term(.exp, .float, x.graph)) }

/// 2 to the power `x`.
public func exp2(_ x: Expr<Float>) -> Expr<Float> { Expr(graph: .term(.exp2, .float, x.graph)) }

/// The natural logarithm.
public func log(_ x: Expr<Float>) -> Expr<Float> { Expr(graph: .term(.log, .float, x.graph)) }

/// The base-2 logarithm.
public func log2(_ x: Expr<Float>) -> Expr<Float> { Expr(graph: .term(.log2, .float, x.graph)) }

/// The hyperbolic tangent.
public func tanh(_ x: Expr<Float>) -> Expr<Float> { Expr(graph: .term(.tanh, .float, x.graph)) }

/// `1 / (1 + exp(−x))`.
public func sigmoid(_ x: Expr<Float>) -> Expr<Float> { Expr(graph: .term(.sigmoid, .float, x.graph)) }

/// The square root.
public func sqrt(_ x: Expr<Float>) -> Expr<Float> { Expr(graph: .term(.sqrt, .float, x.graph)) }

/// The largest whole number that is not greater.
public func floor(_ x: Expr<Float>) -> Expr<Float> { Expr(graph: .term(.floor, .float, x.graph)) }

/// The sine of an angle in radians.
public func sin(_ x: Expr<Float>) -> Expr<Float> { Expr(graph: .term(.sin, .float, x.graph)) }

/// The cosine of an angle in radians.
public func cos(_ x: Expr<Float>) -> Expr<Float> { Expr(graph: .term(.cos, .float, x.graph)) }

/// The magnitude.
public func abs<Value: Numeric>(_ x: Expr<Value>) -> Expr<Value> {
    Expr(graph: .term(.absolute, Value.expressionType, x.graph))
}

/// The smaller.
public func min<Value: Numeric>(_ x: Expr<Value>, _ y: Expr<Value>) -> Expr<Value> {
    Expr(graph: .term(.minimum, Value.expressionType, x.graph, y.graph))
}

/// The larger.
public func max<Value: Numeric>(_ x: Expr<Value>, _ y: Expr<Value>) -> Expr<Value> {
    Expr(graph: .term(.maximum, Value.expressionType, x.graph, y.graph))
}

/// `x`, but at least `low` and at most `high`.
public func clamp<Value: Numeric>(_ x: Expr<Value>, _ low: Expr<Value>, _ high: Expr<Value>) -> Expr<Value> {
    min(max(x, low), high)
}

/// `x` where `condition` holds, `y` elsewhere. Both are computed.
public func select<Value>(_ condition: Expr<Bool>, _ x: Expr<Value>, _ y: Expr<Value>) -> Expr<Value> {
    Expr(graph: .term(.select, Value.expressionType, condition.graph, x.graph, y.graph))
}
