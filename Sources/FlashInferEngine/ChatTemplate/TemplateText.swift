/// Text of values, and operations on text by scalars, as Python does them.
enum TemplateText {
    /// What `str` gives.
    static func display(_ value: TemplateValue) -> String {
        switch value {
        case .undefined: ""
        case .string(let text): text
        default: representation(value)
        }
    }

    /// What `repr` gives.
    static func representation(_ value: TemplateValue) -> String {
        switch value {
        case .undefined: return "Undefined"
        case .none: return "None"
        case .bool(let value): return value ? "True" : "False"
        case .int(let value): return String(value)
        case .double(let value): return number(value)
        case .string(let text): return quoted(text)
        case .list(let list):
            let items = list.items.map { representation($0) }.joined(separator: ", ")
            return list.isTuple ? "(\(items)\(list.items.count == 1 ? "," : ""))" : "[\(items)]"
        case .object(let object):
            let members = object.members.map { quoted($0.key) + ": " + representation($0.value) }
            return "{" + members.joined(separator: ", ") + "}"
        case .namespace: return "<Namespace>"
        case .macro(let value): return "<Macro '\(value.macro.name)'>"
        case .loop: return "<LoopContext>"
        case .function(let name): return "<function \(name)>"
        }
    }

    static func number(_ value: Double) -> String {
        if value.isNaN { return "nan" }
        if value.isInfinite { return value < 0 ? "-inf" : "inf" }
        return "\(value)"
    }

    private static func quoted(_ text: String) -> String {
        let scalars = text.unicodeScalars
        let quote: Unicode.Scalar = scalars.contains("'") && !scalars.contains("\"") ? "\"" : "'"
        var result = String(quote)
        for scalar in scalars {
            switch scalar {
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            case "\\": result += "\\\\"
            case quote: result += "\\" + String(quote)
            case _ where scalar.value < 32 || scalar.value == 127:
                let digits = String(scalar.value, radix: 16)
                result += "\\x" + (digits.count < 2 ? "0" : "") + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + String(quote)
    }

    /// JSON as Python's `json.dumps(ensure_ascii=False)` writes it.
    static func json(
        _ value: TemplateValue, indent: Int?, sortsKeys: Bool, level: Int = 0
    ) throws(ChatTemplateError) -> String {
        func joined(_ parts: [String], _ open: String, _ close: String) -> String {
            if parts.isEmpty { return open + close }
            guard let indent else { return open + parts.joined(separator: ", ") + close }
            let outer = "\n" + String(repeating: " ", count: indent * level)
            let inner = outer + String(repeating: " ", count: indent)
            return open + inner + parts.joined(separator: "," + inner) + outer + close
        }
        switch value {
        case .none: return "null"
        case .bool(let value): return value ? "true" : "false"
        case .int(let value): return String(value)
        case .double(let value):
            return value.isNaN ? "NaN" : value.isInfinite ? (value < 0 ? "-Infinity" : "Infinity") : "\(value)"
        case .string(let text): return jsonString(text)
        case .list(let list):
            var parts: [String] = []
            for item in list.items {
                parts.append(try json(item, indent: indent, sortsKeys: sortsKeys, level: level + 1))
            }
            return joined(parts, "[", "]")
        case .object(let object):
            var members = object.members
            if sortsKeys { members.sort { isOrdered($0.key, before: $1.key) } }
            var parts: [String] = []
            for member in members {
                let text = try json(member.value, indent: indent, sortsKeys: sortsKeys, level: level + 1)
                parts.append(jsonString(member.key) + ": " + text)
            }
            return joined(parts, "{", "}")
        default: throw .evaluation(reason: "\(value.kind) has no JSON form")
        }
    }

    private static func jsonString(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            case "\u{08}": result += "\\b"
            case "\u{0C}": result += "\\f"
            case _ where scalar.value < 32:
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }

    static func isOrdered(_ left: String, before right: String) -> Bool {
        left.unicodeScalars.lexicographicallyPrecedes(right.unicodeScalars)
    }

    static func hasPrefix(_ text: String, _ prefix: String) -> Bool {
        text.utf8.starts(with: prefix.utf8)
    }

    static func hasSuffix(_ text: String, _ suffix: String) -> Bool {
        text.utf8.count >= suffix.utf8.count && text.utf8.suffix(suffix.utf8.count).elementsEqual(suffix.utf8)
    }

    /// Where a text is in another, in bytes from `start`; nil when it is not there.
    static func find(_ needle: [UInt8], in text: [UInt8], from start: Int = 0) -> Int? {
        if needle.isEmpty { return start <= text.count ? start : nil }
        guard text.count >= needle.count else { return nil }
        var index = start
        while index + needle.count <= text.count {
            if text[index] == needle[0], text[index..<index + needle.count].elementsEqual(needle) { return index }
            index += 1
        }
        return nil
    }

    static func contains(_ text: String, _ needle: String) -> Bool {
        find(Array(needle.utf8), in: Array(text.utf8)) != nil
    }

    /// At most `limit` of the places where a text is, not overlapping.
    static func places(of needle: [UInt8], in text: [UInt8], limit: Int) -> [Int] {
        var places: [Int] = []
        var start = 0
        while places.count < limit, let place = find(needle, in: text, from: start) {
            places.append(place)
            start = place + max(needle.count, 1)
            if needle.isEmpty {
                // The next scalar, and not the next byte.
                while start < text.count, text[start] & 0xC0 == 0x80 { start += 1 }
            }
        }
        return places
    }

    static func split(_ text: String, separator: String?, limit: Int, fromEnd: Bool) -> [String] {
        let limit = limit < 0 ? Int.max : limit
        let bytes = Array(text.utf8)
        guard let separator else { return words(text, limit: limit, fromEnd: fromEnd) }
        let needle = Array(separator.utf8)
        var cuts = places(of: needle, in: bytes, limit: fromEnd ? .max : limit)
        if fromEnd, limit < cuts.count { cuts = Array(cuts.suffix(limit)) }
        var parts: [String] = []
        var start = 0
        for cut in cuts {
            parts.append(String(decoding: bytes[start..<cut], as: UTF8.self))
            start = cut + needle.count
        }
        return parts + [String(decoding: bytes[start...], as: UTF8.self)]
    }

    private static func words(_ text: String, limit: Int, fromEnd: Bool) -> [String] {
        var scalars = Array(text.unicodeScalars)
        if fromEnd { scalars.reverse() }
        var words: [[Unicode.Scalar]] = []
        var index = 0
        while true {
            while index < scalars.count, isSpace(scalars[index]) { index += 1 }
            if index == scalars.count { break }
            var end = index
            if words.count == limit {
                end = scalars.count
            } else {
                while end < scalars.count, !isSpace(scalars[end]) { end += 1 }
            }
            words.append(Array(scalars[index..<end]))
            index = words.count > limit ? scalars.count : end
        }
        if fromEnd { words = words.reversed().map { $0.reversed() } }
        return words.map { string($0) }
    }

    static func string(_ scalars: some Sequence<Unicode.Scalar>) -> String {
        var view = String.UnicodeScalarView()
        view.append(contentsOf: scalars)
        return String(view)
    }

    static func isSpace(_ scalar: Unicode.Scalar) -> Bool {
        scalar.properties.isWhitespace || (0x1C...0x1F).contains(scalar.value)
    }

    static func strip(_ text: String, _ characters: String?, left: Bool, right: Bool) -> String {
        let removed = characters.map { Set($0.unicodeScalars) }
        func goes(_ scalar: Unicode.Scalar) -> Bool { removed?.contains(scalar) ?? isSpace(scalar) }
        var scalars = text.unicodeScalars[...]
        while left, let first = scalars.first, goes(first) { scalars.removeFirst() }
        while right, let last = scalars.last, goes(last) { scalars.removeLast() }
        return String(scalars)
    }

    static func replace(_ text: String, _ old: String, _ new: String, limit: Int) -> String {
        let bytes = Array(text.utf8)
        let needle = Array(old.utf8)
        var result: [UInt8] = []
        var start = 0
        for place in places(of: needle, in: bytes, limit: limit < 0 ? .max : limit) {
            result += bytes[start..<place]
            result += Array(new.utf8)
            start = place + needle.count
        }
        return String(decoding: result + bytes[start...], as: UTF8.self)
    }

    /// Every word with a capital; what is no letter ends a word.
    static func title(_ text: String) -> String {
        var result = ""
        var inWord = false
        for scalar in text.unicodeScalars {
            result += inWord ? scalar.properties.lowercaseMapping : scalar.properties.titlecaseMapping
            inWord = scalar.properties.isCased
        }
        return result
    }

    /// As Jinja's filter: what follows white space, a hyphen or an opening bracket is a word.
    static func titleFilter(_ text: String) -> String {
        var result = ""
        var inWord = false
        for scalar in text.unicodeScalars {
            result += inWord ? scalar.properties.lowercaseMapping : scalar.properties.uppercaseMapping
            inWord = !isSpace(scalar) && !"-({[<".unicodeScalars.contains(scalar)
        }
        return result
    }

    static func capitalize(_ text: String) -> String {
        guard let first = text.unicodeScalars.first else { return text }
        return first.properties.titlecaseMapping + string(text.unicodeScalars.dropFirst()).lowercased()
    }
}
