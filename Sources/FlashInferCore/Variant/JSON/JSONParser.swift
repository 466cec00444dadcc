/// A JSON value; numbers say whether they were written as whole ones, and members keep their order.
enum JSONValue: Equatable {
    case null
    case bool(Bool)
    case number(Double, isWhole: Bool)
    case string(String)
    indirect case array([JSONValue])
    indirect case object([Member])

    struct Member: Equatable {
        var key: String
        var value: JSONValue
    }

    /// What it is, in words.
    var kind: String {
        switch self {
        case .null: "null"
        case .bool: "a truth"
        case .number: "a number"
        case .string: "a string"
        case .array: "a list"
        case .object: "an object"
        }
    }

    /// Short text for messages.
    var text: String {
        switch self {
        case .null: "null"
        case .bool(let truth): "\(truth)"
        case .number(let number, let isWhole): isWhole ? "\(Int(number))" : "\(number)"
        case .string(let text): "\"\(text)\""
        case .array(let parts):
            "[" + parts.prefix(4).map { if case .array = $0 { "[…]" } else { $0.text } }.joined(separator: ", ")
                + (parts.count > 4 ? ", …]" : "]")
        case .object: "{…}"
        }
    }
}

/// What a text has in JSON.
enum JSONText {
    static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": result += "\\" + String(scalar)
            case _ where scalar.value < 0x20:
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }

    /// Always with a point or an exponent, so that it reads back as floating point.
    static func number(_ value: Float) -> String {
        value.isFinite ? "\(value)" : value > 0 ? "\"inf\"" : "\"-inf\""
    }
}

/// A strict JSON parser (RFC 8259) over bytes: no recursion deeper than its limit, no number that is not one.
struct JSONParser {
    private var bytes: ArraySlice<UInt8>
    private static let deepest = 600

    /// The value that a text is.
    static func parse(_ text: String) throws(FlashInferError) -> JSONValue {
        var parser = JSONParser(bytes: Array(text.utf8)[...])
        let value = try parser.value(depth: 0)
        parser.skipSpace()
        guard parser.bytes.isEmpty else { throw parser.error("the end") }
        return value
    }

    private func error(_ expected: String) -> FlashInferError {
        let rest = String(decoding: bytes.prefix(20), as: UTF8.self)
        return .invalidArgument(
            "JSON", found: rest.isEmpty ? "the end" : "'\(rest)' at byte \(bytes.startIndex)", expected: expected)
    }

    private mutating func skipSpace() {
        bytes = bytes.drop { $0 == 0x20 || $0 == 0x0A || $0 == 0x0D || $0 == 0x09 }
    }

    private mutating func take(_ byte: Character) -> Bool {
        skipSpace()
        guard bytes.first == byte.asciiValue else { return false }
        bytes.removeFirst()
        return true
    }

    private mutating func take(word: String) -> Bool {
        guard bytes.starts(with: word.utf8) else { return false }
        bytes.removeFirst(word.utf8.count)
        return true
    }

    private mutating func value(depth: Int) throws(FlashInferError) -> JSONValue {
        guard depth < Self.deepest else { throw error("at most \(Self.deepest) levels") }
        if take("[") { return .array(try elements(depth)) }
        if take("{") { return .object(try members(depth)) }
        if take("\"") { return .string(try string()) }
        if take(word: "true") { return .bool(true) }
        if take(word: "false") { return .bool(false) }
        if take(word: "null") { return .null }
        return try number()
    }

    private mutating func elements(_ depth: Int) throws(FlashInferError) -> [JSONValue] {
        var result: [JSONValue] = []
        if take("]") { return result }
        while true {
            result.append(try value(depth: depth + 1))
            if take("]") { return result }
            guard take(",") else { throw error("',' or ']'") }
        }
    }

    private mutating func members(_ depth: Int) throws(FlashInferError) -> [JSONValue.Member] {
        var result: [JSONValue.Member] = []
        if take("}") { return result }
        while true {
            guard take("\"") else { throw error("a member's name") }
            let key = try string()
            guard take(":") else { throw error("':'") }
            result.append(.init(key: key, value: try value(depth: depth + 1)))
            if take("}") { return result }
            guard take(",") else { throw error("',' or '}'") }
        }
    }

    private mutating func string() throws(FlashInferError) -> String {
        var result: [UInt8] = []
        while let byte = bytes.popFirst() {
            switch byte {
            case UInt8(ascii: "\""): return String(decoding: result, as: UTF8.self)
            case UInt8(ascii: "\\"): result += try escape()
            case 0..<0x20: throw error("no control character in a string")
            default: result.append(byte)
            }
        }
        throw error("the end of a string")
    }

    private mutating func escape() throws(FlashInferError) -> [UInt8] {
        let plain: [UInt8: UInt8] = [
            0x22: 0x22, 0x5C: 0x5C, 0x2F: 0x2F, 0x62: 0x08, 0x66: 0x0C, 0x6E: 0x0A, 0x72: 0x0D, 0x74: 0x09,
        ]
        guard let byte = bytes.popFirst() else { throw error("an escape") }
        if let known = plain[byte] { return [known] }
        guard byte == UInt8(ascii: "u") else { throw error("an escape of a character") }
        return Array(String(Character(try escapedScalar())).utf8)
    }

    /// What follows `\u`. A character past U+FFFF is two escapes, the halves of a surrogate pair: so Python writes it.
    private mutating func escapedScalar() throws(FlashInferError) -> Unicode.Scalar {
        let unit = try escapedUnit()
        if let scalar = Unicode.Scalar(unit) { return scalar }
        guard unit < 0xDC00, take(word: "\\u") else { throw error("the second half of a surrogate pair") }
        let low = try escapedUnit()
        guard (0xDC00...0xDFFF).contains(low),
            let scalar = Unicode.Scalar(0x1_0000 + (unit - 0xD800) << 10 + (low - 0xDC00))
        else { throw error("the second half of a surrogate pair") }
        return scalar
    }

    private mutating func escapedUnit() throws(FlashInferError) -> UInt32 {
        let digits = bytes.prefix(4)
        guard digits.count == 4, digits.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
            let unit = UInt32(String(decoding: digits, as: UTF8.self), radix: 16)
        else { throw error("four hexadecimal digits") }
        bytes.removeFirst(4)
        return unit
    }

    private mutating func number() throws(FlashInferError) -> JSONValue {
        let digits = bytes.prefix {
            (0x30...0x39).contains($0) || [0x2B, 0x2D, 0x2E, 0x45, 0x65].contains($0)
        }
        let text = String(decoding: digits, as: UTF8.self)
        guard let first = digits.first, first != 0x2B, first != 0x2E, let number = Double(text), number.isFinite else {
            throw error("a value")
        }
        bytes.removeFirst(digits.count)
        return .number(number, isWhole: !digits.contains { $0 == 0x2E || $0 == 0x45 || $0 == 0x65 })
    }
}
