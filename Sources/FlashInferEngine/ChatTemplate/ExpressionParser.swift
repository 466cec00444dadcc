/// Parses what stands between the braces of one tag, with Jinja's precedences.
struct ExpressionParser {
    private let tokens: [TemplateToken]
    private let line: Int
    private var position = 0
    private var depth = 0

    init(_ tokens: [TemplateToken], line: Int) {
        self.tokens = tokens
        self.line = line
    }

    private func error(_ reason: String) -> ChatTemplateError { .syntax(line: line, reason: reason) }

    private var next: TemplateToken? { position < tokens.count ? tokens[position] : nil }

    var isAtEnd: Bool { position == tokens.count }

    func end() throws(ChatTemplateError) {
        if let next { throw error("unexpected \(next)") }
    }

    mutating func take(symbol: String) -> Bool {
        guard next == .symbol(symbol) else { return false }
        position += 1
        return true
    }

    mutating func take(name: String) -> Bool {
        guard next == .name(name) else { return false }
        position += 1
        return true
    }

    mutating func expect(symbol: String) throws(ChatTemplateError) {
        guard take(symbol: symbol) else { throw error("expected \(symbol)") }
    }

    mutating func expect(name: String) throws(ChatTemplateError) {
        guard take(name: name) else { throw error("expected \(name)") }
    }

    mutating func name() throws(ChatTemplateError) -> String {
        guard case .name(let name) = next else { throw error("expected a name") }
        position += 1
        return name
    }

    /// Names joined by commas, in parentheses or not.
    mutating func targets() throws(ChatTemplateError) -> [String] {
        let isEnclosed = take(symbol: "(")
        var names = [try name()]
        while take(symbol: ",") { names.append(try name()) }
        if isEnclosed { try expect(symbol: ")") }
        return names
    }

    private func node(_ kind: TemplateExpression.Kind) throws(ChatTemplateError) -> TemplateExpression {
        let node = TemplateExpression(kind)
        if node.depth > ChatTemplateLimits.depth / 2 {
            throw .limit(what: "nested expressions", limit: ChatTemplateLimits.depth / 2)
        }
        return node
    }

    /// One expression, or several joined by commas, which are a list.
    mutating func tuple(allowsCondition: Bool = true) throws(ChatTemplateError) -> TemplateExpression {
        let first = allowsCondition ? try expression() : try disjunction()
        guard next == .symbol(",") else { return first }
        var items = [first]
        while take(symbol: ","), !isAtEnd, next != .symbol(")") {
            items.append(allowsCondition ? try expression() : try disjunction())
        }
        return try node(.list(items, isTuple: true))
    }

    mutating func expression() throws(ChatTemplateError) -> TemplateExpression {
        depth += 1
        defer { depth -= 1 }
        if depth > ChatTemplateLimits.depth / 4 {
            throw .limit(what: "nested expressions", limit: ChatTemplateLimits.depth / 4)
        }
        var value = try disjunction()
        while take(name: "if") {
            let condition = try disjunction()
            let otherwise = take(name: "else") ? try expression() : try node(.undefined)
            value = try node(.conditional(condition, then: value, otherwise: otherwise))
        }
        return value
    }

    private mutating func disjunction() throws(ChatTemplateError) -> TemplateExpression {
        var value = try conjunction()
        while take(name: "or") { value = try node(.either(value, try conjunction())) }
        return value
    }

    private mutating func conjunction() throws(ChatTemplateError) -> TemplateExpression {
        var value = try negation()
        while take(name: "and") { value = try node(.both(value, try negation())) }
        return value
    }

    private mutating func negation() throws(ChatTemplateError) -> TemplateExpression {
        var count = 0
        while take(name: "not") { count += 1 }
        if count > ChatTemplateLimits.depth { throw .limit(what: "negations", limit: ChatTemplateLimits.depth) }
        var value = try comparison()
        for _ in 0..<count { value = try node(.not(value)) }
        return value
    }

    private mutating func comparison() throws(ChatTemplateError) -> TemplateExpression {
        let first = try arithmetic(level: 0)
        var rest: [(operation: String, operand: TemplateExpression)] = []
        while let operation = comparisonOperator() { rest.append((operation, try arithmetic(level: 0))) }
        return rest.isEmpty ? first : try node(.comparison(first, rest))
    }

    private mutating func comparisonOperator() -> String? {
        for symbol in ["==", "!=", "<=", ">=", "<", ">"] where take(symbol: symbol) { return symbol }
        if take(name: "in") { return "in" }
        if next == .name("not"), position + 1 < tokens.count, tokens[position + 1] == .name("in") {
            position += 2
            return "not in"
        }
        return nil
    }

    /// Binary operators from the loosest level to the tightest.
    private static let levels = [["+", "-"], ["~"], ["*", "//", "/", "%"], ["**"]]

    private mutating func arithmetic(level: Int) throws(ChatTemplateError) -> TemplateExpression {
        guard level < Self.levels.count else { return try unary() }
        var value = try arithmetic(level: level + 1)
        while let symbol = Self.levels[level].first(where: { next == .symbol($0) }) {
            position += 1
            value = try node(.binary(symbol, value, try arithmetic(level: level + 1)))
        }
        return value
    }

    private mutating func unary() throws(ChatTemplateError) -> TemplateExpression {
        var signs: [String] = []
        while let sign = ["-", "+"].first(where: { next == .symbol($0) }) {
            signs.append(sign)
            position += 1
        }
        if signs.count > ChatTemplateLimits.depth { throw .limit(what: "signs", limit: ChatTemplateLimits.depth) }
        var value = try postfix(try primary())
        for sign in signs.reversed() { value = try node(sign == "-" ? .negate(value) : .plus(value)) }
        return try filters(value)
    }

    private mutating func primary() throws(ChatTemplateError) -> TemplateExpression {
        guard let token = next else { throw error("expected an expression") }
        position += 1
        switch token {
        case .int(let value): return try node(.int(value))
        case .double(let value): return try node(.double(value))
        case .string(var text):
            while case .string(let more) = next {
                text += more
                position += 1
            }
            return try node(.string(text))
        case .name(let name):
            switch name {
            case "true", "True": return try node(.bool(true))
            case "false", "False": return try node(.bool(false))
            case "none", "None": return try node(.none)
            case "if", "else", "and", "or", "not", "in", "is": throw error("unexpected \(name)")
            default: return try node(.name(name))
            }
        case .symbol("("):
            if take(symbol: ")") { return try node(.list([], isTuple: true)) }
            let value = try nestedTuple()
            try expect(symbol: ")")
            return value
        case .symbol("["): return try node(.list(try list(until: "]"), isTuple: false))
        case .symbol("{"): return try object()
        case .symbol(let symbol): throw error("unexpected \(symbol)")
        }
    }

    private mutating func nestedTuple() throws(ChatTemplateError) -> TemplateExpression {
        try tuple()
    }

    private mutating func list(until end: String) throws(ChatTemplateError) -> [TemplateExpression] {
        var items: [TemplateExpression] = []
        while !take(symbol: end) {
            if !items.isEmpty {
                try expect(symbol: ",")
                if take(symbol: end) { break }
            }
            items.append(try expression())
        }
        return items
    }

    private mutating func object() throws(ChatTemplateError) -> TemplateExpression {
        var members: [(key: TemplateExpression, value: TemplateExpression)] = []
        while !take(symbol: "}") {
            if !members.isEmpty {
                try expect(symbol: ",")
                if take(symbol: "}") { break }
            }
            let key = try expression()
            try expect(symbol: ":")
            members.append((key, try expression()))
        }
        return try node(.object(members))
    }

    /// Attributes, items, slices and calls.
    private mutating func postfix(_ base: TemplateExpression) throws(ChatTemplateError) -> TemplateExpression {
        var value = base
        while true {
            if take(symbol: ".") {
                if case .int(let index) = next {
                    position += 1
                    value = try node(.item(value, try node(.int(index))))
                } else {
                    value = try node(.attribute(value, try name()))
                }
            } else if take(symbol: "[") {
                value = try item(of: value)
            } else if take(symbol: "(") {
                value = try node(.call(value, try arguments()))
            } else {
                return value
            }
        }
    }

    private mutating func item(of base: TemplateExpression) throws(ChatTemplateError) -> TemplateExpression {
        var bounds: [TemplateExpression?] = []
        var isSlice = false
        var current: TemplateExpression?
        while !take(symbol: "]") {
            if take(symbol: ":") {
                isSlice = true
                bounds.append(current)
                current = nil
            } else {
                guard current == nil else { throw error("expected ]") }
                current = try expression()
            }
        }
        bounds.append(current)
        if isSlice {
            guard bounds.count <= 3 else { throw error("a slice has at most three parts") }
            return try node(.slice(base, bounds))
        }
        guard let current else { throw error("expected an index") }
        return try node(.item(base, current))
    }

    private mutating func arguments() throws(ChatTemplateError) -> TemplateArguments {
        var arguments = TemplateArguments()
        var isFirst = true
        while !take(symbol: ")") {
            if !isFirst {
                try expect(symbol: ",")
                if take(symbol: ")") { break }
            }
            isFirst = false
            if case .name(let name) = next, position + 1 < tokens.count, tokens[position + 1] == .symbol("=") {
                position += 2
                arguments.named.append((name, try expression()))
            } else {
                guard arguments.named.isEmpty else { throw error("a positional argument after a named one") }
                arguments.positional.append(try expression())
            }
        }
        return arguments
    }

    /// Filters and tests.
    private mutating func filters(_ base: TemplateExpression) throws(ChatTemplateError) -> TemplateExpression {
        var value = base
        while true {
            if take(symbol: "|") {
                let name = try name()
                let arguments = take(symbol: "(") ? try arguments() : TemplateArguments()
                guard TemplateRenderer.filterNames.contains(name) else { throw error("unknown filter \(name)") }
                value = try node(.filter(value, name, arguments))
            } else if take(name: "is") {
                let negated = take(name: "not")
                let name = try name()
                guard TemplateRenderer.testNames.contains(name) else { throw error("unknown test \(name)") }
                value = try node(.test(value, name, try testArguments(), negated: negated))
            } else {
                return value
            }
        }
    }

    /// A test takes its argument in parentheses, or one operand without them.
    private mutating func testArguments() throws(ChatTemplateError) -> TemplateArguments {
        if take(symbol: "(") { return try arguments() }
        switch next {
        case .int, .double, .string, .symbol("["), .symbol("{"): break
        case .name(let name) where !["if", "else", "and", "or", "not", "in", "is"].contains(name): break
        default: return TemplateArguments()
        }
        var arguments = TemplateArguments()
        arguments.positional = [try postfix(try primary())]
        return arguments
    }
}
