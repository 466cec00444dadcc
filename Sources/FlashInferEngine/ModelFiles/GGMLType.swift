public import FlashInferCore

/// One of the tensor types a GGUF file can name: its number, its name and its block layout.
///
/// The table holds every type whose layout is known, so that `flashinfer inspect` can show any file; only those with a
/// `weightFormat` can be computed with.
public struct GGMLType: Hashable, Sendable {
    /// The number that stands in the file.
    public let id: UInt32
    /// The name in ggml's spelling, such as `Q4_1`.
    public let name: String
    /// Elements in a block.
    public let blockSize: Int
    /// Bytes of a block.
    public let bytesPerBlock: Int
    /// What the engine calls this type; nil when it has no kernel for it.
    public let weightFormat: WeightFormat?

    /// Finds the type of number `id`; nil when no layout is known for it.
    public init?(id: UInt32) {
        guard let type = Self.table[id] else { return nil }
        self = type
    }

    private init(_ id: UInt32, _ name: String, _ blockSize: Int, _ bytesPerBlock: Int, _ format: WeightFormat? = nil) {
        self.id = id
        self.name = name
        self.blockSize = blockSize
        self.bytesPerBlock = bytesPerBlock
        weightFormat = format
    }

    /// All types with a known layout, in the order of their numbers.
    public static let all: [GGMLType] = [
        GGMLType(0, "F32", 1, 4, .float32),
        GGMLType(1, "F16", 1, 2, .float16),
        GGMLType(2, "Q4_0", 32, 18, .q40),
        GGMLType(3, "Q4_1", 32, 20, .q41),
        GGMLType(6, "Q5_0", 32, 22, .q50),
        GGMLType(7, "Q5_1", 32, 24, .q51),
        GGMLType(8, "Q8_0", 32, 34, .q80),
        GGMLType(9, "Q8_1", 32, 36),
        GGMLType(10, "Q2_K", 256, 84),
        GGMLType(11, "Q3_K", 256, 110),
        GGMLType(12, "Q4_K", 256, 144, .q4K),
        GGMLType(13, "Q5_K", 256, 176, .q5K),
        GGMLType(14, "Q6_K", 256, 210, .q6K),
        GGMLType(15, "Q8_K", 256, 292),
        GGMLType(16, "IQ2_XXS", 256, 66),
        GGMLType(17, "IQ2_XS", 256, 74),
        GGMLType(18, "IQ3_XXS", 256, 98),
        GGMLType(19, "IQ1_S", 256, 50),
        GGMLType(20, "IQ4_NL", 32, 18),
        GGMLType(21, "IQ3_S", 256, 110),
        GGMLType(22, "IQ2_S", 256, 82),
        GGMLType(23, "IQ4_XS", 256, 136),
        GGMLType(24, "I8", 1, 1),
        GGMLType(25, "I16", 1, 2),
        GGMLType(26, "I32", 1, 4),
        GGMLType(27, "I64", 1, 8),
        GGMLType(28, "F64", 1, 8),
        GGMLType(29, "IQ1_M", 256, 56),
        GGMLType(30, "BF16", 1, 2, .bfloat16),
        GGMLType(34, "TQ1_0", 256, 54),
        GGMLType(35, "TQ2_0", 256, 66),
        GGMLType(39, "MXFP4", 32, 17),
    ]

    private static let table = Dictionary(uniqueKeysWithValues: all.map { ($0.id, $0) })
}
