extension TemplateRenderer {
    static let filterNames: Set<String> = [
        "trim", "upper", "lower", "capitalize", "title", "length", "count", "join", "tojson", "default", "d", "first",
        "last", "replace", "select", "reject", "selectattr", "rejectattr", "map", "items", "string", "int", "float",
        "list", "abs", "reverse", "sort", "unique", "sum", "min", "max", "safe", "escape", "e", "indent", "dictsort",
        "round",
    ]

    func filter(
        _ name: String, _ value: TemplateValue, _ arguments: TemplateCallValues
    ) throws(ChatTemplateError) -> TemplateValue {
        switch name {
        case "default", "d":
            let usesFalse = arguments.value(1, "boolean")?.isTrue ?? false
            let isMissing = value.isUndefined || (usesFalse && !value.isTrue)
            return isMissing ? arguments.value(0, "default_value") ?? .string("") : value
        case "tojson": return try json(value, arguments)
        case "string", "safe": return .string(try text(of: value))
        case "int", "float", "abs", "round": return try number(name, value, arguments)
        case "length", "count": return .int(try length(of: value))
        case "trim", "upper", "lower", "capitalize", "title", "replace", "escape", "e", "indent":
            return .string(try textFilter(name, try text(of: value), arguments))
        case "items": return try items(of: value)
        default: return try listFilter(name, value, arguments)
        }
    }

    private func json(
        _ value: TemplateValue, _ arguments: TemplateCallValues
    ) throws(ChatTemplateError) -> TemplateValue {
        let indent = try arguments.integer(0, "indent")
        if let indent, !(0...16).contains(indent) {
            throw .evaluation(reason: "tojson's indent is \(indent), not 0 to 16")
        }
        let size = try size(of: value)
        try charge(try product(size, 1 + (indent ?? 0) * value.depth))
        let sortsKeys = arguments.named["sort_keys"]?.isTrue ?? false
        return .string(try TemplateText.json(value, indent: indent, sortsKeys: sortsKeys))
    }

    func length(of value: TemplateValue) throws(ChatTemplateError) -> Int {
        switch value {
        case .undefined: return 0
        case .string(let text):
            try charge(text.utf8.count)
            return text.unicodeScalars.count
        case .list(let list): return list.items.count
        case .object(let object): return object.members.count
        default: throw .evaluation(reason: "\(value.kind) has no length")
        }
    }

    private func number(
        _ name: String, _ value: TemplateValue, _ arguments: TemplateCallValues
    ) throws(ChatTemplateError) -> TemplateValue {
        switch (name, value) {
        case ("abs", _):
            if let integer = value.integer { return .int(Int(clamping: integer.magnitude)) }
            guard let number = value.number else { throw .evaluation(reason: "\(value.kind) has no magnitude") }
            return .double(number.magnitude)
        case ("round", _):
            guard let number = value.number else { throw .evaluation(reason: "\(value.kind) cannot be rounded") }
            let digits = min(max(try arguments.integer(0, "precision") ?? 0, 0), 15)
            let scale = (0..<digits).reduce(1.0) { scale, _ in scale * 10 }
            return .double((number * scale).rounded(.toNearestOrEven) / scale)
        case ("int", .string(let text)):
            let trimmed = TemplateText.strip(text, nil, left: true, right: true)
            if let integer = Int(trimmed) { return .int(integer) }
            return Double(trimmed).flatMap { Int(exactly: $0.rounded(.towardZero)) }.map { .int($0) }
                ?? arguments.value(0, "default") ?? .int(0)
        case ("int", _):
            if let integer = value.integer { return .int(integer) }
            return value.number.flatMap { Int(exactly: $0.rounded(.towardZero)) }.map { .int($0) }
                ?? arguments.value(0, "default") ?? .int(0)
        case (_, .string(let text)):
            return Double(TemplateText.strip(text, nil, left: true, right: true)).map { .double($0) }
                ?? arguments.value(0, "default") ?? .double(0)
        default: return value.number.map { .double($0) } ?? arguments.value(0, "default") ?? .double(0)
        }
    }

    private func textFilter(
        _ name: String, _ text: String, _ arguments: TemplateCallValues
    ) throws(ChatTemplateError) -> String {
        try charge(text.utf8.count * 4)
        switch name {
        case "trim": return TemplateText.strip(text, try arguments.string(0, "chars"), left: true, right: true)
        case "upper": return text.uppercased()
        case "lower": return text.lowercased()
        case "capitalize": return TemplateText.capitalize(text)
        case "title": return TemplateText.titleFilter(text)
        case "replace":
            guard let old = try arguments.string(0, "s"), let new = try arguments.string(1, "new") else {
                throw .evaluation(reason: "replace needs two strings")
            }
            return try replaced(text, old, new, limit: try arguments.integer(2, "count") ?? -1)
        case "indent": return try indented(text, arguments)
        default:
            var result = text
            for (plain, entity) in [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&#34;"), ("'", "&#39;")] {
                result = TemplateText.replace(result, plain, entity, limit: -1)
            }
            return result
        }
    }

    /// Replacement with the cost of the search and a bound on the result.
    func replaced(_ text: String, _ old: String, _ new: String, limit: Int) throws(ChatTemplateError) -> String {
        try charge(min(try product(text.utf8.count, 1 + old.utf8.count / 64), ChatTemplateLimits.outputBytes))
        try charge(text.utf8.count + (try product(text.utf8.count / max(old.utf8.count, 1) + 1, new.utf8.count)))
        return TemplateText.replace(text, old, new, limit: limit)
    }

    private func indented(_ text: String, _ arguments: TemplateCallValues) throws(ChatTemplateError) -> String {
        let width: String
        if case .string(let given) = arguments.value(0, "width") {
            width = given
        } else {
            let count = try arguments.integer(0, "width") ?? 4
            guard (0...64).contains(count) else { throw .evaluation(reason: "indent's width is \(count), not 0 to 64") }
            width = String(repeating: " ", count: count)
        }
        let first = arguments.value(1, "first")?.isTrue ?? false
        let blank = arguments.value(2, "blank")?.isTrue ?? false
        let lines = TemplateText.split(text, separator: "\n", limit: -1, fromEnd: false)
        try charge(text.utf8.count + (try product(lines.count, width.utf8.count)))
        return lines.enumerated().map { index, line in
            (index == 0 ? first : blank || !line.isEmpty) ? width + line : line
        }.joined(separator: "\n")
    }

    func items(of value: TemplateValue) throws(ChatTemplateError) -> TemplateValue {
        switch value {
        case .undefined: return .list(try TemplateList([]))
        case .object(let object):
            var pairs: [TemplateValue] = []
            for member in object.members {
                try charge(64)
                pairs.append(.list(try TemplateList([.string(member.key), member.value], isTuple: true)))
            }
            return .list(try TemplateList(pairs))
        default: throw .evaluation(reason: "\(value.kind) has no items")
        }
    }

    private func listFilter(
        _ name: String, _ value: TemplateValue, _ arguments: TemplateCallValues
    ) throws(ChatTemplateError) -> TemplateValue {
        let items = try elements(of: value)
        try charge(items.count * 16)
        switch name {
        case "first": return items.first ?? .undefined("the first item")
        case "last": return items.last ?? .undefined("the last item")
        case "list": return .list(try TemplateList(items))
        case "join": return .string(try joined(items, arguments))
        case "reverse":
            if case .string = value {
                return .string(try text(of: .string(TemplateText.string(scalars(items.reversed())))))
            }
            return .list(try TemplateList(items.reversed()))
        case "select", "reject", "selectattr", "rejectattr": return try selected(name, items, arguments)
        case "map": return try mapped(items, arguments)
        case "sort", "min", "max", "unique", "dictsort": return try ordered(name, value, items, arguments)
        case "sum":
            var total = arguments.value(1, "start") ?? .int(0)
            let attribute = try arguments.string(0, "attribute")
            for item in items { total = try arithmetic("+", total, try field(item, attribute)) }
            return total
        default: throw .evaluation(reason: "unknown filter \(name)")
        }
    }

    private func scalars(_ items: [TemplateValue]) -> [Unicode.Scalar] {
        var scalars: [Unicode.Scalar] = []
        for item in items {
            if case .string(let text) = item { scalars += text.unicodeScalars }
        }
        return scalars
    }

    private func joined(_ items: [TemplateValue], _ arguments: TemplateCallValues) throws(ChatTemplateError) -> String {
        let separator = try arguments.string(0, "d") ?? ""
        let attribute = try arguments.string(1, "attribute")
        var parts: [String] = []
        var total = 0
        for item in items {
            let value = try field(item, attribute)
            let part = try text(of: value)
            total += part.utf8.count + separator.utf8.count
            try charge(part.utf8.count)
            if total > ChatTemplateLimits.outputBytes {
                throw .limit(what: "bytes of text", limit: ChatTemplateLimits.outputBytes)
            }
            parts.append(part)
        }
        try charge(total)
        return parts.joined(separator: separator)
    }

    /// A value by a path of names joined by dots; the value itself without one.
    private func field(_ value: TemplateValue, _ path: String?) throws(ChatTemplateError) -> TemplateValue {
        guard let path else { return value }
        var value = value
        for name in TemplateText.split(path, separator: ".", limit: -1, fromEnd: false) {
            if let index = Int(name), case .list(let list) = value {
                value = list.items.indices.contains(index) ? list.items[index] : .undefined(name)
            } else {
                value = try attribute(of: value, name)
            }
        }
        return value
    }

    private func selected(
        _ name: String, _ items: [TemplateValue], _ arguments: TemplateCallValues
    ) throws(ChatTemplateError) -> TemplateValue {
        var rest = arguments
        var path: String?
        if name.hasSuffix("attr") {
            path = try arguments.string(0, "attribute")
            guard path != nil else { throw .evaluation(reason: "\(name) needs an attribute") }
            rest.positional.removeFirst()
        }
        let testName = try rest.string(0, "test")
        if let testName, !Self.testNames.contains(Self.spelled(testName)) {
            throw .evaluation(reason: "unknown test \(testName)")
        }
        if !rest.positional.isEmpty { rest.positional.removeFirst() }
        let keeps = name.hasPrefix("select")
        var kept: [TemplateValue] = []
        for item in items {
            let value = try field(item, path)
            let passes = try testName.map { name throws(ChatTemplateError) in
                try test(Self.spelled(name), value, rest)
            }
            if (passes ?? value.isTrue) == keeps { kept.append(item) }
        }
        return .list(try TemplateList(kept))
    }

    /// Tests that filters name by their symbols.
    private static func spelled(_ test: String) -> String {
        ["==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"][test] ?? test
    }

    private func mapped(
        _ items: [TemplateValue], _ arguments: TemplateCallValues
    ) throws(ChatTemplateError) -> TemplateValue {
        var result: [TemplateValue] = []
        if let path = try namedString(arguments, "attribute") {
            for item in items {
                let value = try field(item, path)
                result.append(value.isUndefined ? arguments.named["default"] ?? value : value)
            }
        } else {
            guard let name = try arguments.string(0, "filter"), Self.filterNames.contains(name) else {
                throw .evaluation(reason: "map needs an attribute or a filter")
            }
            var rest = arguments
            rest.positional.removeFirst()
            for item in items { result.append(try filter(name, item, rest)) }
        }
        return .list(try TemplateList(result))
    }

    private func namedString(_ arguments: TemplateCallValues, _ name: String) throws(ChatTemplateError) -> String? {
        guard let value = arguments.named[name] else { return nil }
        guard case .string(let text) = value else { throw .evaluation(reason: "\(name) is \(value.kind)") }
        return text
    }

    private func ordered(
        _ name: String, _ value: TemplateValue, _ items: [TemplateValue], _ arguments: TemplateCallValues
    ) throws(ChatTemplateError) -> TemplateValue {
        if name == "dictsort" {
            guard case .object(let object) = value else { throw .evaluation(reason: "\(value.kind) is no object") }
            var sorted = TemplateObject()
            for member in object.members.sorted(by: {
                TemplateText.isOrdered($0.key.lowercased(), before: $1.key.lowercased())
            }) {
                try sorted.set(member.key, member.value)
            }
            return try self.items(of: .object(sorted))
        }
        let path =
            try arguments.named["attribute"].map { _ throws(ChatTemplateError) in
                try namedString(arguments, "attribute")
            } ?? nil
        let ignoresCase = !(arguments.named["case_sensitive"]?.isTrue ?? false)
        var keyed: [(key: TemplateValue, item: TemplateValue)] = []
        for item in items {
            var key = try field(item, path)
            if ignoresCase, case .string(let text) = key { key = .string(text.lowercased()) }
            if name == "unique" {
                var isNew = true
                for other in keyed where try compare("==", other.key, key) { isNew = false }
                if !isNew { continue }
            }
            keyed.append((key, item))
        }
        if name == "unique" { return .list(try TemplateList(keyed.map(\.item))) }
        var sorted = try mergeSorted(keyed)
        if name == "min" { return sorted.first?.item ?? .undefined("the smallest item") }
        if name == "max" { return sorted.last?.item ?? .undefined("the largest item") }
        if arguments.value(0, "reverse")?.isTrue ?? false { sorted.reverse() }
        return .list(try TemplateList(sorted.map(\.item)))
    }

    /// A stable sort whose comparisons may throw.
    private func mergeSorted(
        _ items: [(key: TemplateValue, item: TemplateValue)]
    ) throws(ChatTemplateError) -> [(key: TemplateValue, item: TemplateValue)] {
        if items.count < 2 { return items }
        let left = try mergeSorted(Array(items[..<(items.count / 2)]))
        let right = try mergeSorted(Array(items[(items.count / 2)...]))
        var result: [(key: TemplateValue, item: TemplateValue)] = []
        result.reserveCapacity(items.count)
        var (first, second) = (0, 0)
        while first < left.count, second < right.count {
            try charge()
            if try compare("<", right[second].key, left[first].key) {
                result.append(right[second])
                second += 1
            } else {
                result.append(left[first])
                first += 1
            }
        }
        return result + left[first...] + right[second...]
    }
}
