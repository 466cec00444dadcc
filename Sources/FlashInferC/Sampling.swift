// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The functions of this file have the header's names.

public import CFlashInfer
internal import FlashInferCore

/// One token for each row of logits.
@c @implementation
public func fi_sample(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ logits: UnsafePointer<fi_tensor>?,
    _ parameters: UnsafePointer<fi_sampling_parameters>?, _ parameter_count: Int64, _ filter_order: Int32,
    _ tokens: UnsafePointer<fi_tensor>?, _ status: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        try sample(
            call(device, stream), logits, .logits, parameters, parameter_count, filter_order, tokens, status)
    }
}

/// One token for each row of probabilities.
@c @implementation
public func fi_sample_probabilities(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ probabilities: UnsafePointer<fi_tensor>?,
    _ parameters: UnsafePointer<fi_sampling_parameters>?, _ parameter_count: Int64, _ filter_order: Int32,
    _ tokens: UnsafePointer<fi_tensor>?, _ status: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        try sample(
            call(device, stream), probabilities, .probabilities, parameters, parameter_count, filter_order, tokens,
            status)
    }
}

private func sample(
    _ stream: StreamState, _ input: UnsafePointer<fi_tensor>?, _ form: DistributionForm,
    _ parameters: UnsafePointer<fi_sampling_parameters>?, _ parameter_count: Int64, _ filter_order: Int32,
    _ tokens: UnsafePointer<fi_tensor>?, _ status: UnsafePointer<fi_tensor>?
) throws {
    let input = try TensorView(input, form.name, on: stream.id)
    let tokens = try TensorView(tokens, "tokens", on: stream.id, .index)
    let rows = try samplingRows(parameters, parameter_count, rows: input.rowCount)
    let order = try filterOrder(filter_order)
    try stream.withStatus(status, rows: input.rowCount) { (status) throws(FlashInferError) in
        try stream.run(
            .sample(SampleOperation(input, as: form, tokens: tokens, status: status, rows: rows, order: order)))
    }
}

/// What the filters keep of rows.
@c @implementation
public func fi_filter(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ input: UnsafePointer<fi_tensor>?, _ form: Int32,
    _ parameters: UnsafePointer<fi_sampling_parameters>?, _ parameter_count: Int64, _ filter_order: Int32,
    _ out: UnsafePointer<fi_tensor>?, _ status: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let rows = try TensorView(input, "in", on: stream.id)
        let output = try TensorView(out, "out", on: stream.id)
        let form: DistributionForm = try choice(
            "form", form, [(FI_LOGITS, .logits), (FI_PROBABILITIES, .probabilities)])
        let order = try filterOrder(filter_order)
        let given = try samplingRows(parameters, parameter_count, rows: rows.rowCount)
        try stream.withStatus(status, rows: rows.rowCount) { (status) throws(FlashInferError) in
            try stream.run(
                .filter(
                    FilterOperation(
                        rows, as: form, output: output, status: status,
                        rows: given.map {
                            .init(temperature: $0.temperature, topK: $0.topK, topP: $0.topP, minP: $0.minP)
                        }, order: order)))
        }
    }
}

/// The greatest entries of rows.
@c @implementation
public func fi_top_k(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ input: UnsafePointer<fi_tensor>?, _ sorted: Int32,
    _ values: UnsafePointer<fi_tensor>?, _ places: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        try stream.run(
            .topK(
                TopKOperation(
                    input: TensorView(input, "in", on: stream.id), values: TensorView(values, "values", on: stream.id),
                    places: TensorView(places, "places", on: stream.id, .index), isSorted: flag("sorted", sorted))))
    }
}

/// Log-probabilities of the likeliest tokens.
@c @implementation
public func fi_top_log_probabilities(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ logits: UnsafePointer<fi_tensor>?,
    _ temperature: Float, _ values: UnsafePointer<fi_tensor>?, _ tokens: UnsafePointer<fi_tensor>?,
    _ status: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let logits = try TensorView(logits, "logits", on: stream.id)
        let values = try TensorView(values, "values", on: stream.id)
        let tokens = try TensorView(tokens, "tokens", on: stream.id, .index)
        try stream.withStatus(status, rows: logits.rowCount) { (status) throws(FlashInferError) in
            try stream.run(
                .topK(
                    TopKOperation(
                        logits: logits, logProbabilities: values, tokens: tokens, status: status,
                        temperature: temperature)))
        }
    }
}

/// Biases, penalties and masks on rows of logits.
@c @implementation
public func fi_adjust_logits(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ logits: UnsafePointer<fi_tensor>?,
    _ changes: UnsafePointer<fi_logit_changes>?, _ change_count: Int64, _ history: UnsafePointer<fi_tensor>?,
    _ bias_tokens: UnsafePointer<fi_tensor>?, _ biases: UnsafePointer<fi_tensor>?, _ mask: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let logits = try TensorView(logits, "logits", on: stream.id)
        func optional(
            _ tensor: UnsafePointer<fi_tensor>?, _ name: String, _ kind: ElementKind = .index
        ) throws(FlashInferError) -> TensorView? {
            guard let tensor else { return nil }
            return try TensorView(tensor, name, on: stream.id, kind)
        }
        guard change_count == Int64(logits.rowCount) else {
            throw FlashInferError.lengthMismatch(
                "change_count", found: Int(change_count), expected: logits.rowCount)
        }
        var rows: [AdjustLogitsOperation.Row] = []
        for row in 0..<logits.rowCount {
            let given = try required(changes, "changes")[row]
            func range(_ begin: Int32, _ end: Int32, _ name: String) throws(FlashInferError) -> Range<Int> {
                guard begin <= end else {
                    throw .invalidArgument("changes[\(row)].\(name)", found: "\(begin) ..< \(end)", expected: "a range")
                }
                return Int(begin)..<Int(end)
            }
            rows.append(
                .init(
                    repetition: given.repetition, presence: given.presence, frequency: given.frequency,
                    prompt: try range(given.prompt_begin, given.prompt_end, "prompt"),
                    output: try range(given.output_begin, given.output_end, "output"),
                    bias: try range(given.bias_begin, given.bias_end, "bias")))
        }
        try stream.run(
            .adjustLogits(
                AdjustLogitsOperation(
                    logits: logits, rows: rows, history: try optional(history, "history"),
                    biasTokens: try optional(bias_tokens, "bias_tokens"),
                    biases: try optional(biases, "biases", .number), mask: try optional(mask, "mask"))))
    }
}

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
        func optional(
            _ tensor: UnsafePointer<fi_tensor>?, _ name: String, _ kind: ElementKind
        ) throws(FlashInferError) -> TensorView? {
            guard let tensor else { return nil }
            return try TensorView(tensor, name, on: stream.id, kind)
        }
        let target = try TensorView(target, "target", on: stream.id)
        guard target.rank == 3 else {
            throw FlashInferError.invalidArgument(
                "target", found: "of shape \(target.shape)", expected: "[requests, nodes, vocabulary]")
        }
        var tree = VerifyDraftsOperation.Tree.chain
        if first_child != nil || next_sibling != nil {
            tree = .links(
                firstChild: try TensorView(first_child, "first_child", on: stream.id, .index),
                nextSibling: try TensorView(next_sibling, "next_sibling", on: stream.id, .index))
        }
        let requests = target.shape[0]
        guard draw_count == Int64(requests) else {
            throw FlashInferError.lengthMismatch("draw_count", found: Int(draw_count), expected: requests)
        }
        var numbers: [VerifyDraftsOperation.Draw] = []
        for request in 0..<requests {
            let draw = try required(draws, "draws")[request]
            numbers.append(.init(seed: draw.seed, step: draw.step))
        }
        let operation = VerifyDraftsOperation(
            target: target, draft: try optional(draft, "draft", .number),
            tokens: try TensorView(tokens, "tokens", on: stream.id, .index), tree: tree, draws: numbers,
            output: try TensorView(output, "output", on: stream.id, .index),
            outputNodes: try optional(output_nodes, "output_nodes", .index),
            accepted: try optional(accepted, "accepted", .index),
            emitted: try TensorView(emitted, "emitted", on: stream.id, .index), status: target)
        try stream.withStatus(status, rows: requests) { (status) throws(FlashInferError) in
            var operation = operation
            operation.status = status
            try stream.run(.verifyDrafts(operation))
        }
    }
}

private func filterOrder(_ order: Int32) throws(FlashInferError) -> SampleOperation.FilterOrder {
    try choice("filter_order", order, [(FI_TOP_K_FIRST, .topKFirst), (FI_JOINT, .joint)])
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
