import CFlashInfer
import FlashInferCore
import TestSupport
import Testing

/// One call of every operation but attention, on tensors of any device: the outputs by name.
struct OperationScript {
    typealias Tensor = (pointer: UnsafeMutablePointer<fi_tensor>, values: () throws -> [Double])

    /// - Parameter place: puts a host tensor on the device, and says how to read it back.
    func run(
        on device: CDevice, _ stream: UnsafeMutableRawPointer?, _ place: (OpsTensor) throws -> Tensor
    ) throws -> [String: [Double]] {
        var outputs: [(String, Tensor)] = []
        var random = OpsRandom(77)
        func input(_ dtype: DType, _ shape: [Int]) throws -> UnsafeMutablePointer<fi_tensor> {
            try place(OpsTensor(dtype, shape, values: random.normals(shape.reduce(1, *)))).pointer
        }
        func indices(_ values: [Double]) throws -> UnsafeMutablePointer<fi_tensor> {
            try place(OpsTensor(.int32, [values.count], values: values)).pointer
        }
        func output(_ name: String, _ dtype: DType, _ shape: [Int]) throws -> UnsafeMutablePointer<fi_tensor> {
            let tensor = try place(OpsTensor(dtype, shape, values: [Double](repeating: 0, count: shape.reduce(1, *))))
            outputs.append((name, tensor))
            return tensor.pointer
        }
        let handle = device.handle
        let (x, y) = try (input(.float32, [5, 64]), input(.float32, [5, 64]))
        let weight = try input(.float32, [64])
        try ok(fi_rmsnorm(handle, stream, x, weight, output("rmsnorm", .float32, [5, 64]), 1e-5, 1))
        let residual = try output("residual", .float32, [5, 64])
        try ok(fi_add(handle, stream, x, y, residual, 2, 3))
        try ok(
            fi_fused_add_rmsnorm(handle, stream, x, residual, weight, output("fused", .float32, [5, 64]), 1e-5, 0))
        try ok(fi_act_and_mul(handle, stream, Int32(FI_ACTIVATION_SILU), x, output("silu", .float32, [5, 32])))
        try ok(
            fi_gated_activation(
                handle, stream, Int32(FI_ACTIVATION_GELU_TANH), x, y, output("gelu", .float32, [5, 64])))
        try quantized(handle, stream, x, y, weight, output)
        try rows(handle, stream, input, output, indices)
        try rotations(handle, stream, input, output, indices)
        let (q, k) = try (input(.float32, [5, 3, 64]), input(.float32, [5, 1, 64]))
        let positions = try indices([0, 1, 7, 100, 9000])
        try ok(
            fi_rope(
                handle, stream, q, k, positions, output("rope q", .float32, [5, 3, 64]),
                output("rope k", .float32, [5, 1, 64]), nil))
        try ok(fi_convert(handle, stream, x, output("fp8", .float8E5M2, [5, 64]), 3))
        try ok(fi_embedding(handle, stream, x, indices([4, 0, 2]), output("embedding", .float32, [3, 64]), 2))
        let logits = try input(.float32, [5, 1000])
        try ok(fi_softmax(handle, stream, logits, nil, output("softmax", .float32, [5, 1000]), nil))
        let temperatures = try OpsTensor(.float32, [5], values: [1, 2, 0.5, 3, 0.7]).c
        try ok(
            fi_softmax(
                handle, stream, logits, temperatures, output("softmax t", .float32, [5, 1000]),
                output("status", .uint8, [5])))
        try ok(fi_argmax(handle, stream, logits, output("argmax", .int32, [5]), nil))
        try ok(
            fi_log_probability(
                handle, stream, logits, indices([0, 1, 2, 3, 999]), nil, output("log p", .float32, [5]), nil))
        var row = fi_sampling_parameters(temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0, seed: 7, step: 3)
        try ok(fi_sample(handle, stream, logits, &row, 1, 0, output("sample", .int32, [5]), nil))
        try merges(handle, stream, input, output)
        try cache(handle, stream, input, output, indices)
        var results: [String: [Double]] = [:]
        for (name, tensor) in outputs { results[name] = try tensor.values() }
        return results
    }

    private func quantized(
        _ handle: OpaquePointer, _ stream: UnsafeMutableRawPointer?, _ x: UnsafeMutablePointer<fi_tensor>,
        _ y: UnsafeMutablePointer<fi_tensor>, _ weight: UnsafeMutablePointer<fi_tensor>,
        _ output: (String, DType, [Int]) throws -> UnsafeMutablePointer<fi_tensor>
    ) throws {
        var quantize = fi_quantize_options.sized
        quantize.scale = 0.01
        try ok(
            fi_rmsnorm_quantize(
                handle, stream, x, weight, output("rmsnorm fp8", .float8E5M2, [5, 64]), 1e-5, 0, &quantize))
        let residual = try output("residual fp8", .float32, [5, 64])
        try ok(fi_add(handle, stream, y, nil, residual, 1, 0))
        quantize.scale = 0
        quantize.row_scales = UnsafePointer(try output("norm scales", .float32, [5]))
        try ok(
            fi_fused_add_rmsnorm_quantize(
                handle, stream, x, residual, weight, output("fused fp8", .float8E5M2, [5, 64]), 1e-5, 0, &quantize))
        quantize.row_scales = UnsafePointer(try output("gelu scales", .float32, [5]))
        try ok(
            fi_gated_activation_quantize(
                handle, stream, Int32(FI_ACTIVATION_GELU), x, y, output("gelu fp8", .float8E5M2, [5, 64]), &quantize))
        // One row's scale is written by one operation and read by the next.
        let scale = try output("scale", .float32, [1])
        quantize.row_scales = UnsafePointer(scale)
        try ok(
            fi_rmsnorm_quantize(
                handle, stream, weight, weight, output("row fp8", .float8E5M2, [64]), 1e-5, 1, &quantize))
        quantize.row_scales = nil
        quantize.scale_tensor = UnsafePointer(scale)
        try ok(
            fi_act_and_mul_quantize(
                handle, stream, Int32(FI_ACTIVATION_SILU), x, output("silu fp8", .float8E5M2, [5, 32]), &quantize))
    }

    /// Layer norm, scales of groups, and bits.
    private func rows(
        _ handle: OpaquePointer, _ stream: UnsafeMutableRawPointer?,
        _ input: (DType, [Int]) throws -> UnsafeMutablePointer<fi_tensor>,
        _ output: (String, DType, [Int]) throws -> UnsafeMutablePointer<fi_tensor>,
        _ indices: ([Double]) throws -> UnsafeMutablePointer<fi_tensor>
    ) throws {
        let (x, weight, bias) = try (input(.float32, [5, 64]), input(.float32, [64]), input(.float32, [64]))
        let residual = try output("layer residual", .float32, [5, 64])
        try ok(fi_add(handle, stream, x, nil, residual, 0.5, 0))
        try ok(
            fi_layernorm(
                handle, stream, x, residual, weight, bias, output("layernorm", .float32, [5, 64]), 1e-5, nil))
        var quantize = fi_quantize_options.sized
        quantize.row_scales = UnsafePointer(try output("layer scales", .float32, [5]))
        try ok(
            fi_layernorm(
                handle, stream, x, nil, weight, bias, output("layernorm fp8", .float8E5M2, [5, 64]), 1e-5, &quantize))
        quantize.row_scales = nil
        quantize.group_size = 32
        quantize.group_scales = UnsafePointer(try output("group scales", .float32, [5, 2]))
        try ok(fi_quantize(handle, stream, x, output("groups", .float8E5M2, [5, 64]), &quantize))
        quantize.group_scales = UnsafePointer(try output("silu group scales", .float32, [5, 1]))
        try ok(
            fi_act_and_mul_quantize(
                handle, stream, Int32(FI_ACTIVATION_SILU), x, output("silu groups", .float8E5M2, [5, 32]), &quantize))
        // Bytes of numbers of 8 bits: most are flags, and some are 0.
        let flags = try output("flag numbers", .int8, [40])
        try ok(fi_convert(handle, stream, input(.float32, [40]), flags, 1))
        flags.pointee.dtype = fi_data_type(code: UInt8(FI_UINT), bits: 8, lanes: 1)
        try ok(fi_pack_bits(handle, stream, flags, 1, output("bits", .uint8, [5])))
        try ok(
            fi_segment_pack_bits(
                handle, stream, flags, indices([0, 3, 20]), indices([0, 1, 4]), 0, output("segments", .uint8, [4])))
    }

    /// Angles from a table, normalised heads, heads in two parts, and a cache of latent attention.
    private func rotations(
        _ handle: OpaquePointer, _ stream: UnsafeMutableRawPointer?,
        _ input: (DType, [Int]) throws -> UnsafeMutablePointer<fi_tensor>,
        _ output: (String, DType, [Int]) throws -> UnsafeMutablePointer<fi_tensor>,
        _ indices: ([Double]) throws -> UnsafeMutablePointer<fi_tensor>
    ) throws {
        let (q, k) = try (input(.float32, [4, 3, 64]), input(.float32, [4, 2, 64]))
        let positions = try indices([0, 1, 7, 9])
        var rope = fi_rope_options.sized
        rope.q_norm_weight = UnsafePointer(try input(.float32, [64]))
        rope.k_norm_weight = UnsafePointer(try input(.float32, [64]))
        rope.norm_weight_offset = 1
        try ok(
            fi_rope(
                handle, stream, q, k, positions, output("norm rope q", .float32, [4, 3, 64]),
                output("norm rope k", .float32, [4, 2, 64]), &rope))
        rope.cos_sin_cache = UnsafePointer(try input(.float32, [10, 32]))
        rope.rotary_dim = 32
        try ok(
            fi_rope(
                handle, stream, q, k, positions, output("table rope q", .float32, [4, 3, 64]),
                output("table rope k", .float32, [4, 2, 64]), &rope))
        var append = fi_append_args.sized
        append.k_cache = UnsafePointer(try output("ckv", .float8E5M2, [2, 4, 24]))
        append.v_cache = UnsafePointer(try output("kpe", .float8E5M2, [2, 4, 32]))
        append.slot_mapping = UnsafePointer([Int32](arrayLiteral: 5, -1, 3, 6).c)
        (rope.q_norm_weight, rope.k_norm_weight, rope.norm_weight_offset) = (nil, nil, 0)
        let (qRope, qNope) = try (input(.float32, [4, 3, 32]), input(.float32, [4, 3, 24]))
        let (kRope, kNope) = try (input(.float32, [4, 32]), input(.float32, [4, 24]))
        let (qRopeOut, qNopeOut) = try (
            output("split q", .float8E5M2, [4, 3, 32]), output("split q rest", .float8E5M2, [4, 3, 24])
        )
        let (kRopeOut, kNopeOut) = try (
            output("split k", .float8E5M2, [4, 32]), output("split k rest", .float8E5M2, [4, 24])
        )
        for isStored in [false, true] {
            try withUnsafePointer(to: rope) { rope in
                try withUnsafePointer(to: append) { append in
                    var args = fi_split_rope_args.sized
                    (args.q_rope, args.q_nope) = (UnsafePointer(qRope), UnsafePointer(qNope))
                    (args.k_rope, args.k_nope) = (UnsafePointer(kRope), UnsafePointer(kNope))
                    (args.q_rope_out, args.q_nope_out) = (UnsafePointer(qRopeOut), UnsafePointer(qNopeOut))
                    if isStored {
                        args.append = append
                    } else {
                        (args.k_rope_out, args.k_nope_out) = (UnsafePointer(kRopeOut), UnsafePointer(kNopeOut))
                    }
                    (args.q_factor, args.kv_factor) = (1.5, 0.5)
                    args.positions = UnsafePointer(positions)
                    args.rope = rope
                    try ok(fi_split_rope(handle, stream, &args))
                }
            }
        }
        let (ckv, kpe) = try (output("append ckv", .float32, [2, 4, 24]), output("append kpe", .float32, [2, 4, 32]))
        (append.k_cache, append.v_cache) = (UnsafePointer(ckv), UnsafePointer(kpe))
        (append.k, append.v) = (UnsafePointer(kNope), UnsafePointer(kRope))
        try ok(fi_append_paged_kv(handle, stream, &append))
    }

    private func merges(
        _ handle: OpaquePointer, _ stream: UnsafeMutableRawPointer?,
        _ input: (DType, [Int]) throws -> UnsafeMutablePointer<fi_tensor>,
        _ output: (String, DType, [Int]) throws -> UnsafeMutablePointer<fi_tensor>
    ) throws {
        let (v, s) = try (input(.float32, [6, 3, 2, 64]), input(.float32, [6, 3, 2]))
        try ok(
            fi_merge_states(
                handle, stream, v, s, output("states v", .float32, [6, 2, 64]), output("states s", .float32, [6, 2])))
        let (a, sa) = try (input(.bfloat16, [6, 2, 64]), input(.float32, [6, 2]))
        let (b, sb) = try (input(.bfloat16, [6, 2, 64]), input(.float32, [6, 2]))
        let (out, sOut) = try (output("state v", .float32, [6, 2, 64]), output("state s", .float32, [6, 2]))
        try ok(fi_merge_state(handle, stream, a, sa, b, sb, out, sOut))
        // The other way round one of the two is copied or swapped.
        try ok(
            fi_merge_state(
                handle, stream, b, sa, a, sb, output("swapped v", .float32, [6, 2, 64]),
                output("swapped s", .float32, [6, 2])))
        let mask = try OpsTensor(.uint8, [6], values: [1, 0, 1, 1, 0, 1]).c
        let (va, vs) = try (output("masked v", .float32, [6, 2, 64]), output("masked s", .float32, [6, 2]))
        try ok(fi_add(handle, stream, out, nil, va, 1, 0))
        try ok(fi_add(handle, stream, sOut, nil, vs, 1, 0))
        let c = try input(.float32, [6, 2, 64])
        try ok(fi_merge_state_in_place(handle, stream, va, vs, c, sb, mask))
    }

    private func cache(
        _ handle: OpaquePointer, _ stream: UnsafeMutableRawPointer?,
        _ input: (DType, [Int]) throws -> UnsafeMutablePointer<fi_tensor>,
        _ output: (String, DType, [Int]) throws -> UnsafeMutablePointer<fi_tensor>,
        _ indices: ([Double]) throws -> UnsafeMutablePointer<fi_tensor>
    ) throws {
        let (k, v) = try (input(.float32, [4, 2, 64]), input(.float32, [4, 2, 64]))
        let table = try (indices([0, 2, 3]), indices([3, 1, 0]), indices([2, 4]))
        for name in ["append host", "append table"] {
            var args = fi_append_args.sized
            (args.k, args.v) = (UnsafePointer(k), UnsafePointer(v))
            let cache = try output(name, .float32, [4, 2, 4, 2, 64])
            args.kv_cache = UnsafePointer(cache)
            if name == "append host" {
                args.kv_indptr = UnsafePointer(table.0)
                args.kv_indices = UnsafePointer(table.1)
                args.last_page_len = UnsafePointer(table.2)
                args.append_indptr = UnsafePointer(try indices([0, 3, 4]))
            } else {
                let slots = try output("slots", .int32, [2, 4])
                let (batch, positions) = try (output("batch", .int32, [4]), output("positions", .int32, [4]))
                let lengths = try output("lengths", .int32, [2])
                try ok(fi_seq_lens(handle, stream, table.0, table.2, 4, lengths))
                try ok(fi_batch_indices_positions(handle, stream, indices([0, 3, 4]), lengths, batch, positions))
                try ok(fi_slot_table(handle, stream, table.0, table.1, table.2, 4, batch, positions, slots))
                args.slot_table = UnsafePointer(slots)
            }
            try ok(fi_append_paged_kv(handle, stream, &args))
            try ok(
                fi_copy_pages(handle, stream, nil, nil, cache, 0, indices([1, 3]), indices([2, 1])))
        }
        var args = fi_append_args.sized
        (args.k, args.v) = (UnsafePointer(k), UnsafePointer(v))
        args.kv_cache = UnsafePointer(try output("rope append", .float32, [4, 2, 4, 2, 64]))
        args.slot_mapping = UnsafePointer([Int32](arrayLiteral: 15, -1, 3, 6).c)
        try ok(
            fi_rope_append(
                handle, stream, input(.float32, [4, 6, 64]), output("rope append q", .float8E5M2, [4, 6, 64]), 0.01,
                indices([5, 900, 0, 7]), &args, nil))
        try ok(
            fi_rope_positions(handle, stream, indices([0, 2, 3]), indices([9, 4]), output("offsets", .int32, [3])))
    }
}

@Suite struct OperationScriptTests {
    /// The script that compares a GPU with the CPU runs on the CPU, and writes all that it names.
    @Test func runsOnTheCPU() throws {
        let results = try OperationScript().run(on: .cpu(), nil) { host in (host.c, { host.values }) }
        #expect(results.count == 64)
        for (name, values) in results {
            #expect(values.allSatisfy { $0.isFinite }, "\(name)")
            if name != "status" { #expect(values.contains { $0 != 0 }, "\(name)") }
        }
    }
}
