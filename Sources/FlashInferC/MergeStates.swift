// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The functions of this file have the header's names.

public import CFlashInfer
internal import FlashInferCore

/// Merges many states.
@c @implementation
public func fi_merge_states(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ v: UnsafePointer<fi_tensor>?,
    _ lse: UnsafePointer<fi_tensor>?, _ out: UnsafePointer<fi_tensor>?, _ lse_out: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let id = stream.id
        let values = try TensorView(v, "v", on: id)
        let logSumExp = try TensorView(lse, "lse", on: id)
        guard values.rank == 4, logSumExp.rank == 3 else {
            throw FlashInferError.invalidArgument(
                "v and lse", found: "of shapes \(values.shape) and \(logSumExp.shape)",
                expected: "[rows, states, heads, dim] and [rows, states, heads]")
        }
        try stream.run(
            .mergeStates(
                MergeStatesOperation(
                    values: values.transposed(0, 1), logSumExp: logSumExp.transposed(0, 1),
                    output: TensorView(out, "out", on: id),
                    mergedLogSumExp: TensorView(optional: lse_out, "lse_out", on: id))))
    }
}

/// Merges two states.
@c @implementation
public func fi_merge_state(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ v_a: UnsafePointer<fi_tensor>?,
    _ lse_a: UnsafePointer<fi_tensor>?, _ v_b: UnsafePointer<fi_tensor>?, _ lse_b: UnsafePointer<fi_tensor>?,
    _ out: UnsafePointer<fi_tensor>?, _ lse_out: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let id = stream.id
        let pair = try StatePair(
            (TensorView(v_a, "v_a", on: id), TensorView(lse_a, "lse_a", on: id)),
            (TensorView(v_b, "v_b", on: id), TensorView(lse_b, "lse_b", on: id)))
        try pair.merge(
            into: TensorView(out, "out", on: id), TensorView(optional: lse_out, "lse_out", on: id), on: stream)
    }
}

/// Merges a state into another, in the rows that a mask picks.
@c @implementation
public func fi_merge_state_in_place(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ v: UnsafePointer<fi_tensor>?,
    _ lse: UnsafePointer<fi_tensor>?, _ v_other: UnsafePointer<fi_tensor>?, _ lse_other: UnsafePointer<fi_tensor>?,
    _ mask: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let id = stream.id
        let (values, logSumExp) = try (TensorView(v, "v", on: id), TensorView(lse, "lse", on: id))
        let pair = try StatePair(
            (values, logSumExp),
            (TensorView(v_other, "v_other", on: id), TensorView(lse_other, "lse_other", on: id)))
        guard let mask else { return try pair.merge(into: values, logSumExp, on: stream) }
        let picked = try HostArrays(device: stream.device).bytes(mask, "mask")
        guard picked.count == values.shape[0] else {
            throw FlashInferError.lengthMismatch("mask", found: picked.count, expected: values.shape[0])
        }
        // A merge for each run of rows that the mask picks.
        var row = 0
        while row < picked.count {
            let start = row
            while row < picked.count, picked[row] != 0 { row += 1 }
            if row > start {
                try pair.rows(start..<row).merge(
                    into: values.slice(start..<row), logSumExp.slice(start..<row), on: stream)
            }
            row += 1
        }
    }
}

/// Two states of attention of the same rows.
private struct StatePair {
    private var first: (values: TensorView, lse: TensorView)
    private var second: (values: TensorView, lse: TensorView)

    init(
        _ first: (values: TensorView, lse: TensorView), _ second: (values: TensorView, lse: TensorView)
    ) throws(FlashInferError) {
        let (a, b) = (first.values, second.values)
        guard a.rank == 3, a.dtype.isComputeType, a.strides[2] == 1 || a.shape[2] <= 1 else {
            throw .invalidArgument(
                "the first state's values", found: "\(a.dtype) \(a.shape) with strides \(a.strides)",
                expected: "float32, float16 or bfloat16 [rows, heads, dim] with stride 1 in the last dimension")
        }
        guard b.dtype == a.dtype, b.shape == a.shape, b.strides[2] == 1 || b.shape[2] <= 1 else {
            throw .invalidArgument(
                "the second state's values", found: "\(b.dtype) \(b.shape) with strides \(b.strides)",
                expected: "\(a.dtype) \(a.shape) with stride 1 in the last dimension, as the first state's")
        }
        for (name, lse) in [("the first state's LSE", first.lse), ("the second state's LSE", second.lse)] {
            guard lse.dtype == .float32, lse.shape == [a.shape[0], a.shape[1]] else {
                throw .invalidArgument(
                    name, found: "\(lse.dtype) \(lse.shape)", expected: "float32 [\(a.shape[0]), \(a.shape[1])]")
            }
        }
        (self.first, self.second) = (first, second)
    }

    /// The states of some of the rows.
    func rows(_ range: Range<Int>) -> StatePair {
        var part = self
        part.first = (first.values.slice(range), first.lse.slice(range))
        part.second = (second.values.slice(range), second.lse.slice(range))
        return part
    }

    func merge(into output: TensorView, _ lse: TensorView?, on stream: StreamState) throws(FlashInferError) {
        // Two tensors of equal strides are one of two states, as far apart as their addresses are.
        if let values = first.values.paired(with: second.values), let lses = first.lse.paired(with: second.lse) {
            return try stream.run(
                .mergeStates(
                    MergeStatesOperation(values: values, logSumExp: lses, output: output, mergedLogSumExp: lse)))
        }
        try mergeCopies(into: output, lse, on: stream)
    }

    /// Merges copies of the states, which lie one after the other.
    private func mergeCopies(into output: TensorView, _ lse: TensorView?, on stream: StreamState)
        throws(FlashInferError)
    {
        let (shape, dtype) = (first.values.shape, first.values.dtype)
        let count = first.values.elementCount
        let valueBytes = (2 * count * dtype.byteCount + 63) & ~63
        let lseCount = first.lse.elementCount
        try stream.withScratch(byteCount: valueBytes + 8 * lseCount) { (region) throws(FlashInferError) in
            let values = try TensorView(region, dtype: dtype, shape: [2, shape[0], shape[1], shape[2]], name: "copies")
            let lses = try TensorView(
                region, byteOffset: valueBytes, dtype: .float32, shape: [2, shape[0], shape[1]], name: "copies")
            for (index, state) in [first, second].enumerated() {
                try stream.run(.add(AddOperation(first: state.values, output: values.select(index))))
                try stream.run(.add(AddOperation(first: state.lse.asRows, output: lses.select(index).asRows)))
            }
            try stream.run(
                .mergeStates(
                    MergeStatesOperation(values: values, logSumExp: lses, output: output, mergedLogSumExp: lse)))
        }
    }
}

extension TensorView {
    /// The same elements with a last dimension of stride 1, which row operations need.
    var asRows: TensorView {
        get throws(FlashInferError) {
            if strides[-1] == 1 || shape[-1] <= 1 { return self }
            return try TensorView(
                region, byteOffset: byteOffset, dtype: dtype, shape: [shape[0], shape[1], 1],
                strides: [strides[0], strides[1], 1], name: "LSE")
        }
    }
}
