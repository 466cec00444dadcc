/// A strict JSON reader (RFC 8259): no duplicate keys, no trailing text, bounded depth and number of values. O(bytes).
struct JSONParser {
    /// Deep enough for any model's files, shallow enough for any stack.
    private static let maximumDepth = 64
    /// Ten times what the largest index in use has. A value can take 250 bytes of memory for 4 of text (an object of one
    /// member), so the limit is what keeps a hostile file of many small values from filling the memory.
    private static let maximumValues = 1 << 20

    private let bytes: UnsafeRawBufferPointer
    private let file: String
    private let what: String
    private let base: Int
    private var offset = 0
    private var valueCount = 0

    /// Parses `range` of `file` as one JSON value; errors name `what` and count bytes from the start of the file.
    static func parse(
        _ file: MappedFile, range: Range<Int>? = nil, what: String = "JSON"
    ) throws(ModelFileError) -> JSONNode {
        let range = range ?? 0..<file.count
        let bytes = try file.bytes(in: range)
        guard file.isUTF8(in: range) else {
            throw file.error(.invalidUTF8(what: what, offset: range.lowerBound))
        }
        var parser = JSONParser(bytes: bytes, file: file.path, what: what, base: range.lowerBound)
        return try parser.document()
    }

    private init(bytes: UnsafeRawBufferPointer, file: String, what: String, base: Int) {
        self.bytes = bytes
        self.file = file
        self.what = what
        self.base = base
    }

    private mutating func document() throws(ModelFileError) -> JSONNode {
        let value = try value(depth: 0)
        skipSpace()
        guard offset == bytes.count else { throw invalid("more text after the value") }
        return value
    }

    private mutating func value(depth: Int) throws(ModelFileError) -> JSONNode {
        guard depth < Self.maximumDepth else {
            throw ModelFileError(file: file, problem: .nestedTooDeep(what: what, limit: Self.maximumDepth))
        }
        valueCount += 1
        guard valueCount <= Self.maximumValues else {
            let limit = UInt64(Self.maximumValues)
            throw ModelFileError(
                file: file, problem: .countTooLarge(what: "values in \(what)", value: limit + 1, limit: limit))
        }
        skipSpace()
        guard let first = peek else { throw invalid("a value is missing") }
        switch first {
        case UInt8(ascii: "{"): return .object(try object(depth: depth))
        case UInt8(ascii: "["): return .array(try array(depth: depth))
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try number()
        default: throw invalid("no value starts like this")
        }
    }

    private mutating func object(depth: Int) throws(ModelFileError) -> [String: JSONNode] {
        offset += 1
        var members: [String: JSONNode] = [:]
        skipSpace()
        if take("}") { return members }
        repeat {
            skipSpace()
            guard peek == UInt8(ascii: "\"") else { throw invalid("a key must be a string") }
            let key = try string()
            skipSpace()
            guard take(":") else { throw invalid("\":\" is missing after a key") }
            guard members.updateValue(try value(depth: depth + 1), forKey: key) == nil else {
                throw ModelFileError(file: file, problem: .duplicateKey(key))
            }
            skipSpace()
        } while take(",")
        guard take("}") else { throw invalid("\",\" or \"}\" is missing") }
        return members
    }

    private mutating func array(depth: Int) throws(ModelFileError) -> [JSONNode] {
        offset += 1
        var elements: [JSONNode] = []
        skipSpace()
        if take("]") { return elements }
        repeat {
            elements.append(try value(depth: depth + 1))
            skipSpace()
        } while take(",")
        guard take("]") else { throw invalid("\",\" or \"]\" is missing") }
        return elements
    }

    private mutating func number() throws(ModelFileError) -> JSONNode {
        let start = offset
        var isInteger = true
        _ = take("-")
        if !take("0") { try digits() }
        if take(".") {
            isInteger = false
            try digits()
        }
        if take("e") || take("E") {
            isInteger = false
            if !take("+") { _ = take("-") }
            try digits()
        }
        let text = String(decoding: bytes[start..<offset], as: UTF8.self)
        if isInteger, let value = Int(text) { return .integer(value) }
        guard let value = Double(text), value.isFinite else { throw invalid("the number is out of range") }
        return .number(value)
    }

    private mutating func digits() throws(ModelFileError) {
        let start = offset
        while let byte = peek, byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") { offset += 1 }
        guard offset > start else { throw invalid("a digit is missing") }
    }

    private mutating func word(_ text: StaticString, _ value: JSONNode) throws(ModelFileError) -> JSONNode {
        let count = text.utf8CodeUnitCount
        let matches =
            bytes.count - offset >= count
            && (0..<count).allSatisfy { bytes[offset + $0] == text.utf8Start[$0] }
        guard matches else { throw invalid("\"\(text)\" is misspelt") }
        offset += count
        return value
    }

    private var peek: UInt8? { offset < bytes.count ? bytes[offset] : nil }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard peek == UInt8(ascii: character) else { return false }
        offset += 1
        return true
    }

    private mutating func skipSpace() {
        while let byte = peek, byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 { offset += 1 }
    }

    private func invalid(_ reason: String) -> ModelFileError {
        ModelFileError(file: file, problem: .invalidJSON(what: what, offset: base + offset, reason: reason))
    }
}

extension JSONParser {
    /// Reads a string from its opening quote on.
    private mutating func string() throws(ModelFileError) -> String {
        offset += 1
        let start = offset
        while let byte = peek, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\"), byte >= 0x20 { offset += 1 }
        if peek == UInt8(ascii: "\"") {
            defer { offset += 1 }
            return String(decoding: bytes[start..<offset], as: UTF8.self)
        }
        var text = Array(bytes[start..<offset])
        while let byte = peek {
            offset += 1
            switch byte {
            case UInt8(ascii: "\""): return String(decoding: text, as: UTF8.self)
            case UInt8(ascii: "\\"): text.append(contentsOf: Array(String(try escape()).utf8))
            case 0..<0x20: throw invalid("a control character inside a string")
            default: text.append(byte)
            }
        }
        throw invalid("a string does not end")
    }

    /// Reads what follows a backslash.
    private mutating func escape() throws(ModelFileError) -> Unicode.Scalar {
        guard let byte = peek else { throw invalid("a string does not end") }
        offset += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte)
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{c}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"):
            let first = try hexUnit()
            if let scalar = Unicode.Scalar(first) { return scalar }
            // A leading surrogate must be followed by \u and a trailing one.
            guard first < 0xdc00, take("\\"), take("u") else { throw invalid("a surrogate stands alone") }
            let second = try hexUnit()
            guard 0xdc00...0xdfff ~= second,
                let scalar = Unicode.Scalar(0x10000 + (first - 0xd800) << 10 + (second - 0xdc00))
            else { throw invalid("a surrogate stands alone") }
            return scalar
        default: throw invalid("an unknown escape")
        }
    }

    private mutating func hexUnit() throws(ModelFileError) -> UInt32 {
        var unit: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = peek, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
                throw invalid("four hexadecimal digits are missing")
            }
            unit = unit << 4 | UInt32(digit)
            offset += 1
        }
        return unit
    }
}
