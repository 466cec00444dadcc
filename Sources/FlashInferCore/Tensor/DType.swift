/// The element types that tensors and caches are made of.
public enum DType: UInt8, Sendable, Hashable, CaseIterable {
    /// IEEE 754 binary32.
    case float32
    /// IEEE 754 binary16.
    case float16
    /// The upper 16 bits of a binary32 ("brain float").
    case bfloat16
    /// 8-bit float with 4 exponent and 3 mantissa bits, no infinity, one NaN pattern (OCP "E4M3FN"), up to ±448.
    case float8E4M3
    /// 8-bit float with 5 exponent and 2 mantissa bits, infinities and NaNs (OCP "E5M2"), up to ±57,344.
    case float8E5M2
    /// Signed 8-bit integer; in a KV cache it stands for `value × scale`.
    case int8
    /// Unsigned byte; packed masks.
    case uint8
    /// Signed 32-bit integer; index arrays and token ids.
    case int32

    /// Bytes of one element.
    public var byteCount: Int {
        switch self {
        case .float32, .int32: 4
        case .float16, .bfloat16: 2
        case .float8E4M3, .float8E5M2, .int8, .uint8: 1
        }
    }

    /// Whether outputs and activations may have this type.
    public var isComputeType: Bool { self == .float32 || self == .float16 || self == .bfloat16 }

    /// Whether attention's queries may have this type.
    public var isQueryType: Bool { isComputeType || self == .float8E4M3 }

    /// Whether a KV cache may store this type.
    public var isCacheType: Bool { self != .int32 && self != .uint8 }
}

extension DType: CustomStringConvertible {
    /// The text shown to people.
    public var description: String {
        switch self {
        case .float32: "float32"
        case .float16: "float16"
        case .bfloat16: "bfloat16"
        case .float8E4M3: "float8-e4m3"
        case .float8E5M2: "float8-e5m2"
        case .int8: "int8"
        case .uint8: "uint8"
        case .int32: "int32"
        }
    }

    /// The type with this `description`, such as "bfloat16"; also takes the short names "fp32", "fp16", "bf16",
    /// "e4m3", "fp8" (= e4m3) and "e5m2".
    public init?(_ name: String) {
        switch name.lowercased() {
        case "float32", "fp32", "f32": self = .float32
        case "float16", "fp16", "f16": self = .float16
        case "bfloat16", "bf16": self = .bfloat16
        case "float8-e4m3", "e4m3", "fp8", "fp8-e4m3", "fp8_e4m3": self = .float8E4M3
        case "float8-e5m2", "e5m2", "fp8-e5m2", "fp8_e5m2": self = .float8E5M2
        case "int8", "i8": self = .int8
        case "uint8", "u8": self = .uint8
        case "int32", "i32": self = .int32
        default: return nil
        }
    }
}
