/// Which keys a query sees: an expression of the site, and what masks are made of.
///
/// ```swift
/// let streaming: Mask = .causal && (.window(left: 4095) || .prefix(4))
/// let local = Mask { at in abs(at.queryPosition - at.keyPosition) <= 128 }
/// ```
/// Masks are equal when their expressions are; where they were written does not count.
public struct Mask: Sendable, Hashable {
    private let rule: HookRule<Expr<Bool>>

    /// Whether the site's query sees the site's key.
    public var expression: Expr<Bool> { rule.expression }

    /// Where it was written.
    public var place: SourcePlace { rule.place }

    /// A mask by its rule.
    public init(fileID: String = #fileID, line: Int = #line, _ isVisible: (Site) -> Expr<Bool>) {
        self.init(isVisible(Site()), at: SourcePlace(file: fileID, line: line))
    }

    init(_ expression: Expr<Bool>, at place: SourcePlace) { rule = HookRule(expression, at: place) }

    /// What both show.
    public static func && (left: Mask, right: Mask) -> Mask {
        Mask(left.expression && right.expression, at: place(left, right))
    }

    /// What either shows.
    public static func || (left: Mask, right: Mask) -> Mask {
        Mask(left.expression || right.expression, at: place(left, right))
    }

    /// Where two were put together, as far as one knows: the second, or the first where the second is a constant of the library.
    private static func place(_ left: Mask, _ right: Mask) -> SourcePlace {
        right.place.isOfLibrary ? left.place : right.place
    }

    /// What the mask hides.
    public static prefix func ! (mask: Mask) -> Mask { Mask(!mask.expression, at: mask.place) }
}

extension Mask: CustomStringConvertible {
    /// The expression's text.
    public var description: String { expression.description }
}
