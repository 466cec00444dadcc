public import FlashInferCore

/// One of the dtypes a safetensors header can name.
public struct SafetensorsType: Hashable, Sendable {
    /// The name in the header, such as `BF16`.
    public let name: String
    /// Bytes of an element.
    public let byteCount: Int
    /// What the engine calls this type; nil when it has no kernel for it.
    public let weightFormat: WeightFormat?

    /// Finds the type called `name`; nil when its size is not known.
    public init?(name: String) {
        guard let type = Self.all.first(where: { $0.name == name }) else { return nil }
        self = type
    }

    private init(_ name: String, _ byteCount: Int, _ format: WeightFormat? = nil) {
        self.name = name
        self.byteCount = byteCount
        weightFormat = format
    }

    /// All types of whole bytes.
    public static let all: [SafetensorsType] = [
        SafetensorsType("BF16", 2, .bfloat16),
        SafetensorsType("F16", 2, .float16),
        SafetensorsType("F32", 4, .float32),
        SafetensorsType("F64", 8),
        SafetensorsType("F8_E4M3", 1),
        SafetensorsType("F8_E5M2", 1),
        SafetensorsType("F8_E8M0", 1),
        SafetensorsType("BOOL", 1),
        SafetensorsType("U8", 1),
        SafetensorsType("I8", 1),
        SafetensorsType("U16", 2),
        SafetensorsType("I16", 2),
        SafetensorsType("U32", 4),
        SafetensorsType("I32", 4),
        SafetensorsType("U64", 8),
        SafetensorsType("I64", 8),
        SafetensorsType("C64", 8),
    ]
}
