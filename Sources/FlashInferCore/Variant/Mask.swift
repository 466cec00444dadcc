/// Which keys a query sees: an expression of the site, and what masks are made of.
///
/// ```swift
/// let streaming: Mask = .causal && (.window(left: 4095) || .prefix(4))
/// let local = Mask { at in abs(at.queryPosition - at.keyPosition) <= 128 }
/// ```
/// Masks are equal when their expressions are; where they were written does not count.
public struct Mask: Sendable {
    /// Whether the site's query sees the site's key.
    public let expression: Expr<Bool>

    /// Where it was written.
    public let place: SourcePlace

    /// A mask by its rule.
    public init(fileID: String = #fileID, line: Int = #line, _ isVisible: (Site) -> Expr<Bool>) {
        self.init(isVisible(Site()), at: SourcePlace(file: fileID, line: line))
    }

    init(_ expression: Expr<Bool>, at place: SourcePlace) {
        self.expression = expression
        self.place = place
    }

    /// What both show.
    public static func && (left: Mask, right: Mask) -> Mask {
        Mask(left.expression && right.expression, at: right.place)
    }

    /// What either shows.
    public static func || (left: Mask, right: Mask) -> Mask {
        Mask(left.expression || right.expression, at: right.place)
    }

    /// What the mask hides.
    public static prefix func ! (mask: Mask) -> Mask { Mask(!mask.expression, at: mask.place) }
}

extension Mask: Hashable {
    /// By what they show.
    public static func == (left: Mask, right: Mask) -> Bool { left.expression == right.expression }

    /// Feeds what it shows.
    public func hash(into hasher: inout Hasher) { hasher.combine(expression) }
}

extension Mask: CustomStringConvertible {
    /// The expression's text.
    public var description: String { expression.description }
}
