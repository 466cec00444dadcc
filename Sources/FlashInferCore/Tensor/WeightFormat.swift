// The cases carry ggml's names, whose digits need the underscore: "q40" would read as forty.
// swift-format-ignore: AlwaysUseLowerCamelCase
/// How the weights of a matrix are stored in a model file: plain floats, or the block formats of ggml (GGUF files).
///
/// A row of a matrix is a run of blocks, each standing for `blockSize` consecutive weights. All scales are little-endian
/// float16. Layouts, in the order of the bytes (`d`, `m`: scale and minimum):
///
/// | format | block | bytes | layout | weight |
/// | --- | --- | --- | --- | --- |
/// | `q4_0` | 32 | 18 | d, 16 bytes: nibble low = weight j, high = weight j + 16 | d (q − 8) |
/// | `q4_1` | 32 | 20 | d, m, nibbles as above | d q + m |
/// | `q5_0` | 32 | 22 | d, 32 fifth bits (bit j = weight j), nibbles | d (q − 16) |
/// | `q5_1` | 32 | 24 | d, m, fifth bits, nibbles | d q + m |
/// | `q8_0` | 32 | 34 | d, 32 signed bytes | d q |
/// | `q4_K` | 256 | 144 | d, m, 12 bytes of eight 6-bit (scale s, min t) pairs, 4 × 32 bytes: low nibbles = sub-block 2i, high = 2i + 1 | d s q − m t |
/// | `q5_K` | 256 | 176 | d, m, the same 12, 32 bytes of fifth bits (bit i of byte k = weight k of sub-block i), nibbles | d s q − m t |
/// | `q6_K` | 256 | 210 | 128 bytes of nibbles, 64 of 2-bit tops, 16 signed scales s (one for 16 weights), d | d s (q − 32) |
public enum WeightFormat: UInt8, Sendable, Hashable, CaseIterable {
    /// IEEE binary32.
    case float32
    /// IEEE binary16.
    case float16
    /// The upper half of a binary32.
    case bfloat16
    /// 4 bits, a scale for 32 weights: 4.5 bits a weight.
    case q4_0
    /// 4 bits, a scale and a minimum for 32: 5 bits a weight.
    case q4_1
    /// 5 bits, a scale for 32: 5.5 bits a weight.
    case q5_0
    /// 5 bits, a scale and a minimum for 32: 6 bits a weight.
    case q5_1
    /// 8 bits, a scale for 32: 8.5 bits a weight.
    case q8_0
    /// 4 bits, 6-bit scales and minima for 32 in blocks of 256: 4.5 bits a weight.
    case q4K
    /// 5 bits, scales as `q4K`: 5.5 bits a weight.
    case q5K
    /// 6 bits, 8-bit scales for 16 in blocks of 256: 6.5625 bits a weight.
    case q6K

    /// Weights in a block; a row's length is a multiple of it.
    public var blockSize: Int {
        switch self {
        case .float32, .float16, .bfloat16: 1
        case .q4_0, .q4_1, .q5_0, .q5_1, .q8_0: 32
        case .q4K, .q5K, .q6K: 256
        }
    }

    /// Bytes of a block.
    public var bytesPerBlock: Int {
        switch self {
        case .float32: 4
        case .float16, .bfloat16: 2
        case .q4_0: 18
        case .q4_1: 20
        case .q5_0: 22
        case .q5_1: 24
        case .q8_0: 34
        case .q4K: 144
        case .q5K: 176
        case .q6K: 210
        }
    }

    /// Whether blocks hold integers and scales rather than plain floats.
    public var isQuantized: Bool { blockSize > 1 }

    /// Bytes of `elements` weights, or `nil` where that is negative, no whole number of blocks, or past 64 bits.
    public func byteCount(elements: Int) -> Int? {
        guard elements >= 0, elements % blockSize == 0 else { return nil }
        let (bytes, overflow) = (elements / blockSize).multipliedReportingOverflow(by: bytesPerBlock)
        return overflow ? nil : bytes
    }
}

extension WeightFormat: CustomStringConvertible {
    /// The name in model files, such as "q4_K".
    public var description: String {
        switch self {
        case .float32: "f32"
        case .float16: "f16"
        case .bfloat16: "bf16"
        case .q4_0: "q4_0"
        case .q4_1: "q4_1"
        case .q5_0: "q5_0"
        case .q5_1: "q5_1"
        case .q8_0: "q8_0"
        case .q4K: "q4_K"
        case .q5K: "q5_K"
        case .q6K: "q6_K"
        }
    }
}
