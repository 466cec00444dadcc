// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The functions of this file have the header's names.

public import CFlashInfer
internal import FlashInferCore

/// The stream of a call, from the caller's device and stream.
@inline(__always)
func call(_ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?) throws(FlashInferError) -> StreamState {
    try object(device, "device", as: DeviceHandle.self).on(stream)
}

/// All forms of root-mean-square normalisation.
func normalise(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ input: UnsafePointer<fi_tensor>?,
    _ weight: UnsafePointer<fi_tensor>?, _ out: UnsafePointer<fi_tensor>?, _ eps: Float, _ weightOffset: Float,
    residual: (DeviceID) throws -> TensorView? = { _ in nil },
    quantization: (DeviceID) throws -> OutputQuantization? = { _ in nil }
) throws {
    let stream = try call(device, stream)
    let id = stream.id
    try stream.run(
        .rmsNorm(
            RMSNormOperation(
                input: TensorView(input, "in", on: id), weight: TensorView(weight, "weight", on: id),
                residual: residual(id), output: TensorView(out, "out", on: id), epsilon: eps,
                weightOffset: weightOffset,
                quantization: quantization(id))))
}

/// Root-mean-square normalisation.
@c @implementation
public func fi_rmsnorm(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ input: UnsafePointer<fi_tensor>?,
    _ weight: UnsafePointer<fi_tensor>?, _ out: UnsafePointer<fi_tensor>?, _ eps: Float, _ weight_offset: Float
) -> fi_status {
    perform {
        try normalise(device, stream, input, weight, out, eps, weight_offset)
    }
}

/// Root-mean-square normalisation of a sum that replaces the residual.
@c @implementation
public func fi_fused_add_rmsnorm(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ input: UnsafePointer<fi_tensor>?,
    _ residual: UnsafePointer<fi_tensor>?, _ weight: UnsafePointer<fi_tensor>?, _ out: UnsafePointer<fi_tensor>?,
    _ eps: Float, _ weight_offset: Float
) -> fi_status {
    perform {
        try normalise(
            device, stream, input, weight, out, eps, weight_offset,
            residual: { id in try TensorView(residual, "residual", on: id) })
    }
}

/// All forms of gated activations.
func gatedActivation(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ kind: Int32, _ out: UnsafePointer<fi_tensor>?,
    operands: (DeviceID) throws(FlashInferError) -> (gate: TensorView, up: TensorView),
    quantization: (DeviceID) throws -> OutputQuantization? = { _ in nil }
) throws {
    let stream = try call(device, stream)
    let (gate, up) = try operands(stream.id)
    let activation: GatedActivationOperation.Activation = try choice(
        "activation", kind,
        [(FI_ACTIVATION_SILU, .silu), (FI_ACTIVATION_GELU, .geluErf), (FI_ACTIVATION_GELU_TANH, .geluTanh)])
    try stream.run(
        .gatedActivation(
            GatedActivationOperation(
                gate: gate, up: up, output: TensorView(out, "out", on: stream.id), activation: activation,
                quantization: quantization(stream.id))))
}

/// The gate and the other half of a fused projection.
func halves(_ input: UnsafePointer<fi_tensor>?, on id: DeviceID) throws(FlashInferError) -> (
    gate: TensorView, up: TensorView
) {
    let both = try TensorView(input, "in", on: id)
    guard both.rank >= 1, both.shape[-1] % 2 == 0 else {
        throw .invalidArgument(
            "in", found: "of shape \(both.shape)", expected: "rows of an even width, the gate and then the other half")
    }
    let (width, last) = (both.shape[-1] / 2, both.rank - 1)
    return (both.slice(0..<width, along: last), both.slice(width..<2 * width, along: last))
}

/// The gate and the other operand as tensors of their own.
func pair(
    _ gate: UnsafePointer<fi_tensor>?, _ up: UnsafePointer<fi_tensor>?, on id: DeviceID
) throws(FlashInferError) -> (gate: TensorView, up: TensorView) {
    (try TensorView(gate, "gate", on: id), try TensorView(up, "up", on: id))
}

/// A gated activation of the halves of a fused projection.
@c @implementation
public func fi_act_and_mul(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ kind: Int32, _ input: UnsafePointer<fi_tensor>?,
    _ out: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        try gatedActivation(
            device, stream, kind, out, operands: { (id) throws(FlashInferError) in try halves(input, on: id) })
    }
}

/// A gated activation of two tensors.
@c @implementation
public func fi_gated_activation(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ kind: Int32, _ gate: UnsafePointer<fi_tensor>?,
    _ up: UnsafePointer<fi_tensor>?, _ out: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        try gatedActivation(
            device, stream, kind, out, operands: { (id) throws(FlashInferError) in try pair(gate, up, on: id) })
    }
}

/// A weighted sum.
@c @implementation
public func fi_add(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ a: UnsafePointer<fi_tensor>?,
    _ b: UnsafePointer<fi_tensor>?, _ out: UnsafePointer<fi_tensor>?, _ alpha: Float, _ beta: Float
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let id = stream.id
        try stream.run(
            .add(
                AddOperation(
                    first: TensorView(a, "a", on: id), second: TensorView(optional: b, "b", on: id),
                    output: TensorView(out, "out", on: id), alpha: alpha, beta: beta)))
    }
}

/// Conversion between element types.
@c @implementation
public func fi_convert(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ input: UnsafePointer<fi_tensor>?,
    _ out: UnsafePointer<fi_tensor>?, _ scale: Float
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        try stream.run(
            .convert(
                ConvertOperation(
                    input: TensorView(input, "in", on: stream.id), output: TensorView(out, "out", on: stream.id),
                    scale: scale)))
    }
}

/// Rows of a table.
@c @implementation
public func fi_embedding(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ table: UnsafePointer<fi_tensor>?,
    _ ids: UnsafePointer<fi_tensor>?, _ out: UnsafePointer<fi_tensor>?, _ scale: Float
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let id = stream.id
        try stream.run(
            .embedding(
                EmbeddingOperation(
                    table: TensorView(table, "table", on: id), ids: TensorView(ids, "ids", on: id, .index),
                    output: TensorView(out, "out", on: id), scale: scale)))
    }
}
