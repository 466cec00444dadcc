internal import CFlashInferCPU
public import FlashInferCore

extension CPUOps {
    /// Normalises rows.
    public func execute(_ operation: RMSNormOperation) {
        var arguments = fi_rms_norm_args(
            x: operation.input.kernelRows, residual: operation.residual?.kernelRows ?? .none,
            out: operation.output.kernelRows, weight: operation.weight.pointer,
            weight_dtype: operation.weight.dtype.kernelType, inner: operation.input.innerRows,
            width: operation.input.width, epsilon: operation.epsilon, weight_offset: operation.weightOffset,
            quantize: fi_quantize(operation.quantization))
        withUnsafePointer(to: &arguments) { arguments in
            spread(rows: operation.input.rowCount, units: 2 * operation.input.elementCount) { _, first, last in
                kernels.rms_norm(arguments, first, last)
            }
        }
    }

    /// Applies a gated activation.
    public func execute(_ operation: GatedActivationOperation) {
        let activation =
            switch operation.activation {
            case .silu: FI_SILU
            case .geluErf: FI_GELU_ERF
            case .geluTanh: FI_GELU_TANH
            }
        var arguments = fi_gated_args(
            gate: operation.gate.kernelRows, up: operation.up.kernelRows, out: operation.output.kernelRows,
            inner: operation.gate.innerRows, width: operation.gate.width, activation: activation,
            quantize: fi_quantize(operation.quantization))
        withUnsafePointer(to: &arguments) { arguments in
            spread(rows: operation.gate.rowCount, units: 4 * operation.gate.elementCount) { _, first, last in
                kernels.gated(arguments, first, last)
            }
        }
    }

    /// Adds or scales.
    public func execute(_ operation: AddOperation) {
        var arguments = fi_add_args(
            a: operation.first.kernelRows, b: operation.second?.kernelRows ?? .none, out: operation.output.kernelRows,
            inner: operation.first.innerRows, width: operation.first.width, alpha: operation.alpha,
            beta: operation.beta)
        withUnsafePointer(to: &arguments) { arguments in
            spread(rows: operation.first.rowCount, units: operation.first.elementCount) { _, first, last in
                kernels.add(arguments, first, last)
            }
        }
    }

    /// Converts element types.
    public func execute(_ operation: ConvertOperation) {
        var arguments = fi_convert_args(
            x: operation.input.kernelRows, out: operation.output.kernelRows, inner: operation.input.innerRows,
            width: operation.input.width, scale: operation.scale)
        withUnsafePointer(to: &arguments) { arguments in
            spread(rows: operation.input.rowCount, units: operation.input.elementCount) { _, first, last in
                kernels.convert(arguments, first, last)
            }
        }
    }

    /// Gathers rows of a table.
    public func execute(_ operation: EmbeddingOperation) {
        var arguments = fi_embedding_args(
            table: operation.table.pointer, table_stride: Int64(operation.table.strides[0]),
            table_dtype: operation.table.dtype.kernelType, ids: operation.ids.elements(as: Int32.self),
            out: operation.output.kernelRows, width: operation.table.width, scale: operation.scale)
        withUnsafePointer(to: &arguments) { arguments in
            spread(rows: operation.output.rowCount, units: operation.output.elementCount) { _, first, last in
                kernels.embedding(arguments, first, last)
            }
        }
    }
}
