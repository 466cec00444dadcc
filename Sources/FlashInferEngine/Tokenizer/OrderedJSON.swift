/// A JSON document with the order of its keys.
///
/// Tokenizer files need what `JSONSerialization` does not give: ids in file order, an error with its place, and no
/// recursion beyond a bound. Duplicate keys are kept, for the reader to judge.
package enum OrderedJSON: Sendable, Equatable {
    case null
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case array([OrderedJSON])
    case object([Member])

    /// A key and its value.
    package struct Member: Sendable, Equatable {
        package var key: String
        package var value: OrderedJSON
    }

    /// Parses one document; `utf8` holds nothing else but white space.
    package init(utf8: UnsafeBufferPointer<UInt8>) throws(TokenizerError) {
        var parser = OrderedJSONParser(utf8)
        self = try parser.document()
    }

    /// Parses one document.
    package init(_ bytes: [UInt8]) throws(TokenizerError) {
        self = try bytes.withUnsafeBufferPointer { buffer throws(TokenizerError) in
            try OrderedJSON(utf8: buffer)
        }
    }

    /// The value of a key, the last one if it is there twice; nil when absent or this is no object.
    package subscript(key key: String) -> OrderedJSON? {
        guard case .object(let members) = self else { return nil }
        return members.last { $0.key == key }?.value
    }

    /// What this is, for messages.
    package var kind: String {
        switch self {
        case .null: "null"
        case .bool: "a Boolean"
        case .integer: "an integer"
        case .number: "a number"
        case .string: "a string"
        case .array: "an array"
        case .object: "an object"
        }
    }

    package var string: String? {
        if case .string(let text) = self { text } else { nil }
    }

    package var bool: Bool? {
        if case .bool(let value) = self { value } else { nil }
    }

    package var integer: Int? {
        if case .integer(let value) = self { value } else { nil }
    }

    package var array: [OrderedJSON]? {
        if case .array(let values) = self { values } else { nil }
    }

    package var object: [Member]? {
        if case .object(let members) = self { members } else { nil }
    }

    package var isNull: Bool { self == .null }
}

private struct OrderedJSONParser {
    static let depthLimit = 128

    private let bytes: UnsafeBufferPointer<UInt8>
    private var position = 0
    private var depth = 0

    init(_ bytes: UnsafeBufferPointer<UInt8>) {
        self.bytes = bytes
        if bytes.count >= 3, bytes[0] == 0xEF, bytes[1] == 0xBB, bytes[2] == 0xBF { position = 3 }
    }

    mutating func document() throws(TokenizerError) -> OrderedJSON {
        let value = try value()
        skipSpace()
        if position < bytes.count { throw error("text after the document") }
        return value
    }

    private func error(_ reason: String) -> TokenizerError {
        .malformedJSON(offset: position, reason: reason)
    }

    private mutating func skipSpace() {
        while position < bytes.count, [0x20, 0x0A, 0x0D, 0x09].contains(bytes[position]) { position += 1 }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard position < bytes.count, bytes[position] == byte else { return false }
        position += 1
        return true
    }

    private mutating func value() throws(TokenizerError) -> OrderedJSON {
        skipSpace()
        guard position < bytes.count else { throw error("unexpected end") }
        switch bytes[position] {
        case UInt8(ascii: "{"): return try nested { parser throws(TokenizerError) in try parser.object() }
        case UInt8(ascii: "["): return try nested { parser throws(TokenizerError) in try parser.array() }
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try keyword("true", .bool(true))
        case UInt8(ascii: "f"): return try keyword("false", .bool(false))
        case UInt8(ascii: "n"): return try keyword("null", .null)
        default: return try number()
        }
    }

    private mutating func nested(
        _ body: (inout OrderedJSONParser) throws(TokenizerError) -> OrderedJSON
    ) throws(TokenizerError) -> OrderedJSON {
        depth += 1
        defer { depth -= 1 }
        if depth > Self.depthLimit { throw error("nested deeper than \(Self.depthLimit)") }
        position += 1
        return try body(&self)
    }

    private mutating func object() throws(TokenizerError) -> OrderedJSON {
        var members: [OrderedJSON.Member] = []
        skipSpace()
        if take(UInt8(ascii: "}")) { return .object(members) }
        while true {
            skipSpace()
            guard position < bytes.count, bytes[position] == UInt8(ascii: "\"") else { throw error("expected a key") }
            let key = try string()
            skipSpace()
            guard take(UInt8(ascii: ":")) else { throw error("expected :") }
            members.append(OrderedJSON.Member(key: key, value: try value()))
            skipSpace()
            if take(UInt8(ascii: "}")) { return .object(members) }
            guard take(UInt8(ascii: ",")) else { throw error("expected , or }") }
        }
    }

    private mutating func array() throws(TokenizerError) -> OrderedJSON {
        var values: [OrderedJSON] = []
        skipSpace()
        if take(UInt8(ascii: "]")) { return .array(values) }
        while true {
            values.append(try value())
            skipSpace()
            if take(UInt8(ascii: "]")) { return .array(values) }
            guard take(UInt8(ascii: ",")) else { throw error("expected , or ]") }
        }
    }

    private mutating func keyword(_ text: StaticString, _ value: OrderedJSON) throws(TokenizerError) -> OrderedJSON {
        let start = position
        for index in 0..<text.utf8CodeUnitCount {
            guard take(text.utf8Start[index]) else {
                position = start
                throw error("expected \(text)")
            }
        }
        return value
    }

    private mutating func number() throws(TokenizerError) -> OrderedJSON {
        let start = position
        let allowed = Set("+-0123456789.eE".utf8)
        while position < bytes.count, allowed.contains(bytes[position]) { position += 1 }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        if let integer = Int(text) { return .integer(integer) }
        guard let number = Double(text) else {
            position = start
            throw error("expected a value")
        }
        return .number(number)
    }

    private mutating func string() throws(TokenizerError) -> String {
        position += 1
        let start = position
        while position < bytes.count, bytes[position] != UInt8(ascii: "\""), bytes[position] != UInt8(ascii: "\\") {
            position += 1
        }
        let plain = bytes[start..<position]
        if take(UInt8(ascii: "\"")) { return String(decoding: plain, as: UTF8.self) }
        var text = Array(plain)
        while position < bytes.count {
            let byte = bytes[position]
            position += 1
            if byte == UInt8(ascii: "\"") { return String(decoding: text, as: UTF8.self) }
            if byte == UInt8(ascii: "\\") { try escape(into: &text) } else { text.append(byte) }
        }
        throw error("unterminated string")
    }

    private mutating func escape(into text: inout [UInt8]) throws(TokenizerError) {
        guard position < bytes.count else { throw error("unterminated string") }
        let byte = bytes[position]
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(byte)
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "f"): text.append(0x0C)
        case UInt8(ascii: "n"): text.append(0x0A)
        case UInt8(ascii: "r"): text.append(0x0D)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "u"):
            var value = try fourHexDigits()
            if (0xD800...0xDBFF).contains(value), position + 1 < bytes.count, bytes[position] == UInt8(ascii: "\\"),
                bytes[position + 1] == UInt8(ascii: "u")
            {
                let afterHigh = position
                position += 2
                let low = try fourHexDigits()
                if (0xDC00...0xDFFF).contains(low) {
                    value = 0x1_0000 + ((value - 0xD800) << 10) + (low - 0xDC00)
                } else {
                    position = afterHigh
                }
            }
            // A lone surrogate is no scalar, and becomes the replacement character.
            PackedScalar(Unicode.Scalar(value) ?? "\u{FFFD}").appendUTF8(to: &text)
        default: throw error("unknown escape")
        }
    }

    private mutating func fourHexDigits() throws(TokenizerError) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard position < bytes.count, let digit = Character(Unicode.Scalar(bytes[position])).hexDigitValue else {
                throw error("expected four hexadecimal digits")
            }
            value = value << 4 | UInt32(digit)
            position += 1
        }
        return value
    }
}
