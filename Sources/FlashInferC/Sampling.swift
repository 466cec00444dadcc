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
        try sample(call(device, stream), logits, .logits, filter_order, tokens, status) {
            (rows) throws(FlashInferError) in .host(try samplingRows(parameters, parameter_count, rows: rows))
        }
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
        try sample(call(device, stream), probabilities, .probabilities, filter_order, tokens, status) {
            (rows) throws(FlashInferError) in .host(try samplingRows(parameters, parameter_count, rows: rows))
        }
    }
}

/// One token for each row, with parameters in the device's memory.
@c @implementation
public func fi_sample_packed(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ input: UnsafePointer<fi_tensor>?, _ form: Int32,
    _ parameters: UnsafePointer<fi_tensor>?, _ filter_order: Int32, _ tokens: UnsafePointer<fi_tensor>?,
    _ status: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        try sample(stream, input, distributionForm(form), filter_order, tokens, status) {
            (_) throws(FlashInferError) in .packed(try TensorView(parameters, "parameters", on: stream.id, .bits))
        }
    }
}

/// The parameters of rows: the host's, or those in a tensor on the device.
private enum RowParameters<Row> {
    case host([Row])
    case packed(TensorView)
}

private func sample(
    _ stream: StreamState, _ input: UnsafePointer<fi_tensor>?, _ form: DistributionForm, _ filter_order: Int32,
    _ tokens: UnsafePointer<fi_tensor>?, _ status: UnsafePointer<fi_tensor>?,
    _ parameters: (_ rows: Int) throws(FlashInferError) -> RowParameters<SampleOperation.Row>
) throws {
    let input = try TensorView(input, form.name, on: stream.id)
    let tokens = try TensorView(tokens, "tokens", on: stream.id, .index)
    var operation = SampleOperation(
        input, as: form, tokens: tokens, status: tokens, rows: [], order: try filterOrder(filter_order))
    // A row of logits may stand for any number of rows: tokens say how many the caller has memory for, before parameters are copied.
    guard tokens.rank == 1, tokens.shape[0] == input.rowCount, tokens.isContiguous else {
        throw FlashInferError.invalidArgument(
            "tokens", found: "\(tokens.dtype) \(tokens.shape)", expected: "contiguous int32 [\(input.rowCount)]")
    }
    switch try parameters(input.rowCount) {
    case .host(let rows): operation.rows = rows
    case .packed(let rows): operation.packedRows = rows
    }
    try stream.withStatus(status, rows: input.rowCount) { (status) throws(FlashInferError) in
        operation.status = status
        try stream.run(.sample(operation))
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
        try filter(call(device, stream), input, form, filter_order, out, status) { (rows) throws(FlashInferError) in
            // One for all is one here, too: seeds make no difference to filters.
            .host(
                try samplingRows(parameters, parameter_count, rows: parameter_count == 1 ? min(rows, 1) : rows).map {
                    .init(temperature: $0.temperature, topK: $0.topK, topP: $0.topP, minP: $0.minP)
                })
        }
    }
}

/// What the filters keep of rows, with parameters in the device's memory.
@c @implementation
public func fi_filter_packed(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ input: UnsafePointer<fi_tensor>?, _ form: Int32,
    _ parameters: UnsafePointer<fi_tensor>?, _ filter_order: Int32, _ out: UnsafePointer<fi_tensor>?,
    _ status: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        try filter(stream, input, form, filter_order, out, status) {
            (_) throws(FlashInferError) in .packed(try TensorView(parameters, "parameters", on: stream.id, .bits))
        }
    }
}

private func filter(
    _ stream: StreamState, _ input: UnsafePointer<fi_tensor>?, _ form: Int32, _ filter_order: Int32,
    _ out: UnsafePointer<fi_tensor>?, _ status: UnsafePointer<fi_tensor>?,
    _ parameters: (_ rows: Int) throws(FlashInferError) -> RowParameters<FilterOperation.Row>
) throws {
    let input = try TensorView(input, "in", on: stream.id)
    let output = try TensorView(out, "out", on: stream.id)
    var operation = FilterOperation(
        input, as: try distributionForm(form), output: output, status: output, rows: [],
        order: try filterOrder(filter_order))
    switch try parameters(input.rowCount) {
    case .host(let rows): operation.rows = rows
    case .packed(let rows): operation.packedRows = rows
    }
    try stream.withStatus(status, rows: input.rowCount) { (status) throws(FlashInferError) in
        operation.status = status
        try stream.run(.filter(operation))
    }
}

private func distributionForm(_ form: Int32) throws(FlashInferError) -> DistributionForm {
    try choice("form", form, [(FI_LOGITS, .logits), (FI_PROBABILITIES, .probabilities)])
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
                    logits: logits, rows: rows,
                    history: try TensorView(optional: history, "history", on: stream.id, .index),
                    biasTokens: try TensorView(optional: bias_tokens, "bias_tokens", on: stream.id, .index),
                    biases: try TensorView(optional: biases, "biases", on: stream.id),
                    mask: try TensorView(optional: mask, "mask", on: stream.id, .index))))
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
