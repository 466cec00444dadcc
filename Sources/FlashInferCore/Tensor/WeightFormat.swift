/// How the numbers of a weight matrix are stored in a model file.
///
/// Every format packs a row into whole blocks of ``blockSize`` weights, ``bytesPerBlock`` bytes each. The quantised ones are
/// ggml's; `d` is a binary16 scale, `m` a binary16 minimum, nibbles hold weight `i` in the low half of byte `i` and weight
/// `i + half` in its high half.
public enum WeightFormat: UInt8, Hashable, Sendable, CaseIterable {
    /// IEEE binary32.
    case float32 = 0
    /// IEEE binary16.
    case float16 = 1
    /// The upper half of a binary32.
    case bfloat16 = 2
    /// 32 weights `d · (q − 8)`: d, 16 bytes of nibbles.
    case q40 = 3
    /// 32 weights `d · q + m`: d, m, 16 bytes of nibbles.
    case q41 = 4
    /// 32 weights `d · (q − 16)`: d, 4 bytes of fifth bits, 16 bytes of nibbles.
    case q50 = 5
    /// 32 weights `d · q + m`: d, m, 4 bytes of fifth bits, 16 bytes of nibbles.
    case q51 = 6
    /// 32 weights `d · q`: d, 32 signed bytes.
    case q80 = 7
    /// 256 weights in 8 sub-blocks `d · s · q − m · t`: d, m, 12 bytes of 6-bit s and t, 128 bytes of nibbles.
    case q4K = 8
    /// 256 weights in 8 sub-blocks `d · s · q − m · t`: d, m, 12 bytes of 6-bit s and t, 32 bytes of fifth bits, 128 of nibbles.
    case q5K = 9
    /// 256 weights in 16 sub-blocks `d · s · (q − 32)`: 128 bytes of low nibbles, 64 of high bit pairs, 16 signed s, d.
    case q6K = 10

    /// Weights in a block.
    public var blockSize: Int {
        switch self {
        case .float32, .float16, .bfloat16: 1
        case .q40, .q41, .q50, .q51, .q80: 32
        case .q4K, .q5K, .q6K: 256
        }
    }

    /// Bytes of a block.
    public var bytesPerBlock: Int {
        switch self {
        case .float32: 4
        case .float16, .bfloat16: 2
        case .q40: 18
        case .q41: 20
        case .q50: 22
        case .q51: 24
        case .q80: 34
        case .q4K: 144
        case .q5K: 176
        case .q6K: 210
        }
    }

    /// Whether blocks hold integers and scales rather than plain floats.
    public var isQuantized: Bool { blockSize > 1 }

    /// The bytes of `elements` weights; `nil` where that is no whole number of blocks, is negative, or overflows.
    public func byteCount(elements: Int) -> Int? {
        guard elements >= 0, elements % blockSize == 0 else { return nil }
        let (bytes, overflow) = (elements / blockSize).multipliedReportingOverflow(by: bytesPerBlock)
        return overflow ? nil : bytes
    }
}

extension WeightFormat: CustomStringConvertible {
    /// The name that model files and tools use, such as "Q4_1".
    public var description: String {
        switch self {
        case .float32: "F32"
        case .float16: "F16"
        case .bfloat16: "BF16"
        case .q40: "Q4_0"
        case .q41: "Q4_1"
        case .q50: "Q5_0"
        case .q51: "Q5_1"
        case .q80: "Q8_0"
        case .q4K: "Q4_K"
        case .q5K: "Q5_K"
        case .q6K: "Q6_K"
        }
    }
}
