extension TemplateRenderer {
    static let testNames: Set<String> = [
        "defined", "undefined", "none", "boolean", "true", "false", "integer", "float", "number", "string", "mapping",
        "iterable", "sequence", "callable", "odd", "even", "divisibleby", "equalto", "eq", "ne", "lt", "le", "gt",
        "ge", "lessthan", "greaterthan", "in", "lower", "upper", "sameas",
    ]

    private static let comparisons = [
        "equalto": "==", "eq": "==", "sameas": "==", "ne": "!=", "lt": "<", "lessthan": "<", "le": "<=", "gt": ">",
        "greaterthan": ">", "ge": ">=", "in": "in",
    ]

    func test(
        _ name: String, _ value: TemplateValue, _ arguments: TemplateCallValues
    ) throws(ChatTemplateError) -> Bool {
        if let operation = Self.comparisons[name] {
            guard let other = arguments.positional.first else {
                throw .evaluation(reason: "the test \(name) needs a value")
            }
            return try compare(operation, value, other)
        }
        switch (name, value) {
        case ("defined", _): return !value.isUndefined
        case ("undefined", _): return value.isUndefined
        case ("none", .none), ("boolean", .bool), ("integer", .int), ("float", .double), ("string", .string),
            ("mapping", .object), ("mapping", .namespace):
            return true
        case ("true", .bool(let flag)): return flag
        case ("false", .bool(let flag)): return !flag
        case ("number", .int), ("number", .double), ("number", .bool): return true
        case ("iterable", .string), ("iterable", .list), ("iterable", .object), ("iterable", .undefined): return true
        case ("sequence", .string), ("sequence", .list), ("sequence", .object), ("sequence", .undefined): return true
        case ("callable", .macro), ("callable", .function), ("callable", .undefined): return true
        case ("lower", .string(let text)): return text == text.lowercased() && text != text.uppercased()
        case ("upper", .string(let text)): return text == text.uppercased() && text != text.lowercased()
        case ("odd", _), ("even", _), ("divisibleby", _):
            guard let integer = value.integer else {
                throw .evaluation(reason: "\(value.kind) is neither odd nor even")
            }
            if name != "divisibleby" { return (integer % 2 == 0) == (name == "even") }
            guard let divisor = try arguments.integer(0, "num"), divisor != 0 else {
                throw .evaluation(reason: "divisibleby needs a divisor")
            }
            return divisor == -1 || integer % divisor == 0
        default: return false
        }
    }
}
