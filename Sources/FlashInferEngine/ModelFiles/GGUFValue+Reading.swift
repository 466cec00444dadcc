/// How deep arrays may nest; real files stay at one level.
private let maximumDepth = 8

extension ByteReader {
    /// Reads the number of a value type.
    mutating func readValueType(key: String) throws(ModelFileError) -> GGUFValueType {
        let number = try read(as: UInt32.self, "the type of \"\(key)\"")
        guard let type = GGUFValueType(rawValue: number) else {
            throw file.error(.unknownValueType(key: key, type: number))
        }
        return type
    }

    /// Reads one metadata value. Arrays are walked and checked, but not stored.
    mutating func readValue(_ type: GGUFValueType, key: String, depth: Int) throws(ModelFileError) -> GGUFValue {
        func what() -> String { "the value of \"\(key)\"" }
        return switch type {
        case .uint8: .uint8(try read(what()))
        case .int8: .int8(try read(what()))
        case .uint16: .uint16(try read(what()))
        case .int16: .int16(try read(what()))
        case .uint32: .uint32(try read(what()))
        case .int32: .int32(try read(what()))
        case .float32: .float32(Float(bitPattern: try read(what())))
        case .bool: .bool(try readBool(key: key))
        case .string: .string(try readString(what()))
        case .array: .array(try readArray(key: key, depth: depth))
        case .uint64: .uint64(try read(what()))
        case .int64: .int64(try read(what()))
        case .float64: .float64(Double(bitPattern: try read(what())))
        }
    }

    private mutating func readBool(key: String) throws(ModelFileError) -> Bool {
        let byte = try read(as: UInt8.self, "the value of \"\(key)\"")
        guard byte <= 1 else { throw file.error(.invalidBoolean(key: key, value: byte)) }
        return byte == 1
    }

    private mutating func readArray(key: String, depth: Int) throws(ModelFileError) -> GGUFArray {
        guard depth < maximumDepth else { throw file.error(.nestedTooDeep(what: "\"\(key)\"", limit: maximumDepth)) }
        let type = try readValueType(key: key)
        let count = try read(as: UInt64.self, "the count of \"\(key)\"")
        // Checked before the walk, so that a wild count is named as such and not as a file that ends early.
        let limit = UInt64(remaining / type.minimumSize)
        guard count <= limit else {
            throw file.error(.countTooLarge(what: "elements in \"\(key)\"", value: count, limit: limit))
        }
        let start = offset
        switch type {
        case .string:
            for _ in 0..<count { _ = try skipString("an element of \"\(key)\"") }
        case .array:
            for _ in 0..<count { _ = try readArray(key: key, depth: depth + 1) }
        case .bool:
            for _ in 0..<count { _ = try readBool(key: key) }
        default:
            _ = try skip(count * UInt64(type.minimumSize), "the elements of \"\(key)\"")
        }
        return GGUFArray(elementType: type, count: Int(count), range: start..<offset, file: file)
    }
}
