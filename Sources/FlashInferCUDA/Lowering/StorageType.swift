internal import FlashInferCore

extension DType {
    /// The types of activations, in the order of their numbers.
    static let computeTypes: [DType] = [.float32, .float16, .bfloat16]

    /// The number by which the kernels know the type: FI_FLOAT32 and so on.
    var kernelNumber: Int { Int(rawValue) }

    /// A short name for labels.
    var label: String {
        switch self {
        case .float32: "fp32"
        case .float16: "fp16"
        case .bfloat16: "bf16"
        case .float8E4M3: "e4m3"
        case .float8E5M2: "e5m2"
        case .int8: "int8"
        case .uint8: "uint8"
        case .int32: "int32"
        }
    }
}

/// FI_BYTES: in the place of an output's type, one of 8 bits that is chosen at run time.
let bytesNumber = 8

/// Elements that a thread takes at once: 16 bytes of the narrowest of some types, as `fi_vector` has it.
func vectorWidth(_ types: DType...) -> Int {
    var size = 4
    for type in types { size = min(size, type.byteCount) }
    return 16 / size
}

/// "bf16", or "bf16-fp32-bf16" where types differ.
func typesLabel(_ first: DType, _ second: DType, _ third: DType) -> String {
    first == second && second == third
        ? first.label : [first, second, third].map(\.label).joined(separator: "-")
}
