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

    /// Normalises rows about their mean.
    public func execute(_ operation: LayerNormOperation) {
        var arguments = fi_layer_norm_args(
            norm: fi_rms_norm_args(
                x: operation.input.kernelRows, residual: operation.residual?.kernelRows ?? .none,
                out: operation.output.kernelRows, weight: operation.weight.pointer,
                weight_dtype: operation.weight.dtype.kernelType, inner: operation.input.innerRows,
                width: operation.input.width, epsilon: operation.epsilon, weight_offset: 0,
                quantize: fi_quantize(operation.quantization)),
            bias: operation.bias.pointer)
        withUnsafePointer(to: &arguments) { arguments in
            spread(rows: operation.input.rowCount, units: 3 * operation.input.elementCount) { _, first, last in
                kernels.layer_norm(arguments, first, last)
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

    /// Converts to 8 bits.
    public func execute(_ operation: QuantizeOperation) {
        var arguments = fi_quantize_args(
            x: operation.input.kernelRows, out: operation.output.kernelRows, inner: operation.input.innerRows,
            width: operation.input.width, quantize: fi_quantize(operation.quantization))
        withUnsafePointer(to: &arguments) { arguments in
            spread(rows: operation.input.rowCount, units: 2 * operation.input.elementCount) { _, first, last in
                kernels.quantize(arguments, first, last)
            }
        }
    }

    /// Packs flags into bits.
    public func execute(_ operation: PackBitsOperation) {
        guard let flags = operation.flags.elements(as: UInt8.self),
            let output = operation.output.elements(as: UInt8.self)
        else { return }
        let isHighestFirst = operation.order == .highestFirst
        guard let segments = operation.segments else {
            let count = operation.flags.shape[0]
            return spread(rows: operation.output.shape[0], units: count) { _, first, last in
                fi_ops_pack_bits(output, flags, Int64(count), isHighestFirst, first, last)
            }
        }
        guard let starts = segments.flags.elements(as: Int32.self), let bytes = segments.bytes.elements(as: Int32.self)
        else { return }
        spread(rows: segments.flags.shape[0] - 1, units: operation.flags.shape[0]) { _, first, last in
            for segment in Int(first)..<Int(last) {
                let (start, place) = (Int(starts[segment]), Int(bytes[segment]))
                fi_ops_pack_bits(
                    output + place, flags + start, Int64(Int(starts[segment + 1]) - start), isHighestFirst, 0,
                    Int64(Int(bytes[segment + 1]) - place))
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
