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
