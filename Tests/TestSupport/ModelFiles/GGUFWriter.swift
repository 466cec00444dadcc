/// Writes GGUF files, sound ones and, where a test sets an override, broken ones.
///
/// Written from the format's description, not from the reader, so that the two check each other.
public struct GGUFWriter: Sendable {
    /// A metadata value.
    public indirect enum Value: Sendable {
        case uint8(UInt8), int8(Int8), uint16(UInt16), int16(Int16), uint32(UInt32), int32(Int32)
        case float32(Float), bool(UInt8), string(String), uint64(UInt64), int64(Int64), float64(Double)
        /// Elements, all of the type with that number.
        case array(type: UInt32, [Value])
        /// A value type and the bytes behind it, as they are.
        case raw(type: UInt32, [UInt8])
    }

    /// A tensor; `shape` in ggml's order, columns first.
    public struct Tensor: Sendable {
        /// Its name.
        public var name: String
        /// The number of its type.
        public var type: UInt32
        /// Its extents, columns first.
        public var shape: [UInt64]
        /// Its data, which need not fit the shape.
        public var bytes: [UInt8]
        /// What to write instead of where the data is.
        public var offset: UInt64?

        /// Describes a tensor; of float32 unless told.
        public init(_ name: String, type: UInt32 = 0, shape: [UInt64], bytes: [UInt8], offset: UInt64? = nil) {
            self.name = name
            self.type = type
            self.shape = shape
            self.bytes = bytes
            self.offset = offset
        }
    }

    /// The version to write.
    public var version: UInt32 = 3
    /// The alignment of the data; `general.alignment` is the caller's to write.
    public var alignment = 32
    /// The metadata in order.
    public var values: [(key: String, value: Value)] = []
    /// The tensors in order.
    public var tensors: [Tensor] = []
    /// What to write instead of the true number of tensors.
    public var tensorCount: UInt64?
    /// What to write instead of the true number of values.
    public var valueCount: UInt64?

    /// An empty file.
    public init() {}

    /// The bytes of the file.
    public func bytes() -> [UInt8] {
        var out: [UInt8] = Array("GGUF".utf8)
        out.append(little: version)
        out.append(little: tensorCount ?? UInt64(tensors.count))
        out.append(little: valueCount ?? UInt64(values.count))
        for (key, value) in values {
            out.append(text: key)
            out.append(little: value.type)
            value.write(to: &out)
        }
        var data: [UInt8] = []
        for tensor in tensors {
            out.append(text: tensor.name)
            out.append(little: UInt32(tensor.shape.count))
            for extent in tensor.shape { out.append(little: extent) }
            out.append(little: tensor.type)
            out.append(little: tensor.offset ?? UInt64(data.count))
            data += tensor.bytes
            data.pad(to: alignment)
        }
        if !tensors.isEmpty { out.pad(to: alignment) }
        return out + data
    }
}

extension GGUFWriter.Value {
    /// The number of the value's type.
    var type: UInt32 {
        switch self {
        case .uint8: 0
        case .int8: 1
        case .uint16: 2
        case .int16: 3
        case .uint32: 4
        case .int32: 5
        case .float32: 6
        case .bool: 7
        case .string: 8
        case .array: 9
        case .uint64: 10
        case .int64: 11
        case .float64: 12
        case .raw(let type, _): type
        }
    }

    func write(to out: inout [UInt8]) {
        switch self {
        case .uint8(let value): out.append(little: value)
        case .int8(let value): out.append(little: value)
        case .uint16(let value): out.append(little: value)
        case .int16(let value): out.append(little: value)
        case .uint32(let value): out.append(little: value)
        case .int32(let value): out.append(little: value)
        case .float32(let value): out.append(little: value.bitPattern)
        case .bool(let value): out.append(little: value)
        case .string(let value): out.append(text: value)
        case .uint64(let value): out.append(little: value)
        case .int64(let value): out.append(little: value)
        case .float64(let value): out.append(little: value.bitPattern)
        case .array(let type, let elements):
            out.append(little: type)
            out.append(little: UInt64(elements.count))
            for element in elements { element.write(to: &out) }
        case .raw(_, let bytes): out += bytes
        }
    }

    /// An array of texts.
    public static func strings(_ texts: [String]) -> Self { .array(type: 8, texts.map(Self.string)) }

    /// An array of 32-bit integers.
    public static func ints(_ numbers: [Int32]) -> Self { .array(type: 5, numbers.map(Self.int32)) }
}

extension [UInt8] {
    /// Appends a number, least byte first.
    public mutating func append<T: FixedWidthInteger>(little value: T) {
        Swift.withUnsafeBytes(of: value.littleEndian) { append(contentsOf: $0) }
    }

    /// Appends a 64-bit length and a text.
    public mutating func append(text: String) {
        append(little: UInt64(text.utf8.count))
        append(contentsOf: text.utf8)
    }

    /// Appends zeros up to a multiple of `alignment`.
    public mutating func pad(to alignment: Int) {
        while count % alignment != 0 { append(0) }
    }
}
