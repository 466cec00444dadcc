import CFlashInfer
import FlashInferCore
import TestSupport
import Testing

/// Layer norm, scales of groups, packed bits, and rotations by tables, of normalised heads and of heads in two parts, as a caller in C
/// has them: what the kernels do is their own tests' matter.
@Suite struct RowFormTests {
    let device: CDevice

    init() throws { device = try .cpu() }

    private func random(_ shape: [Int], _ seed: UInt64, _ dtype: DType = .bfloat16) throws -> OpsTensor {
        var random = OpsRandom(seed)
        return try OpsTensor(dtype, shape, values: random.normals(shape.reduce(1, *)))
    }

    private var quantize: fi_quantize_options { .sized }

    private var rope: fi_rope_options { .sized }

    @Test func layerNorm() throws {
        let x = try random([5, 48], 1)
        let (weight, bias) = (try random([48], 2, .float32), try random([48], 3, .float32))
        let oracle = OpsOracle.layerNorm(
            x.values, residual: nil, weight: weight.values, bias: bias.values, epsilon: 1e-5, output: .bfloat16)
        let out = try OpsTensor(.bfloat16, [5, 48])
        try ok(fi_layernorm(device.handle, nil, x.c, nil, weight.c, bias.c, out.c, 1e-5, nil))
        #expect(
            firstOutlier(
                out.values, exact: oracle.exact, reference: oracle.reference, width: 48, dtype: .bfloat16) == nil)
        // 8 bits with no options have a scale of 1; a floating output has no scale.
        let bytes = try OpsTensor(.int8, [5, 48])
        try ok(fi_layernorm(device.handle, nil, x.c, nil, weight.c, bias.c, bytes.c, 1e-5, nil))
        #expect(zip(bytes.values, oracle.exact).allSatisfy { abs($0 - $1) <= 0.5001 })
        var options = quantize
        expect(
            fi_layernorm(device.handle, nil, x.c, nil, weight.c, bias.c, out.c, 1e-5, &options), FI_INVALID_ARGUMENT,
            "output is bfloat16", "as it is quantised")
        expect(
            fi_layernorm(device.handle, nil, x.c, nil, weight.c, nil, out.c, 1e-5, nil), FI_INVALID_ARGUMENT,
            "bias is NULL")
    }

    @Test func groups() throws {
        let x = try random([3, 64], 4, .float32)
        let (bytes, scales) = (try OpsTensor(.float8E4M3, [3, 64]), try OpsTensor(.float32, [2, 3]))
        var options = quantize
        options.group_size = 32
        // Scales by columns.
        options.group_scales = UnsafePointer(scales.view.transposed(0, 1).c)
        try ok(fi_quantize(device.handle, nil, x.c, bytes.c, &options))
        for row in 0..<3 {
            for group in 0..<2 {
                let range = row * 64 + group * 32..<row * 64 + group * 32 + 32
                let greatest = range.reduce(Float(0)) { max($0, Float(abs(x[$1]))) }
                #expect(scales[group * 3 + row] == Double(greatest / 448))
                for index in range {
                    #expect(bytes[index] == rounded(Float(x[index]) * (1 / (greatest / 448)), to: .float8E4M3))
                }
            }
        }
        // Of a norm: those of its float32 output.
        let (weight, normed) = (try random([64], 5, .float32), try OpsTensor(.float32, [3, 64]))
        try ok(fi_rmsnorm(device.handle, nil, x.c, weight.c, normed.c, 1e-5, 0))
        try ok(fi_quantize(device.handle, nil, normed.c, bytes.c, &options))
        let (expected, direct) = (scales.values, try OpsTensor(.float8E4M3, [3, 64]))
        try ok(fi_rmsnorm_quantize(device.handle, nil, x.c, weight.c, direct.c, 1e-5, 0, &options))
        #expect(direct.values == bytes.values && scales.values == expected)
        options.scale = 2
        expect(
            fi_quantize(device.handle, nil, x.c, bytes.c, &options), FI_INVALID_ARGUMENT, "quantize", "at most one")
        options = quantize
        options.group_size = 32
        expect(fi_quantize(device.handle, nil, x.c, bytes.c, &options), FI_INVALID_ARGUMENT, "group_size is 32")
        // A caller of before there were groups.
        options = quantize
        options.struct_size = 32
        (options.scale, options.group_size) = (0.5, 77)
        try ok(fi_quantize(device.handle, nil, x.c, bytes.c, &options))
        #expect(bytes[0] == rounded(Float(x[0]) * 2, to: .float8E4M3))
    }

    @Test func packedBits() throws {
        let flags = try OpsTensor(.uint8, [11], values: [1, 0, 0, 7, 0, 0, 0, 0, 255, 1, 0])
        let bytes = try OpsTensor(.uint8, [2])
        try ok(fi_pack_bits(device.handle, nil, flags.c, 0, bytes.c))
        #expect(bytes.values == [9, 3])
        try ok(fi_pack_bits(device.handle, nil, flags.c, 1, bytes.c))
        #expect(bytes.values == [144, 192])
        let three = try OpsTensor(.uint8, [3])
        let (starts, places) = ([Int32]([0, 1, 10]).c, [Int32]([0, 1, 3]).c)
        try ok(fi_segment_pack_bits(device.handle, nil, flags.c, starts, places, 0, three.c))
        #expect(three.values == [1, 132, 1])
        expect(
            fi_segment_pack_bits(device.handle, nil, flags.c, starts, [Int32]([0, 2, 3]).c, 0, three.c),
            FI_INVALID_REQUEST, "bytes of segment")
        expect(fi_pack_bits(device.handle, nil, flags.c, 2, bytes.c), FI_INVALID_ARGUMENT, "big_endian")
    }

    @Test func rotations() throws {
        let q = try random([2, 3, 16], 5, .float32)
        let (positions, weight) = (try OpsTensor(.int32, [2], values: [0, 3]), try random([16], 6, .float32))
        let out = try OpsTensor(.float32, [2, 3, 16])
        var options = rope
        options.q_norm_weight = UnsafePointer(weight.c)
        try ok(fi_rope(device.handle, nil, q.c, nil, positions.c, out.c, nil, &options))
        for row in 0..<6 {
            let head = Array(q.values[row * 16..<row * 16 + 16])
            let scale = 1 / (head.reduce(0) { $0 + $1 * $1 } / 16 + 1e-6).squareRoot()
            let exact = OpsOracle.rope(
                zip(head, weight.values).map { $0 * scale * $1 }, position: positions[row / 3], RoPEParameters())
            for index in 0..<16 { #expect(abs(out[row * 16 + index] - exact[index]) < 1e-5) }
        }
        options.k_norm_weight = options.q_norm_weight
        expect(
            fi_rope(device.handle, nil, q.c, nil, positions.c, out.c, nil, &options), FI_INVALID_ARGUMENT,
            "key weight is a tensor")
        options = rope
        options.norm_eps = 1e-5
        expect(
            fi_rope(device.handle, nil, q.c, nil, positions.c, out.c, nil, &options), FI_INVALID_ARGUMENT,
            "q_norm_weight is NULL")
        // Angles of no turn at position 0, and of a quarter at position 3.
        let table = try OpsTensor(
            .float32, [4, 16],
            values: (0..<64).map { ($0 < 16 ? $0 % 16 < 8 : $0 % 16 >= 8) ? 1 : 0 })
        options = rope
        options.cos_sin_cache = UnsafePointer(table.c)
        try ok(fi_rope(device.handle, nil, q.c, nil, positions.c, out.c, nil, &options))
        #expect(out[0] == q[0] && out[48] == -q[56] && out[56] == q[48])
        let far = try OpsTensor(.int32, [2], values: [0, 4])
        expect(
            fi_rope(device.handle, nil, q.c, nil, far.c, out.c, nil, &options), FI_INVALID_ARGUMENT,
            "positions[1] is 4", "in 0 ..< 4")
        // Attention does not look tables up.
        var attention = fi_attention_options.sized
        (attention.num_qo_heads, attention.num_kv_heads, attention.head_dim_qk) = (2, 2, 16)
        attention.q_dtype = DType.float32.dl
        attention.position_encoding = Int32(FI_POSITION_ROPE)
        var handle: OpaquePointer?
        withUnsafePointer(to: options) { rope in
            attention.rope = rope
            expect(
                fi_attention_create(device.handle, &attention, &handle), FI_INVALID_ARGUMENT,
                "rope options is with tensors")
        }
    }

    @Test func headsInTwoParts() throws {
        let (q, k) = (try random([2, 3, 16], 7), try random([2, 16], 8))
        let (qRest, kRest) = (try random([2, 3, 8], 9), try random([2, 8], 10))
        let (qOut, qRestOut) = (try OpsTensor(.float8E4M3, [2, 3, 16]), try OpsTensor(.float8E4M3, [2, 3, 8]))
        let (kOut, kRestOut) = (try OpsTensor(.float8E4M3, [2, 16]), try OpsTensor(.float8E4M3, [2, 8]))
        let positions = try OpsTensor(.int32, [2], values: [2, 5])
        var args = fi_split_rope_args.sized
        (args.q_rope, args.q_nope) = (UnsafePointer(q.c), UnsafePointer(qRest.c))
        (args.k_rope, args.k_nope) = (UnsafePointer(k.c), UnsafePointer(kRest.c))
        (args.q_rope_out, args.q_nope_out) = (UnsafePointer(qOut.c), UnsafePointer(qRestOut.c))
        (args.k_rope_out, args.k_nope_out) = (UnsafePointer(kOut.c), UnsafePointer(kRestOut.c))
        args.positions = UnsafePointer(positions.c)
        args.kv_factor = 2
        try ok(fi_split_rope(device.handle, nil, &args))
        #expect(kRestOut.values == kRest.values.map { rounded(Float($0) * 2, to: .float8E4M3) })
        #expect(qRestOut.values == qRest.values.map { rounded(Float($0), to: .float8E4M3) })
        // The same keys in pages of latent attention: token 1 is not stored.
        var append = fi_append_args.sized
        let (ckv, kpe) = (try OpsTensor(.float8E4M3, [2, 2, 8]), try OpsTensor(.float8E4M3, [2, 2, 16]))
        (append.k_cache, append.v_cache) = (UnsafePointer(ckv.c), UnsafePointer(kpe.c))
        append.slot_mapping = UnsafePointer([Int32]([3, -1]).c)
        try withUnsafePointer(to: append) { append in
            args.append = append
            expect(fi_split_rope(device.handle, nil, &args), FI_INVALID_ARGUMENT, "k_rope_out", "given besides append")
            (args.k_rope_out, args.k_nope_out) = (nil, nil)
            try ok(fi_split_rope(device.handle, nil, &args))
        }
        #expect(Array(ckv.values[24...]) == Array(kRestOut.values[..<8]) && ckv.values[..<24].allSatisfy(\.isNaN))
        #expect(Array(kpe.values[48...]) == Array(kOut.values[..<16]) && kpe.values[..<48].allSatisfy(\.isNaN))
        // The plain append takes such a cache too.
        let plain = (try OpsTensor(.float32, [2, 2, 8]), try OpsTensor(.float32, [2, 2, 16]))
        (append.k_cache, append.v_cache) = (UnsafePointer(plain.0.c), UnsafePointer(plain.1.c))
        (append.k, append.v) = (UnsafePointer(kRest.c), UnsafePointer(k.c))
        try ok(fi_append_paged_kv(device.handle, nil, &append))
        #expect(Array(plain.0.values[24...]) == Array(kRest.values[..<8]))
        #expect(Array(plain.1.values[48...]) == Array(k.values[..<16]))
    }
}
