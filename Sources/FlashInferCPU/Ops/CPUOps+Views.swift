internal import CFlashInferCPU
internal import FlashInferCore

extension DType {
    /// The C kernels' name of the type.
    ///
    /// - Precondition: a floating type or int8.
    var kernelType: fi_dtype {
        switch self {
        case .float32: FI_DTYPE_F32
        case .float16: FI_DTYPE_F16
        case .bfloat16: FI_DTYPE_BF16
        case .float8E4M3: FI_DTYPE_E4M3
        case .float8E5M2: FI_DTYPE_E5M2
        case .int8: FI_DTYPE_I8
        case .uint8, .int32: preconditionFailure("the row kernels have no \(self)")
        }
    }
}

extension TensorView {
    /// The view as rows for the C kernels: rank 1 is one row, rank 3 rows of rows.
    var kernelRows: fi_rows {
        fi_rows(
            data: pointer, outer_stride: rank > 1 ? Int64(strides[0]) : 0,
            inner_stride: rank > 2 ? Int64(strides[1]) : 0, dtype: dtype.kernelType)
    }

    /// How many rows follow one another by the inner stride.
    var innerRows: Int64 { rank > 2 ? Int64(max(shape[1], 1)) : 1 }

    /// Elements of a row.
    var width: Int64 { Int64(shape[rank - 1]) }

    /// The elements' addresses; the view holds at least one.
    func elements<Element>(as type: Element.Type) -> UnsafeMutablePointer<Element>? {
        pointer?.assumingMemoryBound(to: Element.self)
    }
}

extension fi_rows {
    /// No rows: the kernels' "nullptr".
    static var none: fi_rows { fi_rows(data: nil, outer_stride: 0, inner_stride: 0, dtype: FI_DTYPE_F32) }
}

extension fi_quantize {
    /// The scale of an output of 8 bits, as it is now.
    init(_ quantization: OutputQuantization?) {
        self.init(factor: 1, row_scales: nil, group: 0, scale_row: 1, scale_group: 0)
        switch quantization {
        case nil: break
        case .scale(let scale): factor = 1 / scale
        case .scaleTensor(let scale): factor = 1 / (scale.elements(as: Float.self)?.pointee ?? 1)
        case .perRow(let scales): row_scales = scales.elements(as: Float.self)
        case .perGroup(let size, let scales):
            row_scales = scales.elements(as: Float.self)
            (group, scale_row, scale_group) = (Int64(size), Int64(scales.strides[0]), Int64(scales.strides[1]))
        }
    }
}
