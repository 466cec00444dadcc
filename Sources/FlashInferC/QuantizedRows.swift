// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The functions of this file have the header's names.

public import CFlashInfer
internal import FlashInferCore

extension OutputQuantization {
    /// A caller's options; a scale of 1 for NULL.
    init(_ pointer: UnsafePointer<fi_quantize_options>?, on id: DeviceID) throws {
        guard let pointer else {
            self = .scale(1)
            return
        }
        let given = try options(pointer, "quantize", empty: fi_quantize_options())
        let ways = [
            given.scale != 0, given.scale_tensor != nil, given.row_scales != nil, given.group_scales != nil,
        ].count { $0 }
        guard ways <= 1 else {
            throw FlashInferError.invalidArgument(
                "quantize", found: "\(ways) of scale, scale_tensor, row_scales and group_scales",
                expected: "at most one")
        }
        guard given.group_size == 0 || given.group_scales != nil else {
            throw FlashInferError.invalidArgument(
                "group_size", found: "\(given.group_size)", expected: "0, as there are no group_scales")
        }
        if given.scale_tensor != nil {
            self = .scaleTensor(try TensorView(given.scale_tensor, "scale_tensor", on: id))
        } else if given.row_scales != nil {
            self = .perRow(scales: try TensorView(given.row_scales, "row_scales", on: id))
        } else if given.group_scales != nil {
            self = .perGroup(
                size: Int(given.group_size), scales: try TensorView(given.group_scales, "group_scales", on: id))
        } else {
            self = .scale(given.scale == 0 ? 1 : given.scale)
        }
    }
}

/// Root-mean-square normalisation with an output of 8 bits.
@c @implementation
public func fi_rmsnorm_quantize(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ input: UnsafePointer<fi_tensor>?,
    _ weight: UnsafePointer<fi_tensor>?, _ out: UnsafePointer<fi_tensor>?, _ eps: Float, _ weight_offset: Float,
    _ quantize: UnsafePointer<fi_quantize_options>?
) -> fi_status {
    perform {
        try normalise(
            device, stream, input, weight, out, eps, weight_offset,
            quantization: { id in try OutputQuantization(quantize, on: id) })
    }
}

/// Root-mean-square normalisation of a sum that replaces the residual, with an output of 8 bits.
@c @implementation
public func fi_fused_add_rmsnorm_quantize(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ input: UnsafePointer<fi_tensor>?,
    _ residual: UnsafePointer<fi_tensor>?, _ weight: UnsafePointer<fi_tensor>?, _ out: UnsafePointer<fi_tensor>?,
    _ eps: Float, _ weight_offset: Float, _ quantize: UnsafePointer<fi_quantize_options>?
) -> fi_status {
    perform {
        try normalise(
            device, stream, input, weight, out, eps, weight_offset,
            residual: { id in try TensorView(residual, "residual", on: id) },
            quantization: { id in try OutputQuantization(quantize, on: id) })
    }
}

/// A gated activation of the halves of a fused projection, with an output of 8 bits.
@c @implementation
public func fi_act_and_mul_quantize(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ kind: Int32, _ input: UnsafePointer<fi_tensor>?,
    _ out: UnsafePointer<fi_tensor>?, _ quantize: UnsafePointer<fi_quantize_options>?
) -> fi_status {
    perform {
        try gatedActivation(
            device, stream, kind, out, operands: { (id) throws(FlashInferError) in try halves(input, on: id) },
            quantization: { id in try OutputQuantization(quantize, on: id) })
    }
}

/// A gated activation of two tensors, with an output of 8 bits.
@c @implementation
public func fi_gated_activation_quantize(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ kind: Int32, _ gate: UnsafePointer<fi_tensor>?,
    _ up: UnsafePointer<fi_tensor>?, _ out: UnsafePointer<fi_tensor>?, _ quantize: UnsafePointer<fi_quantize_options>?
) -> fi_status {
    perform {
        try gatedActivation(
            device, stream, kind, out, operands: { (id) throws(FlashInferError) in try pair(gate, up, on: id) },
            quantization: { id in try OutputQuantization(quantize, on: id) })
    }
}

/// Conversion to 8 bits.
@c @implementation
public func fi_quantize(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ input: UnsafePointer<fi_tensor>?,
    _ out: UnsafePointer<fi_tensor>?, _ quantize: UnsafePointer<fi_quantize_options>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let id = stream.id
        try stream.run(
            .quantize(
                QuantizeOperation(
                    input: TensorView(input, "in", on: id), output: TensorView(out, "out", on: id),
                    quantization: OutputQuantization(quantize, on: id))))
    }
}

/// Layer norm, of a sum that replaces the residual where there is one.
@c @implementation
public func fi_layernorm(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ input: UnsafePointer<fi_tensor>?,
    _ residual: UnsafePointer<fi_tensor>?, _ weight: UnsafePointer<fi_tensor>?, _ bias: UnsafePointer<fi_tensor>?,
    _ out: UnsafePointer<fi_tensor>?, _ eps: Float, _ quantize: UnsafePointer<fi_quantize_options>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let id = stream.id
        let output = try TensorView(out, "out", on: id)
        // A floating output that comes with scales is refused as one that should be of 8 bits.
        let isQuantized = !output.dtype.isComputeType || quantize != nil
        try stream.run(
            .layerNorm(
                LayerNormOperation(
                    input: TensorView(input, "in", on: id), weight: TensorView(weight, "weight", on: id),
                    bias: TensorView(bias, "bias", on: id),
                    residual: TensorView(optional: residual, "residual", on: id),
                    output: output, epsilon: eps,
                    quantization: isQuantized ? OutputQuantization(quantize, on: id) : nil)))
    }
}
