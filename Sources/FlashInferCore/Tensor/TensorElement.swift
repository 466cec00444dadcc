/// A Swift type that is stored in tensors of one `DType`.
public protocol TensorElement: BitwiseCopyable, Sendable {
    /// The element type of tensors made of `Self`.
    static var dtype: DType { get }
}

extension Float: TensorElement {
    /// The element type of tensors of this type.
    public static var dtype: DType { .float32 }
}

extension BFloat16: TensorElement {
    /// The element type of tensors of this type.
    public static var dtype: DType { .bfloat16 }
}

extension Float8E4M3: TensorElement {
    /// The element type of tensors of this type.
    public static var dtype: DType { .float8E4M3 }
}

extension Float8E5M2: TensorElement {
    /// The element type of tensors of this type.
    public static var dtype: DType { .float8E5M2 }
}

extension Int8: TensorElement {
    /// The element type of tensors of this type.
    public static var dtype: DType { .int8 }
}

extension UInt8: TensorElement {
    /// The element type of tensors of this type.
    public static var dtype: DType { .uint8 }
}

extension Int32: TensorElement {
    /// The element type of tensors of this type.
    public static var dtype: DType { .int32 }
}

#if !(os(macOS) && arch(x86_64))
    extension Float16: TensorElement {
        /// The element type of tensors of this type.
        public static var dtype: DType { .float16 }
    }
#endif
