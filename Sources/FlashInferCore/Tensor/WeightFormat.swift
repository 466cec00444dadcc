/// How the numbers of a weight matrix are stored.
///
/// Every format packs a row into whole blocks of `blockSize` elements, `bytesPerBlock` bytes each.
public enum WeightFormat: String, Hashable, Sendable, CaseIterable {
    /// IEEE binary32.
    case float32
    /// IEEE binary16.
    case float16
    /// The upper half of a binary32.
    case bfloat16
    /// 32 elements: a half scale and 32 signed bytes.
    case q80
    /// 32 elements: a half scale and 32 nibbles around 8.
    case q40
    /// 32 elements: a half scale, a half minimum and 32 nibbles.
    case q41
    /// 32 elements: a half scale, 32 fifth bits and 32 nibbles around 16.
    case q50
    /// 256 elements: 8 sub-blocks with 6-bit scales and minimums, nibbles.
    case q4K
    /// 256 elements: 16 sub-blocks with 8-bit scales, 6-bit values.
    case q6K

    /// Elements in a block.
    public var blockSize: Int {
        switch self {
        case .float32, .float16, .bfloat16: 1
        case .q80, .q40, .q41, .q50: 32
        case .q4K, .q6K: 256
        }
    }

    /// Bytes of a block.
    public var bytesPerBlock: Int {
        switch self {
        case .float32: 4
        case .float16, .bfloat16: 2
        case .q80: 34
        case .q40: 18
        case .q41: 20
        case .q50: 22
        case .q4K: 144
        case .q6K: 210
        }
    }

    /// The bytes of `elements` elements, which must be a whole number of blocks.
    public func byteCount(elements: Int) -> Int { elements / blockSize * bytesPerBlock }
}
