import Foundation

extension TemplateRenderer {
    func evaluate(_ expression: TemplateExpression) throws(ChatTemplateError) -> TemplateValue {
        try enter()
        defer { leave() }
        switch expression.kind {
        case .undefined: return .undefined("value")
        case .none: return .none
        case .bool(let value): return .bool(value)
        case .int(let value): return .int(value)
        case .double(let value): return .double(value)
        case .string(let text): return .string(text)
        case .name(let name): return lookUp(name)
        case .list(let items, let isTuple): return .list(try TemplateList(values(items), isTuple: isTuple))
        case .object(let members): return try object(members)
        case .attribute(let base, let name): return try attribute(of: evaluate(base), name)
        case .item(let base, let key): return try item(of: evaluate(base), evaluate(key))
        case .slice(let base, let bounds): return try slice(evaluate(base), bounds)
        case .call(let base, let arguments): return try call(base, arguments)
        case .filter(let base, let name, let arguments):
            return try filter(name, evaluate(base), values(arguments))
        case .test(let base, let name, let arguments, let negated):
            return .bool(try test(name, evaluate(base), values(arguments)) != negated)
        case .not(let base): return .bool(try !evaluate(base).isTrue)
        case .negate(let base): return try signed(evaluate(base), negative: true)
        case .plus(let base): return try signed(evaluate(base), negative: false)
        case .both(let left, let right):
            let value = try evaluate(left)
            return value.isTrue ? try evaluate(right) : value
        case .either(let left, let right):
            let value = try evaluate(left)
            return value.isTrue ? value : try evaluate(right)
        case .binary(let operation, let left, let right):
            return try arithmetic(operation, evaluate(left), evaluate(right))
        case .comparison(let first, let rest): return .bool(try comparison(first, rest))
        case .conditional(let condition, let then, let otherwise):
            return try evaluate(try evaluate(condition).isTrue ? then : otherwise)
        }
    }

    private func values(_ expressions: [TemplateExpression]) throws(ChatTemplateError) -> [TemplateValue] {
        var values: [TemplateValue] = []
        values.reserveCapacity(expressions.count)
        for expression in expressions { values.append(try evaluate(expression)) }
        return values
    }

    private func values(_ arguments: TemplateArguments) throws(ChatTemplateError) -> TemplateCallValues {
        var result = TemplateCallValues(positional: try values(arguments.positional))
        for argument in arguments.named { result.named[argument.name] = try evaluate(argument.value) }
        return result
    }

    private func object(
        _ members: [(key: TemplateExpression, value: TemplateExpression)]
    ) throws(ChatTemplateError) -> TemplateValue {
        var object = TemplateObject()
        for member in members {
            guard case .string(let key) = try evaluate(member.key) else {
                throw .evaluation(reason: "keys of objects must be strings")
            }
            try object.set(key, evaluate(member.value))
        }
        return .object(object)
    }

    func attribute(of value: TemplateValue, _ name: String) throws(ChatTemplateError) -> TemplateValue {
        switch value {
        case .undefined(let missing): throw .evaluation(reason: "\(missing) is undefined, so it has no \(name)")
        case .object(let object): return object[name] ?? .undefined(name)
        case .namespace(let namespace): return namespace.members[name] ?? .undefined(name)
        case .loop(let state): return state.attribute(name)
        default: return .undefined(name)
        }
    }

    private func item(
        of value: TemplateValue, _ key: TemplateValue
    ) throws(ChatTemplateError) -> TemplateValue {
        switch (value, key) {
        case (.undefined(let missing), _): throw .evaluation(reason: "\(missing) is undefined, so it has no items")
        case (_, .string(let name)): return try attribute(of: value, name)
        case (.list(let list), _):
            guard let index = key.integer else { return .undefined("item") }
            let place = index < 0 ? index + list.items.count : index
            return list.items.indices.contains(place) ? list.items[place] : .undefined("item \(index)")
        case (.string(let text), _):
            guard let index = key.integer else { return .undefined("item") }
            try charge(text.utf8.count)
            let scalars = Array(text.unicodeScalars)
            let place = index < 0 ? index + scalars.count : index
            return scalars.indices.contains(place) ? .string(String(scalars[place])) : .undefined("item \(index)")
        default: return .undefined("item")
        }
    }

    private func slice(
        _ value: TemplateValue, _ bounds: [TemplateExpression?]
    ) throws(ChatTemplateError) -> TemplateValue {
        func bound(_ index: Int) throws(ChatTemplateError) -> Int? {
            guard index < bounds.count, let expression = bounds[index] else { return nil }
            let value = try evaluate(expression)
            if case .none = value { return nil }
            guard let integer = value.integer else {
                throw .evaluation(reason: "a bound of a slice is \(value.kind), not an integer")
            }
            return integer
        }
        let (start, stop, step) = (try bound(0), try bound(1), try bound(2) ?? 1)
        guard step != 0 else { throw .evaluation(reason: "the step of a slice is zero") }
        func indices(_ count: Int) -> [Int] {
            // Python's rule: bounds count from the end when negative, and are then brought into range.
            func place(_ bound: Int?, _ initial: Int) -> Int {
                guard let bound else { return initial }
                let place = bound < 0 ? bound.addingReportingOverflow(count).partialValue : bound
                return step > 0 ? min(max(place, 0), count) : min(max(place, -1), count - 1)
            }
            let first = place(start, step > 0 ? 0 : count - 1)
            let last = place(stop, step > 0 ? count : -1)
            // A stride longer than the sequence takes its first item only, and no larger one is ever added to an index.
            return Array(stride(from: first, to: last, by: min(max(step, -count - 1), count + 1)))
        }
        switch value {
        case .list(let list):
            try charge(list.items.count * 16)
            return .list(try TemplateList(indices(list.items.count).map { list.items[$0] }, isTuple: list.isTuple))
        case .string(let text):
            try charge(text.utf8.count * 4)
            let scalars = Array(text.unicodeScalars)
            return .string(TemplateText.string(indices(scalars.count).map { scalars[$0] }))
        default: throw .evaluation(reason: "\(value.kind) has no slices")
        }
    }

    private func signed(_ value: TemplateValue, negative: Bool) throws(ChatTemplateError) -> TemplateValue {
        if let integer = value.integer {
            guard integer != .min || !negative else { throw .evaluation(reason: "integer overflow") }
            return .int(negative ? -integer : integer)
        }
        guard let number = value.number else { throw .evaluation(reason: "\(value.kind) has no sign") }
        return .double(negative ? -number : number)
    }

    private func call(
        _ callee: TemplateExpression, _ arguments: TemplateArguments
    ) throws(ChatTemplateError) -> TemplateValue {
        let base: TemplateValue
        let name: String
        switch callee.kind {
        case .attribute(let expression, let attribute):
            base = try evaluate(expression)
            name = attribute
            if let result = try method(attribute, of: base, values(arguments)) { return result }
        default:
            base = try evaluate(callee)
            name = ""
        }
        switch name.isEmpty ? base : try attribute(of: base, name) {
        case .macro(let macro): return try call(macro, values(arguments))
        case .function(let function): return try call(function: function, values(arguments))
        case .undefined(let missing): throw .evaluation(reason: "\(missing) is undefined, so it cannot be called")
        case let other: throw .evaluation(reason: "\(other.kind) cannot be called")
        }
    }

    private func comparison(
        _ first: TemplateExpression, _ rest: [(operation: String, operand: TemplateExpression)]
    ) throws(ChatTemplateError) -> Bool {
        var left = try evaluate(first)
        for (operation, operand) in rest {
            let right = try evaluate(operand)
            guard try compare(operation, left, right) else { return false }
            left = right
        }
        return true
    }

    func compare(
        _ operation: String, _ left: TemplateValue, _ right: TemplateValue
    ) throws(ChatTemplateError) -> Bool {
        switch operation {
        case "==", "!=":
            try charge(try size(of: left))
            return left.equals(right) == (operation == "==")
        case "in": return try contains(right, left)
        case "not in": return try !contains(right, left)
        default: break
        }
        let ascending: Bool
        let equal: Bool
        if let one = left.number, let other = right.number {
            (ascending, equal) = (one < other, one == other)
            if one.isNaN || other.isNaN { return false }
        } else if case .string(let one) = left, case .string(let other) = right {
            try charge(one.utf8.count)
            (ascending, equal) = (TemplateText.isOrdered(one, before: other), one.utf8.elementsEqual(other.utf8))
        } else {
            throw .evaluation(reason: "\(left.kind) and \(right.kind) have no order")
        }
        switch operation {
        case "<": return ascending
        case "<=": return ascending || equal
        case ">": return !ascending && !equal
        default: return !ascending
        }
    }

    private func contains(_ whole: TemplateValue, _ part: TemplateValue) throws(ChatTemplateError) -> Bool {
        switch whole {
        case .string(let text):
            guard case .string(let needle) = part else {
                throw .evaluation(reason: "\(part.kind) cannot be in a string")
            }
            // The search is quadratic at worst.
            let (cost, overflow) = text.utf8.count.multipliedReportingOverflow(by: 1 + needle.utf8.count / 64)
            try charge(overflow ? .max / 2 : min(cost, ChatTemplateLimits.outputBytes))
            return TemplateText.contains(text, needle)
        case .list(let list):
            for item in list.items {
                try charge(try size(of: item))
                if item.equals(part) { return true }
            }
            return false
        case .object(let object):
            guard case .string(let key) = part else { return false }
            return object[key] != nil
        case .undefined: return false
        default: throw .evaluation(reason: "nothing can be in \(whole.kind)")
        }
    }

    func arithmetic(
        _ operation: String, _ left: TemplateValue, _ right: TemplateValue
    ) throws(ChatTemplateError) -> TemplateValue {
        switch (operation, left, right) {
        case ("~", _, _):
            return try concatenate(try text(of: left), try text(of: right))
        case ("+", .string(let one), .string(let other)): return try concatenate(one, other)
        case ("+", .list(let one), .list(let other)):
            try charge((one.items.count + other.items.count) * 16)
            return .list(try TemplateList(one.items + other.items))
        case ("*", .string(let text), .int(let count)), ("*", .int(let count), .string(let text)):
            try charge(try product(text.utf8.count, max(count, 0)))
            return .string(String(repeating: text, count: max(count, 0)))
        default: break
        }
        if let one = left.integer, let other = right.integer {
            return try integers(operation, one, other)
        }
        guard let one = left.number, let other = right.number else {
            throw .evaluation(reason: "\(left.kind) \(operation) \(right.kind) has no meaning")
        }
        return try numbers(operation, one, other)
    }

    private func concatenate(_ left: String, _ right: String) throws(ChatTemplateError) -> TemplateValue {
        try charge(left.utf8.count + right.utf8.count)
        return .string(left + right)
    }

    func product(_ left: Int, _ right: Int) throws(ChatTemplateError) -> Int {
        let (product, overflow) = left.multipliedReportingOverflow(by: right)
        return overflow ? .max / 2 : product
    }

    private func integers(_ operation: String, _ left: Int, _ right: Int) throws(ChatTemplateError) -> TemplateValue {
        let result: (partialValue: Int, overflow: Bool)
        switch operation {
        case "+": result = left.addingReportingOverflow(right)
        case "-": result = left.subtractingReportingOverflow(right)
        case "*": result = left.multipliedReportingOverflow(by: right)
        case "//", "%":
            guard right != 0 else { throw .evaluation(reason: "division by zero") }
            let quotient = left.dividedReportingOverflow(by: right)
            if quotient.overflow { throw .evaluation(reason: "integer overflow") }
            let rest = left - quotient.partialValue * right
            // Python rounds the quotient down, and the rest has the divisor's sign.
            let isBelow = rest != 0 && (rest < 0) != (right < 0)
            return .int(operation == "//" ? quotient.partialValue - (isBelow ? 1 : 0) : rest + (isBelow ? right : 0))
        case "**" where right >= 0: return .int(try power(left, right))
        default: return try numbers(operation, Double(left), Double(right))
        }
        if result.overflow { throw .evaluation(reason: "integer overflow") }
        return .int(result.partialValue)
    }

    private func power(_ base: Int, _ exponent: Int) throws(ChatTemplateError) -> Int {
        if base == 0 || base == 1 { return exponent == 0 ? 1 : base }
        if base == -1 { return exponent % 2 == 0 ? 1 : -1 }
        var result = 1
        for _ in 0..<min(exponent, 64) {
            let (next, overflow) = result.multipliedReportingOverflow(by: base)
            if overflow { throw .evaluation(reason: "integer overflow") }
            result = next
        }
        return result
    }

    private func numbers(
        _ operation: String, _ left: Double, _ right: Double
    ) throws(ChatTemplateError) -> TemplateValue {
        switch operation {
        case "+": return .double(left + right)
        case "-": return .double(left - right)
        case "*": return .double(left * right)
        case "/", "//", "%":
            guard right != 0 else { throw .evaluation(reason: "division by zero") }
            let quotient = (left / right).rounded(.down)
            return .double(operation == "/" ? left / right : operation == "//" ? quotient : left - quotient * right)
        case "**": return .double(pow(left, right))
        default: throw .evaluation(reason: "unknown operator \(operation)")
        }
    }
}
