/// Turns the segments of a template into statements.
struct TemplateParser {
    private let segments: [TemplateSegment]
    private var index = 0
    private var depth = 0

    init(_ segments: [TemplateSegment]) {
        self.segments = segments
    }

    mutating func template() throws(ChatTemplateError) -> [TemplateStatement] {
        let (body, end) = try statements(until: [])
        if let end { throw .syntax(line: end.line, reason: "unexpected \(end.name)") }
        return body
    }

    private typealias End = (name: String, line: Int, parser: ExpressionParser)

    /// Statements up to a block tag with one of the names, which is consumed; all of them when there are none.
    private mutating func statements(
        until names: Set<String>
    ) throws(ChatTemplateError) -> ([TemplateStatement], End?) {
        depth += 1
        defer { depth -= 1 }
        if depth > ChatTemplateLimits.depth / 4 {
            throw .limit(what: "nested blocks", limit: ChatTemplateLimits.depth / 4)
        }
        var body: [TemplateStatement] = []
        while index < segments.count {
            let segment = segments[index]
            index += 1
            switch segment.content {
            case .text(let text): body.append(.text(text))
            case .output(let tokens):
                var parser = ExpressionParser(tokens, line: segment.line)
                body.append(.output(try parser.tuple()))
                try parser.end()
            case .block(let tokens):
                var parser = ExpressionParser(tokens, line: segment.line)
                let name = try parser.name()
                if names.contains(name) { return (body, (name, segment.line, parser)) }
                body += try block(name, &parser, line: segment.line)
            }
        }
        return (body, nil)
    }

    /// The statements to the end tag of a block.
    private mutating func body(of name: String, line: Int) throws(ChatTemplateError) -> [TemplateStatement] {
        let (body, end) = try statements(until: ["end" + name])
        guard end != nil else { throw .syntax(line: line, reason: "\(name) is not closed") }
        return body
    }

    private mutating func block(
        _ name: String, _ parser: inout ExpressionParser, line: Int
    ) throws(ChatTemplateError) -> [TemplateStatement] {
        switch name {
        case "if": return [try condition(&parser, line: line)]
        case "for": return [try loop(&parser, line: line)]
        case "set": return [try set(&parser, line: line)]
        case "macro": return [try macro(&parser, line: line)]
        case "generation":
            // Marks what the assistant wrote, for training; it changes no text.
            try parser.end()
            return try body(of: name, line: line)
        case "break":
            try parser.end()
            return [.leave]
        case "continue":
            try parser.end()
            return [.next]
        default: throw .syntax(line: line, reason: "unknown or misplaced tag \(name)")
        }
    }

    private mutating func condition(
        _ parser: inout ExpressionParser, line: Int
    ) throws(ChatTemplateError) -> TemplateStatement {
        var branches: [(condition: TemplateExpression, body: [TemplateStatement])] = []
        var test = try parser.tuple()
        try parser.end()
        while true {
            let (body, end) = try statements(until: ["elif", "else", "endif"])
            guard var end else { throw .syntax(line: line, reason: "if is not closed") }
            branches.append((test, body))
            if end.name == "elif" {
                test = try end.parser.tuple()
                try end.parser.end()
                continue
            }
            if end.name == "endif" { return .condition(branches, otherwise: []) }
            let (otherwise, last) = try statements(until: ["endif"])
            guard last != nil else { throw .syntax(line: line, reason: "if is not closed") }
            return .condition(branches, otherwise: otherwise)
        }
    }

    private mutating func loop(
        _ parser: inout ExpressionParser, line: Int
    ) throws(ChatTemplateError) -> TemplateStatement {
        let targets = try parser.targets()
        try parser.expect(name: "in")
        let items = try parser.tuple(allowsCondition: false)
        var condition: TemplateExpression?
        if parser.take(name: "if") { condition = try parser.expression() }
        try parser.end()
        let (body, end) = try statements(until: ["else", "endfor"])
        guard let end else { throw .syntax(line: line, reason: "for is not closed") }
        var otherwise: [TemplateStatement] = []
        if end.name == "else" { otherwise = try self.body(of: "for", line: line) }
        return .loop(
            TemplateLoop(targets: targets, items: items, condition: condition, body: body, otherwise: otherwise))
    }

    private mutating func set(
        _ parser: inout ExpressionParser, line: Int
    ) throws(ChatTemplateError) -> TemplateStatement {
        let first = try parser.name()
        if parser.take(symbol: ".") {
            let attribute = try parser.name()
            try parser.expect(symbol: "=")
            let value = try parser.tuple()
            try parser.end()
            return .setAttribute(of: first, attribute, value)
        }
        var targets = [first]
        while parser.take(symbol: ",") { targets.append(try parser.name()) }
        if targets.count == 1, parser.isAtEnd { return .setBlock(first, try body(of: "set", line: line)) }
        try parser.expect(symbol: "=")
        let value = try parser.tuple()
        try parser.end()
        return .set(targets, value)
    }

    private mutating func macro(
        _ parser: inout ExpressionParser, line: Int
    ) throws(ChatTemplateError) -> TemplateStatement {
        let name = try parser.name()
        try parser.expect(symbol: "(")
        var parameters: [(name: String, value: TemplateExpression?)] = []
        while !parser.take(symbol: ")") {
            if !parameters.isEmpty { try parser.expect(symbol: ",") }
            let parameter = try parser.name()
            parameters.append((parameter, parser.take(symbol: "=") ? try parser.expression() : nil))
        }
        try parser.end()
        return .macro(TemplateMacro(name: name, parameters: parameters, body: try body(of: "macro", line: line)))
    }
}
