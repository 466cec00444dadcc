// The operators of expressions. Each also takes a plain number on either side, so that a constant of the surrounding code reads as it
// is; `@_disfavoredOverload` makes a literal an expression and not both.

extension Expr where Value: Numeric {
    private static func term(_ operation: ExprOperation, _ left: Expr, _ right: Expr) -> Expr {
        Expr(graph: .term(operation, Value.expressionType, left.graph, right.graph))
    }

    private static func test(_ operation: ExprOperation, _ left: Expr, _ right: Expr) -> Expr<Bool> {
        Expr<Bool>(graph: .term(operation, .bool, left.graph, right.graph))
    }

    /// The sum.
    public static func + (left: Expr, right: Expr) -> Expr { term(.add, left, right) }
    /// The sum.
    @_disfavoredOverload
    public static func + (left: Expr, right: Value) -> Expr { term(.add, left, Expr(right)) }
    /// The sum.
    @_disfavoredOverload
    public static func + (left: Value, right: Expr) -> Expr { term(.add, Expr(left), right) }

    /// The difference.
    public static func - (left: Expr, right: Expr) -> Expr { term(.subtract, left, right) }
    /// The difference.
    @_disfavoredOverload
    public static func - (left: Expr, right: Value) -> Expr { term(.subtract, left, Expr(right)) }
    /// The difference.
    @_disfavoredOverload
    public static func - (left: Value, right: Expr) -> Expr { term(.subtract, Expr(left), right) }

    /// The product.
    public static func * (left: Expr, right: Expr) -> Expr { term(.multiply, left, right) }
    /// The product.
    @_disfavoredOverload
    public static func * (left: Expr, right: Value) -> Expr { term(.multiply, left, Expr(right)) }
    /// The product.
    @_disfavoredOverload
    public static func * (left: Value, right: Expr) -> Expr { term(.multiply, Expr(left), right) }

    /// The quotient; of whole numbers towards zero, and 0 where the divisor is 0.
    public static func / (left: Expr, right: Expr) -> Expr { term(.divide, left, right) }
    /// The quotient; of whole numbers towards zero, and 0 where the divisor is 0.
    @_disfavoredOverload
    public static func / (left: Expr, right: Value) -> Expr { term(.divide, left, Expr(right)) }
    /// The quotient; of whole numbers towards zero, and 0 where the divisor is 0.
    @_disfavoredOverload
    public static func / (left: Value, right: Expr) -> Expr { term(.divide, Expr(left), right) }

    /// The opposite.
    public static prefix func - (value: Expr) -> Expr { Expr(graph: .term(.negate, Value.expressionType, value.graph)) }

    /// Whether the left is less.
    public static func < (left: Expr, right: Expr) -> Expr<Bool> { test(.less, left, right) }
    /// Whether the left is less.
    @_disfavoredOverload
    public static func < (left: Expr, right: Value) -> Expr<Bool> { test(.less, left, Expr(right)) }
    /// Whether the left is less.
    @_disfavoredOverload
    public static func < (left: Value, right: Expr) -> Expr<Bool> { test(.less, Expr(left), right) }

    /// Whether the left is less or equal.
    public static func <= (left: Expr, right: Expr) -> Expr<Bool> { test(.lessEqual, left, right) }
    /// Whether the left is less or equal.
    @_disfavoredOverload
    public static func <= (left: Expr, right: Value) -> Expr<Bool> { test(.lessEqual, left, Expr(right)) }
    /// Whether the left is less or equal.
    @_disfavoredOverload
    public static func <= (left: Value, right: Expr) -> Expr<Bool> { test(.lessEqual, Expr(left), right) }

    /// Whether the left is greater.
    public static func > (left: Expr, right: Expr) -> Expr<Bool> { test(.less, right, left) }
    /// Whether the left is greater.
    @_disfavoredOverload
    public static func > (left: Expr, right: Value) -> Expr<Bool> { test(.less, Expr(right), left) }
    /// Whether the left is greater.
    @_disfavoredOverload
    public static func > (left: Value, right: Expr) -> Expr<Bool> { test(.less, right, Expr(left)) }

    /// Whether the left is greater or equal.
    public static func >= (left: Expr, right: Expr) -> Expr<Bool> { test(.lessEqual, right, left) }
    /// Whether the left is greater or equal.
    @_disfavoredOverload
    public static func >= (left: Expr, right: Value) -> Expr<Bool> { test(.lessEqual, Expr(right), left) }
    /// Whether the left is greater or equal.
    @_disfavoredOverload
    public static func >= (left: Value, right: Expr) -> Expr<Bool> { test(.lessEqual, right, Expr(left)) }

    /// Whether both are equal.
    public static func == (left: Expr, right: Expr) -> Expr<Bool> { test(.equal, left, right) }
    /// Whether both are equal.
    @_disfavoredOverload
    public static func == (left: Expr, right: Value) -> Expr<Bool> { test(.equal, left, Expr(right)) }
    /// Whether both differ.
    public static func != (left: Expr, right: Expr) -> Expr<Bool> { !test(.equal, left, right) }
    /// Whether both differ.
    @_disfavoredOverload
    public static func != (left: Expr, right: Value) -> Expr<Bool> { !test(.equal, left, Expr(right)) }
}

extension Expr where Value == Int32 {
    private static func whole(_ operation: ExprOperation, _ left: Expr, _ right: Expr) -> Expr {
        Expr(graph: .term(operation, .int, left.graph, right.graph))
    }

    /// The remainder, with the sign of the left; the left where the right is 0.
    public static func % (left: Expr, right: Expr) -> Expr { whole(.remainder, left, right) }
    /// The bits that both have.
    public static func & (left: Expr, right: Expr) -> Expr { whole(.bitAnd, left, right) }
    /// The bits that either has.
    public static func | (left: Expr, right: Expr) -> Expr { whole(.bitOr, left, right) }
    /// The bits that one of both has.
    public static func ^ (left: Expr, right: Expr) -> Expr { whole(.bitXor, left, right) }
    /// Bits moved up, by the lowest five bits of the right.
    public static func << (left: Expr, right: Expr) -> Expr { whole(.shiftLeft, left, right) }
    /// Bits moved down with the sign's, by the lowest five bits of the right.
    public static func >> (left: Expr, right: Expr) -> Expr { whole(.shiftRight, left, right) }
}

extension Expr where Value == Bool {
    private static func truth(_ operation: ExprOperation, _ left: Expr, _ right: Expr) -> Expr {
        Expr(graph: .term(operation, .bool, left.graph, right.graph))
    }

    /// Whether both hold.
    public static func && (left: Expr, right: Expr) -> Expr { truth(.and, left, right) }
    /// Whether either holds.
    public static func || (left: Expr, right: Expr) -> Expr { truth(.or, left, right) }
    /// Whether it does not hold.
    public static prefix func ! (value: Expr) -> Expr { Expr(graph: .term(.not, .bool, value.graph)) }
}
