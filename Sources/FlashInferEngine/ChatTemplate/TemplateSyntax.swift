/// An expression of a template.
final class TemplateExpression: Sendable {
    enum Kind: Sendable {
        case undefined
        case none
        case bool(Bool)
        case int(Int)
        case double(Double)
        case string(String)
        case name(String)
        case list([TemplateExpression], isTuple: Bool)
        case object([(key: TemplateExpression, value: TemplateExpression)])
        case attribute(TemplateExpression, String)
        case item(TemplateExpression, TemplateExpression)
        case slice(TemplateExpression, [TemplateExpression?])
        case call(TemplateExpression, TemplateArguments)
        case filter(TemplateExpression, String, TemplateArguments)
        case test(TemplateExpression, String, TemplateArguments, negated: Bool)
        case not(TemplateExpression)
        case negate(TemplateExpression)
        case plus(TemplateExpression)
        case both(TemplateExpression, TemplateExpression)
        case either(TemplateExpression, TemplateExpression)
        case binary(String, TemplateExpression, TemplateExpression)
        case comparison(TemplateExpression, [(operation: String, operand: TemplateExpression)])
        case conditional(TemplateExpression, then: TemplateExpression, otherwise: TemplateExpression)
    }

    let kind: Kind
    /// How many expressions lie above the deepest one in it, itself counted.
    let depth: Int

    init(_ kind: Kind) {
        self.kind = kind
        self.depth = 1 + (Self.children(kind).map(\.depth).max() ?? 0)
    }

    private static func children(_ kind: Kind) -> [TemplateExpression] {
        switch kind {
        case .undefined, .none, .bool, .int, .double, .string, .name: []
        case .list(let items, _): items
        case .object(let members): members.flatMap { [$0.key, $0.value] }
        case .attribute(let base, _), .not(let base), .negate(let base), .plus(let base): [base]
        case .item(let base, let key): [base, key]
        case .slice(let base, let bounds): [base] + bounds.compactMap { $0 }
        case .call(let base, let arguments), .filter(let base, _, let arguments),
            .test(let base, _, let arguments, _):
            [base] + arguments.positional + arguments.named.map(\.value)
        case .both(let left, let right), .either(let left, let right), .binary(_, let left, let right): [left, right]
        case .comparison(let first, let rest): [first] + rest.map(\.operand)
        case .conditional(let condition, let then, let otherwise): [condition, then, otherwise]
        }
    }
}

/// What a call, filter or test is given.
struct TemplateArguments: Sendable {
    var positional: [TemplateExpression] = []
    var named: [(name: String, value: TemplateExpression)] = []
}

/// A statement of a template.
indirect enum TemplateStatement: Sendable {
    case text(String)
    case output(TemplateExpression)
    case condition([(condition: TemplateExpression, body: [TemplateStatement])], otherwise: [TemplateStatement])
    case loop(TemplateLoop)
    case set([String], TemplateExpression)
    case setAttribute(of: String, String, TemplateExpression)
    case setBlock(String, [TemplateStatement])
    case macro(TemplateMacro)
    case leave
    case next
}

/// `{% for … %}`
struct TemplateLoop: Sendable {
    var targets: [String]
    var items: TemplateExpression
    var condition: TemplateExpression?
    var body: [TemplateStatement]
    var otherwise: [TemplateStatement]
}

/// `{% macro … %}`
struct TemplateMacro: Sendable {
    var name: String
    var parameters: [(name: String, value: TemplateExpression?)]
    var body: [TemplateStatement]
}
