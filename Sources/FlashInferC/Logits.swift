// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The functions of this file have the header's names.

public import CFlashInfer
internal import FlashInferCore

/// Softmax of rows.
@c @implementation
public func fi_softmax(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ input: UnsafePointer<fi_tensor>?,
    _ temperatures: UnsafePointer<fi_tensor>?, _ out: UnsafePointer<fi_tensor>?, _ status: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let rows = try TensorView(input, "in", on: stream.id)
        let output = try TensorView(out, "out", on: stream.id)
        let temperatures = try HostArrays(device: stream.device).floats(temperatures, "temperatures")
        try stream.withStatus(status, rows: rows.rowCount) { (status) throws(FlashInferError) in
            try stream.run(
                .softmax(SoftmaxOperation(input: rows, output: output, status: status, temperatures: temperatures)))
        }
    }
}

/// The greatest entry of rows.
@c @implementation
public func fi_argmax(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ input: UnsafePointer<fi_tensor>?,
    _ out: UnsafePointer<fi_tensor>?, _ status: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let rows = try TensorView(input, "in", on: stream.id)
        let output = try TensorView(out, "out", on: stream.id, .index)
        try stream.withStatus(status, rows: rows.rowCount) { (status) throws(FlashInferError) in
            try stream.run(.argmax(ArgmaxOperation(input: rows, output: output, status: status)))
        }
    }
}

/// The log-probability of one token of each row.
@c @implementation
public func fi_log_probability(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ input: UnsafePointer<fi_tensor>?,
    _ ids: UnsafePointer<fi_tensor>?, _ temperatures: UnsafePointer<fi_tensor>?, _ out: UnsafePointer<fi_tensor>?,
    _ status: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let rows = try TensorView(input, "in", on: stream.id)
        let ids = try TensorView(ids, "ids", on: stream.id, .index)
        let output = try TensorView(out, "out", on: stream.id)
        let temperatures = try HostArrays(device: stream.device).floats(temperatures, "temperatures")
        try stream.withStatus(status, rows: rows.rowCount) { (status) throws(FlashInferError) in
            try stream.run(
                .logProbability(
                    LogProbabilityOperation(
                        logits: rows, ids: ids, output: output, status: status, temperatures: temperatures)))
        }
    }
}

/// One token for each row.
@c @implementation
public func fi_sample(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ logits: UnsafePointer<fi_tensor>?,
    _ parameters: UnsafePointer<fi_sampling_parameters>?, _ parameter_count: Int64, _ filter_order: Int32,
    _ tokens: UnsafePointer<fi_tensor>?, _ status: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let logits = try TensorView(logits, "logits", on: stream.id)
        let tokens = try TensorView(tokens, "tokens", on: stream.id, .index)
        let rows = try samplingRows(parameters, parameter_count, rows: logits.rowCount)
        let order: SampleOperation.FilterOrder = try choice(
            "filter_order", filter_order, [(FI_TOP_K_FIRST, .topKFirst), (FI_JOINT, .joint)])
        try stream.withStatus(status, rows: logits.rowCount) { (status) throws(FlashInferError) in
            try stream.run(
                .sample(SampleOperation(logits: logits, tokens: tokens, status: status, rows: rows, order: order)))
        }
    }
}

/// The parameters of each row: the caller's, or one for all with a seed for each.
private func samplingRows(
    _ parameters: UnsafePointer<fi_sampling_parameters>?, _ count: Int64, rows: Int
) throws(FlashInferError) -> [SampleOperation.Row] {
    guard count == 1 || count == Int64(rows) else {
        throw .lengthMismatch("parameter_count", found: Int(count), expected: rows)
    }
    if rows == 0 { return [] }
    let parameters = try required(parameters, "parameters")
    return (0..<rows).map { row in
        let given = parameters[count == 1 ? 0 : row]
        // The golden ratio's odd multiple of 2⁶⁴: rows, and the calls of neighbouring seeds, do not share draws.
        let seed = count == 1 ? given.seed &+ UInt64(row) &* 0x9E37_79B9_7F4A_7C15 : given.seed
        return SampleOperation.Row(
            temperature: given.temperature, topK: Int(given.top_k), topP: given.top_p, minP: given.min_p, seed: seed,
            step: given.step)
    }
}
