extension TemplateRenderer {
    /// The result of a method of a string, object, list or loop; nil when the value has no such method.
    func method(
        _ name: String, of value: TemplateValue,
        _ arguments: @autoclosure () throws(ChatTemplateError) -> TemplateCallValues
    ) throws(ChatTemplateError) -> TemplateValue? {
        switch value {
        case .string(let text): return try method(name, of: text, arguments())
        case .object(let object): return try method(name, of: object, arguments())
        case .list(let list): return try method(name, of: list, arguments())
        case .loop(let state): return try method(name, of: state, arguments())
        default: return nil
        }
    }

    private func method(
        _ name: String, of text: String, _ arguments: TemplateCallValues
    ) throws(ChatTemplateError) -> TemplateValue? {
        try charge(text.utf8.count * 4)
        switch name {
        case "strip", "lstrip", "rstrip":
            return .string(
                TemplateText.strip(
                    text, try arguments.string(0, "chars"), left: name != "rstrip", right: name != "lstrip"))
        case "split", "rsplit": return try split(text, arguments, fromEnd: name == "rsplit")
        case "splitlines": return try lines(text)
        case "startswith", "endswith": return .bool(try begins(name, text, arguments))
        case "upper": return .string(text.uppercased())
        case "lower": return .string(text.lowercased())
        case "title": return .string(TemplateText.title(text))
        case "capitalize": return .string(TemplateText.capitalize(text))
        case "replace":
            guard let old = try arguments.string(0, "old"), let new = try arguments.string(1, "new") else {
                throw .evaluation(reason: "replace needs two strings")
            }
            return .string(try replaced(text, old, new, limit: try arguments.integer(2, "count") ?? -1))
        case "find", "rfind", "count", "index": return try search(name, text, arguments)
        case "join":
            guard let list = arguments.positional.first else { throw .evaluation(reason: "join needs a list") }
            var call = TemplateCallValues()
            call.positional = [.string(text)]
            return try filter("join", list, call)
        case "removeprefix", "removesuffix":
            guard let part = try arguments.string(0, "part") else {
                throw .evaluation(reason: "\(name) needs a string")
            }
            let isPrefix = name == "removeprefix"
            guard isPrefix ? TemplateText.hasPrefix(text, part) : TemplateText.hasSuffix(text, part) else {
                return .string(text)
            }
            let bytes = Array(text.utf8)
            let rest = isPrefix ? bytes.dropFirst(part.utf8.count) : bytes.dropLast(part.utf8.count)
            return .string(String(decoding: rest, as: UTF8.self))
        case "isdigit":
            return .bool(
                !text.isEmpty
                    && text.unicodeScalars.allSatisfy {
                        $0.properties.numericType == .decimal || $0.properties.numericType == .digit
                    })
        case "isalpha": return .bool(!text.isEmpty && text.unicodeScalars.allSatisfy { $0.properties.isAlphabetic })
        case "isspace": return .bool(!text.isEmpty && text.unicodeScalars.allSatisfy { TemplateText.isSpace($0) })
        default: return nil
        }
    }

    private func split(
        _ text: String, _ arguments: TemplateCallValues, fromEnd: Bool
    ) throws(ChatTemplateError) -> TemplateValue {
        let separator = try arguments.string(0, "sep")
        if separator?.isEmpty ?? false { throw .evaluation(reason: "split's separator is empty") }
        try charge(
            min(try product(text.utf8.count, 1 + (separator?.utf8.count ?? 0) / 64), ChatTemplateLimits.outputBytes))
        let parts = TemplateText.split(
            text, separator: separator, limit: try arguments.integer(1, "maxsplit") ?? -1, fromEnd: fromEnd)
        try charge(parts.count * 16)
        return .list(try TemplateList(parts.map { .string($0) }))
    }

    private func lines(_ text: String) throws(ChatTemplateError) -> TemplateValue {
        let unified = TemplateText.replace(TemplateText.replace(text, "\r\n", "\n", limit: -1), "\r", "\n", limit: -1)
        var parts = TemplateText.split(unified, separator: "\n", limit: -1, fromEnd: false)
        if parts.last == "" { parts.removeLast() }
        return .list(try TemplateList(parts.map { .string($0) }))
    }

    private func begins(
        _ name: String, _ text: String, _ arguments: TemplateCallValues
    ) throws(ChatTemplateError) -> Bool {
        func matches(_ value: TemplateValue) throws(ChatTemplateError) -> Bool {
            guard case .string(let part) = value else {
                throw .evaluation(reason: "\(name) takes a string, not \(value.kind)")
            }
            return name == "startswith" ? TemplateText.hasPrefix(text, part) : TemplateText.hasSuffix(text, part)
        }
        guard let given = arguments.positional.first else { throw .evaluation(reason: "\(name) needs a string") }
        guard case .list(let list) = given else { return try matches(given) }
        for item in list.items where try matches(item) { return true }
        return false
    }

    private func search(
        _ name: String, _ text: String, _ arguments: TemplateCallValues
    ) throws(ChatTemplateError) -> TemplateValue {
        guard let part = try arguments.string(0, "sub") else { throw .evaluation(reason: "\(name) needs a string") }
        try charge(min(try product(text.utf8.count, 1 + part.utf8.count / 64), ChatTemplateLimits.outputBytes))
        let bytes = Array(text.utf8)
        let places = TemplateText.places(
            of: Array(part.utf8), in: bytes, limit: name == "find" || name == "index" ? 1 : .max)
        if name == "count" { return .int(places.count) }
        guard let place = name == "rfind" ? places.last : places.first else {
            if name == "index" { throw .evaluation(reason: "the text that index looks for is not there") }
            return .int(-1)
        }
        return .int(bytes[..<place].count { $0 & 0xC0 != 0x80 })
    }

    private func method(
        _ name: String, of object: TemplateObject, _ arguments: TemplateCallValues
    ) throws(ChatTemplateError) -> TemplateValue? {
        switch name {
        case "items": return try items(of: .object(object))
        case "keys": return .list(try TemplateList(object.members.map { .string($0.key) }))
        case "values": return .list(try TemplateList(object.members.map(\.value)))
        case "get":
            guard let key = try arguments.string(0, "key") else {
                return arguments.value(1, "default") ?? TemplateValue.none
            }
            return object[key] ?? arguments.value(1, "default") ?? TemplateValue.none
        case "copy": return .object(object)
        case "update", "pop", "popitem", "setdefault", "clear":
            throw .evaluation(reason: "an object cannot be changed (\(name))")
        default: return nil
        }
    }

    private func method(
        _ name: String, of list: TemplateList, _ arguments: TemplateCallValues
    ) throws(ChatTemplateError) -> TemplateValue? {
        switch name {
        case "index", "count":
            guard let value = arguments.positional.first else { throw .evaluation(reason: "\(name) needs a value") }
            var places: [Int] = []
            for (index, item) in list.items.enumerated() where try compare("==", item, value) { places.append(index) }
            if name == "count" { return .int(places.count) }
            guard let place = places.first else { throw .evaluation(reason: "the value is not in the list") }
            return .int(place)
        case "append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse":
            throw .evaluation(reason: "a list cannot be changed (\(name))")
        default: return nil
        }
    }

    private func method(
        _ name: String, of state: TemplateLoopState, _ arguments: TemplateCallValues
    ) throws(ChatTemplateError) -> TemplateValue? {
        switch name {
        case "cycle":
            guard !arguments.positional.isEmpty else { throw .evaluation(reason: "cycle needs values") }
            return arguments.positional[state.index % arguments.positional.count]
        case "changed":
            var isSame = state.lastChanged?.count == arguments.positional.count
            for (old, new) in zip(state.lastChanged ?? [], arguments.positional) where isSame {
                isSame = try compare("==", old, new)
            }
            for value in arguments.positional { _ = try TemplateList.depth(ofElement: value) }
            state.lastChanged = arguments.positional
            return .bool(!isSame)
        default: return nil
        }
    }

    static let functionNames: Set<String> = ["range", "namespace", "dict", "raise_exception", "strftime_now"]

    func call(
        function: String, _ arguments: TemplateCallValues
    ) throws(ChatTemplateError) -> TemplateValue {
        switch function {
        case "range": return try range(arguments)
        case "namespace":
            let namespace = TemplateNamespace()
            if case .object(let object) = arguments.positional.first { namespace.members = object }
            for (name, value) in arguments.named { try namespace.members.set(name, value) }
            return .namespace(namespace)
        case "dict":
            var object = TemplateObject()
            if case .object(let given) = arguments.positional.first { object = given }
            for name in arguments.named.keys.sorted() {
                if let value = arguments.named[name] { try object.set(name, value) }
            }
            return .object(object)
        case "raise_exception":
            throw .raised(message: try text(of: arguments.positional.first ?? .string("")))
        default:
            guard let format = try arguments.string(0, "format") else {
                throw .evaluation(reason: "strftime_now needs a format")
            }
            try charge(try product(format.utf8.count, 32))
            return .string(now.formatted(format))
        }
    }

    private func range(_ arguments: TemplateCallValues) throws(ChatTemplateError) -> TemplateValue {
        var bounds: [Int] = []
        for index in arguments.positional.indices.prefix(3) {
            guard let bound = try arguments.integer(index, "") else {
                throw .evaluation(reason: "range takes integers")
            }
            bounds.append(bound)
        }
        guard !bounds.isEmpty else { throw .evaluation(reason: "range needs a bound") }
        let (start, stop) = bounds.count == 1 ? (0, bounds[0]) : (bounds[0], bounds[1])
        let step = bounds.count == 3 ? bounds[2] : 1
        guard step != 0 else { throw .evaluation(reason: "the step of a range is zero") }
        var values: [TemplateValue] = []
        var value = start
        while step > 0 ? value < stop : value > stop {
            if values.count == ChatTemplateLimits.rangeCount {
                throw .limit(what: "items of a range", limit: ChatTemplateLimits.rangeCount)
            }
            values.append(.int(value))
            let (next, overflow) = value.addingReportingOverflow(step)
            if overflow { break }
            value = next
        }
        try charge(values.count * 16)
        return .list(try TemplateList(values))
    }
}
