internal import CFlashInfer
internal import FlashInferCore

extension DType {
    /// The type that DLPack's code, bits and lanes stand for; `nil` for those that no tensor here has.
    init?(_ dtype: fi_data_type) {
        guard dtype.lanes == 1 else { return nil }
        switch (Int(dtype.code), dtype.bits) {
        case (FI_FLOAT, 32): self = .float32
        case (FI_FLOAT, 16): self = .float16
        case (FI_BFLOAT, 16): self = .bfloat16
        case (FI_FLOAT8_E4M3FN, 8): self = .float8E4M3
        case (FI_FLOAT8_E5M2, 8): self = .float8E5M2
        case (FI_INT, 8): self = .int8
        case (FI_INT, 32): self = .int32
        case (FI_UINT, 8): self = .uint8
        default: return nil
        }
    }
}

extension fi_data_type {
    /// One byte, 0 or not.
    var isBool: Bool { Int(code) == FI_BOOL && bits == 8 && lanes == 1 }

    /// Not given.
    var isEmpty: Bool { code == 0 && bits == 0 && lanes == 0 }

    /// The type for people: "int64", "bool", "float64", "complex64".
    var text: String {
        let name: String
        switch Int(code) {
        case FI_INT: name = "int\(bits)"
        case FI_UINT: name = "uint\(bits)"
        case FI_FLOAT: name = "float\(bits)"
        case FI_BFLOAT: name = "bfloat\(bits)"
        case 5: name = "complex\(bits)"
        case FI_BOOL: name = "bool"
        case FI_FLOAT8_E4M3FN: name = "float8-e4m3"
        case FI_FLOAT8_E5M2: name = "float8-e5m2"
        default: name = "a type of DLPack code \(code) and \(bits) bits"
        }
        return lanes == 1 ? name : "\(name) x \(lanes)"
    }
}
