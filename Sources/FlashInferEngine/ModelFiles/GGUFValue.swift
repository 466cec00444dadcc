/// A metadata value of a GGUF file, in the type it has in the file.
public enum GGUFValue: Sendable {
    /// Value type 0.
    case uint8(UInt8)
    /// Value type 1.
    case int8(Int8)
    /// Value type 2.
    case uint16(UInt16)
    /// Value type 3.
    case int16(Int16)
    /// Value type 4.
    case uint32(UInt32)
    /// Value type 5.
    case int32(Int32)
    /// Value type 6.
    case float32(Float)
    /// Value type 7.
    case bool(Bool)
    /// Value type 8.
    case string(String)
    /// Value type 9; still in the file, decoded on demand.
    case array(GGUFArray)
    /// Value type 10.
    case uint64(UInt64)
    /// Value type 11.
    case int64(Int64)
    /// Value type 12.
    case float64(Double)
}

/// The numbers that stand in a GGUF file for the types of metadata values.
public enum GGUFValueType: UInt32, Sendable {
    /// One unsigned byte.
    case uint8 = 0
    /// One signed byte.
    case int8 = 1
    /// Two bytes, unsigned.
    case uint16 = 2
    /// Two bytes, signed.
    case int16 = 3
    /// Four bytes, unsigned.
    case uint32 = 4
    /// Four bytes, signed.
    case int32 = 5
    /// IEEE binary32.
    case float32 = 6
    /// One byte, 0 or 1.
    case bool = 7
    /// A 64-bit length and UTF-8.
    case string = 8
    /// An element type, a 64-bit count and the elements.
    case array = 9
    /// Eight bytes, unsigned.
    case uint64 = 10
    /// Eight bytes, signed.
    case int64 = 11
    /// IEEE binary64.
    case float64 = 12

    /// The bytes of one value; nil for strings and arrays, whose size varies.
    var fixedSize: Int? {
        switch self {
        case .uint8, .int8, .bool: 1
        case .uint16, .int16: 2
        case .uint32, .int32, .float32: 4
        case .uint64, .int64, .float64: 8
        case .string, .array: nil
        }
    }

    /// The least bytes that one value can take.
    var minimumSize: Int {
        switch self {
        case .string: 8
        case .array: 12
        default: fixedSize ?? 1
        }
    }
}

extension GGUFValue {
    /// The value's type.
    public var type: GGUFValueType {
        switch self {
        case .uint8: .uint8
        case .int8: .int8
        case .uint16: .uint16
        case .int16: .int16
        case .uint32: .uint32
        case .int32: .int32
        case .float32: .float32
        case .bool: .bool
        case .string: .string
        case .array: .array
        case .uint64: .uint64
        case .int64: .int64
        case .float64: .float64
        }
    }

    /// The value if it is an integer of any width that fits `Int`.
    public var int: Int? {
        switch self {
        case .uint8(let value): Int(value)
        case .int8(let value): Int(value)
        case .uint16(let value): Int(value)
        case .int16(let value): Int(value)
        case .uint32(let value): Int(value)
        case .int32(let value): Int(value)
        case .uint64(let value): Int(exactly: value)
        case .int64(let value): Int(value)
        default: nil
        }
    }

    /// The value if it is a number, rounded to a double.
    public var double: Double? {
        switch self {
        case .float32(let value): Double(value)
        case .float64(let value): value
        case .uint64(let value): Double(value)
        default: int.map(Double.init)
        }
    }

    /// The value if it is a boolean.
    public var bool: Bool? { if case .bool(let value) = self { value } else { nil } }

    /// The value if it is a text.
    public var string: String? { if case .string(let value) = self { value } else { nil } }

    /// The value if it is an array.
    public var array: GGUFArray? { if case .array(let value) = self { value } else { nil } }
}

extension GGUFValue: CustomStringConvertible {
    /// The value as a person would write it; an array shows its type and count only.
    public var description: String {
        switch self {
        case .float32(let value): value.description
        case .float64(let value): value.description
        case .uint64(let value): value.description
        case .bool(let value): value.description
        case .string(let value): value
        case .array(let value): "\(value.elementType) x \(value.count)"
        default: int?.description ?? ""
        }
    }
}
