// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The functions of this file have the header's names.

public import CFlashInfer
internal import FlashInferCore

/// Rotary position embedding.
@c @implementation
public func fi_rope(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ q: UnsafePointer<fi_tensor>?,
    _ k: UnsafePointer<fi_tensor>?, _ positions: UnsafePointer<fi_tensor>?, _ q_out: UnsafePointer<fi_tensor>?,
    _ k_out: UnsafePointer<fi_tensor>?, _ options: UnsafePointer<fi_rope_options>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let id = stream.id
        let extras = try RoPEExtras(options, on: id)
        try stream.run(
            .rope(
                RoPEOperation(
                    queries: TensorView(q, "q", on: id), keys: TensorView(optional: k, "k", on: id),
                    queryOutput: TensorView(optional: q_out, "q_out", on: id),
                    keyOutput: TensorView(optional: k_out, "k_out", on: id),
                    positions: TensorView(positions, "positions", on: id, .index),
                    parameters: RoPEParameters(options), table: extras.table, normalization: extras.normalization)))
    }
}

/// Rotary position embedding of heads in two parts, converted and stored.
@c @implementation
public func fi_split_rope(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ args: UnsafePointer<fi_split_rope_args>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let id = stream.id
        let given = try options(args, "args", empty: fi_split_rope_args())
        let extras = try RoPEExtras(given.rope, on: id)
        guard extras.normalization == nil else {
            throw FlashInferError.invalidArgument(
                "q_norm_weight", found: "a tensor", expected: "NULL, as heads in two parts are not normalised")
        }
        /// The two parts of heads, with the dimension of one head that latent attention leaves out.
        func heads(
            _ turning: UnsafePointer<fi_tensor>?, _ rest: UnsafePointer<fi_tensor>?, _ name: String
        ) throws(FlashInferError) -> SplitRoPEOperation.Heads {
            .init(
                turning: try TensorView(turning, "\(name)_rope", on: id).withHeads,
                rest: try TensorView(optional: rest, "\(name)_nope", on: id)?.withHeads)
        }
        let output: SplitRoPEOperation.KeyOutput
        if given.append == nil {
            output = .tensors(
                .init(
                    turning: try TensorView(given.k_rope_out, "k_rope_out", on: id).withHeads,
                    rest: try TensorView(optional: given.k_nope_out, "k_nope_out", on: id)?.withHeads))
        } else {
            guard given.k_rope_out == nil, given.k_nope_out == nil else {
                throw FlashInferError.invalidArgument(
                    "k_rope_out and k_nope_out", found: "given besides append",
                    expected: "NULL, as keys go to the cache")
            }
            let (cache, isLatent, slots) = try stream.destination(given.append, "append")
            output = isLatent ? .latentCache(cache, slots) : .cache(cache, slots)
        }
        try stream.run(
            .splitRoPE(
                SplitRoPEOperation(
                    queries: heads(given.q_rope, given.q_nope, "q"), keys: heads(given.k_rope, given.k_nope, "k"),
                    values: TensorView(optional: given.v, "v", on: id),
                    queryOutput: .init(
                        turning: TensorView(given.q_rope_out, "q_rope_out", on: id),
                        rest: TensorView(optional: given.q_nope_out, "q_nope_out", on: id)),
                    keyOutput: output, queryFactor: given.q_factor == 0 ? 1 : given.q_factor,
                    keyFactor: given.kv_factor == 0 ? 1 : given.kv_factor,
                    positions: TensorView(given.positions, "positions", on: id, .index),
                    parameters: RoPEParameters(given.rope), table: extras.table)))
    }
}

extension TensorView {
    /// `[tokens, dim]` as `[tokens, 1, dim]`; others as they are.
    var withHeads: TensorView {
        get throws(FlashInferError) {
            if rank != 2 { return self }
            return try TensorView(
                region, byteOffset: byteOffset, dtype: dtype, shape: [shape[0], 1, shape[1]],
                strides: [strides[0], shape[1], strides[1]])
        }
    }

    /// A cache of latent attention, `[pages, pageSize, dim]`, as one of a single head; others as they are.
    var withCacheHeads: TensorView {
        get throws(FlashInferError) {
            if rank != 3 { return self }
            return try TensorView(
                region, byteOffset: byteOffset, dtype: dtype, shape: [shape[0], shape[1], 1, shape[2]],
                strides: [strides[0], strides[1], shape[2], strides[2]])
        }
    }
}
