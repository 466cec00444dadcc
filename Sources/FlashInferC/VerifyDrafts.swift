// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The functions of this file have the header's names.

public import CFlashInfer
internal import FlashInferCore

/// Speculative sampling.
@c @implementation
public func fi_verify_drafts(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ target: UnsafePointer<fi_tensor>?,
    _ draft: UnsafePointer<fi_tensor>?, _ tokens: UnsafePointer<fi_tensor>?,
    _ first_child: UnsafePointer<fi_tensor>?, _ next_sibling: UnsafePointer<fi_tensor>?,
    _ draws: UnsafePointer<fi_request_draw>?, _ draw_count: Int64, _ output: UnsafePointer<fi_tensor>?,
    _ output_nodes: UnsafePointer<fi_tensor>?, _ accepted: UnsafePointer<fi_tensor>?,
    _ emitted: UnsafePointer<fi_tensor>?, _ status: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        var operation = try verification(
            stream, target, draft, tokens, first_child, next_sibling, output, output_nodes, accepted, emitted)
        let requests = operation.target.shape[0]
        guard draw_count == Int64(requests) else {
            throw FlashInferError.lengthMismatch("draw_count", found: Int(draw_count), expected: requests)
        }
        for request in 0..<requests {
            let draw = try required(draws, "draws")[request]
            operation.draws.append(.init(seed: draw.seed, step: draw.step))
        }
        try verify(operation, status, stream)
    }
}

/// Speculative sampling with draws in the device's memory.
@c @implementation
public func fi_verify_drafts_packed(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ target: UnsafePointer<fi_tensor>?,
    _ draft: UnsafePointer<fi_tensor>?, _ tokens: UnsafePointer<fi_tensor>?,
    _ first_child: UnsafePointer<fi_tensor>?, _ next_sibling: UnsafePointer<fi_tensor>?,
    _ draws: UnsafePointer<fi_tensor>?, _ output: UnsafePointer<fi_tensor>?,
    _ output_nodes: UnsafePointer<fi_tensor>?, _ accepted: UnsafePointer<fi_tensor>?,
    _ emitted: UnsafePointer<fi_tensor>?, _ status: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        var operation = try verification(
            stream, target, draft, tokens, first_child, next_sibling, output, output_nodes, accepted, emitted)
        operation.packedDraws = try TensorView(draws, "draws", on: stream.id, .bits)
        try verify(operation, status, stream)
    }
}

/// The operation on a caller's tensors, without its draws and its status.
private func verification(
    _ stream: StreamState, _ target: UnsafePointer<fi_tensor>?, _ draft: UnsafePointer<fi_tensor>?,
    _ tokens: UnsafePointer<fi_tensor>?, _ first_child: UnsafePointer<fi_tensor>?,
    _ next_sibling: UnsafePointer<fi_tensor>?, _ output: UnsafePointer<fi_tensor>?,
    _ output_nodes: UnsafePointer<fi_tensor>?, _ accepted: UnsafePointer<fi_tensor>?,
    _ emitted: UnsafePointer<fi_tensor>?
) throws(FlashInferError) -> VerifyDraftsOperation {
    let id = stream.id
    let target = try TensorView(target, "target", on: id)
    guard target.rank == 3 else {
        throw .invalidArgument(
            "target", found: "of shape \(target.shape)", expected: "[requests, nodes, vocabulary]")
    }
    var tree = VerifyDraftsOperation.Tree.chain
    if first_child != nil || next_sibling != nil {
        tree = .links(
            firstChild: try TensorView(first_child, "first_child", on: id, .index),
            nextSibling: try TensorView(next_sibling, "next_sibling", on: id, .index))
    }
    return VerifyDraftsOperation(
        target: target, draft: try TensorView(optional: draft, "draft", on: id),
        tokens: try TensorView(tokens, "tokens", on: id, .index), tree: tree, draws: [],
        output: try TensorView(output, "output", on: id, .index),
        outputNodes: try TensorView(optional: output_nodes, "output_nodes", on: id, .index),
        accepted: try TensorView(optional: accepted, "accepted", on: id, .index),
        emitted: try TensorView(emitted, "emitted", on: id, .index), status: target)
}

private func verify(
    _ operation: VerifyDraftsOperation, _ status: UnsafePointer<fi_tensor>?, _ stream: StreamState
) throws(FlashInferError) {
    try stream.withStatus(status, rows: operation.target.shape[0]) { (status) throws(FlashInferError) in
        var operation = operation
        operation.status = status
        try stream.run(.verifyDrafts(operation))
    }
}
