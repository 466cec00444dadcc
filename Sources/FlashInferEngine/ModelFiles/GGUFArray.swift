/// An array among the metadata of a GGUF file.
///
/// The elements stay in the mapped file and are decoded when asked for: a vocabulary of 49,152 entries costs nothing
/// until somebody wants it. Everything was checked when the file was opened, so decoding cannot fail.
public struct GGUFArray: Sendable {
    /// The type of every element.
    public let elementType: GGUFValueType
    /// The number of elements.
    public let count: Int
    /// Where the elements lie in the file.
    package let range: Range<Int>

    private let file: MappedFile

    init(elementType: GGUFValueType, count: Int, range: Range<Int>, file: MappedFile) {
        self.elementType = elementType
        self.count = count
        self.range = range
        self.file = file
    }

    /// The elements if they are texts, else nil. O(bytes of the array).
    public var strings: [String]? {
        guard elementType == .string else { return nil }
        var result: [String] = []
        result.reserveCapacity(count)
        forEachUTF8 { result.append(String(decoding: $0, as: UTF8.self)) }
        return result
    }

    /// Calls `body` with the UTF-8 of each element in order, without making a `String`; does nothing when the elements
    /// are not texts. The pointer is valid during the call only.
    public func forEachUTF8<E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> Void) throws(E) {
        guard elementType == .string else { return }
        var offset = range.lowerBound
        for _ in 0..<count {
            let length = Int(UInt64(littleEndian: file.bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)))
            let start = offset + 8
            try body(UnsafeRawBufferPointer(rebasing: file.bytes[start..<start + length]))
            offset = start + length
        }
    }

    /// The elements if they are integers of any width that all fit `Int`, else nil. O(count).
    public var ints: [Int]? {
        guard let size = elementType.fixedSize else { return nil }
        var result: [Int] = []
        result.reserveCapacity(count)
        for index in 0..<count {
            guard let value = scalar(at: range.lowerBound + index * size).int else { return nil }
            result.append(value)
        }
        return result
    }

    /// The elements if they are numbers, rounded to single precision, else nil. O(count).
    public var floats: [Float]? {
        guard let size = elementType.fixedSize else { return nil }
        var result: [Float] = []
        result.reserveCapacity(count)
        for index in 0..<count {
            guard let value = scalar(at: range.lowerBound + index * size).double else { return nil }
            result.append(Float(value))
        }
        return result
    }

    /// The first `limit` elements as values of their own; nested arrays stay arrays. O(bytes passed over).
    public func prefix(_ limit: Int) -> [GGUFValue] {
        var reader = ByteReader(file, offset: range.lowerBound, end: range.upperBound)
        var result: [GGUFValue] = []
        for _ in 0..<max(0, min(limit, count)) {
            guard let value = try? reader.readValue(elementType, key: "", depth: 0) else { break }
            result.append(value)
        }
        return result
    }

    /// One value of fixed size at byte `offset`, which must lie in the array.
    private func scalar(at offset: Int) -> GGUFValue {
        func load<T: FixedWidthInteger>(_ type: T.Type = T.self) -> T {
            T(littleEndian: file.bytes.loadUnaligned(fromByteOffset: offset, as: T.self))
        }
        return switch elementType {
        case .uint8: .uint8(load())
        case .int8: .int8(load())
        case .uint16: .uint16(load())
        case .int16: .int16(load())
        case .uint32: .uint32(load())
        case .int32: .int32(load())
        case .float32: .float32(Float(bitPattern: load()))
        case .bool: .bool(load(UInt8.self) != 0)
        case .uint64: .uint64(load())
        case .int64: .int64(load())
        case .float64: .float64(Double(bitPattern: load()))
        case .string, .array: .string("")
        }
    }
}
