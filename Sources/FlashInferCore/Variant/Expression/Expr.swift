/// A value that attention computes for each pair of a query and a key, written as ordinary Swift and kept as a term to be
/// analysed and compiled.
///
/// ```swift
/// let window: Expr<Bool> = at.queryPosition - at.keyPosition <= 4095
/// ```
/// Numbers are float32, or int32 that wraps; `x / 0` of whole numbers is 0 and `x % 0` is `x`. Comparisons are those of Swift:
/// `==` gives an `Expr<Bool>` where one is expected.
///
/// Two expressions are equal when they are the same terms after constants are folded and what does nothing is left out, so an
/// expression can be a key. Its ``description`` is deterministic.
public struct Expr<Value: ExprValue>: Sendable, Hashable {
    /// The terms.
    package let graph: ExprGraph

    package init(graph: ExprGraph) {
        precondition(graph.type == Value.expressionType, "the terms have the type's result")
        self.graph = graph
    }
}

/// A type that expressions have: `Float`, `Int32` and `Bool`.
public protocol ExprValue: Sendable, Hashable {
    /// The expression of a constant.
    static func expression(_ value: Self) -> Expr<Self>
}

extension ExprValue {
    /// The type's name among the terms.
    package static var expressionType: ExprType {
        Self.self == Float.self ? .float : Self.self == Int32.self ? .int : .bool
    }
}

extension Float: ExprValue {
    /// The expression of a constant.
    public static func expression(_ value: Float) -> Expr<Float> { Expr(graph: .constant(value)) }
}

extension Int32: ExprValue {
    /// The expression of a constant.
    public static func expression(_ value: Int32) -> Expr<Int32> { Expr(graph: .constant(value)) }
}

extension Bool: ExprValue {
    /// The expression of a constant.
    public static func expression(_ value: Bool) -> Expr<Bool> { Expr(graph: .constant(value)) }
}

extension Expr {
    /// A constant.
    public init(_ value: Value) { self = Value.expression(value) }
}

extension Expr where Value == Int32 {
    /// A constant.
    ///
    /// - Precondition: it fits in 32 bits.
    public init(_ value: Int) { self.init(Int32(value)) }

    /// As floating point, rounded to the nearest.
    public var float: Expr<Float> { Expr<Float>(graph: .term(.toFloat, .float, graph)) }
}

extension Expr where Value == Float {
    /// As a whole number, rounded towards zero; what does not fit becomes the nearest that does, and NaN zero.
    public var int: Expr<Int32> { Expr<Int32>(graph: .term(.toInt, .int, graph)) }
}

extension Expr: ExpressibleByIntegerLiteral where Value: ExpressibleByIntegerLiteral {
    /// A constant.
    public init(integerLiteral value: Value.IntegerLiteralType) { self.init(Value(integerLiteral: value)) }
}

extension Expr: ExpressibleByFloatLiteral where Value: ExpressibleByFloatLiteral {
    /// A constant.
    public init(floatLiteral value: Value.FloatLiteralType) { self.init(Value(floatLiteral: value)) }
}

extension Expr: ExpressibleByBooleanLiteral where Value: ExpressibleByBooleanLiteral {
    /// A constant.
    public init(booleanLiteral value: Value.BooleanLiteralType) { self.init(Value(booleanLiteral: value)) }
}

extension Expr: CustomStringConvertible {
    /// The terms as text, the same for equal expressions; see `ExprGraph`.
    public var description: String { graph.description }
}
