import CFlashInfer
import FlashInferCore
import TestSupport
import Testing

/// Operations that quantise or append as they go give, bit for bit, what the separate ones give with float32 between them.
@Suite struct FusedTests {
    let device: CDevice
    private let tokens = 5
    private let width = 48
    private static let types: [DType] = [.float8E4M3, .float8E5M2, .int8]

    init() throws { device = try .cpu() }

    private func random(_ shape: [Int], _ seed: UInt64, _ dtype: DType = .bfloat16) throws -> OpsTensor {
        var random = OpsRandom(seed)
        return try OpsTensor(dtype, shape, padding: 3, values: random.normals(shape.reduce(1, *)))
    }

    private var quantize: fi_quantize_options { .sized }

    private var append: fi_append_args { .sized }

    /// Runs `fused` in each way of scaling, and compares with `wide`, a float32 output, converted.
    private func expectQuantized(
        _ wide: OpsTensor, _ dtype: DType, sourceLocation: SourceLocation = #_sourceLocation,
        _ fused: (UnsafeMutablePointer<fi_tensor>, UnsafePointer<fi_quantize_options>?) throws -> fi_status
    ) throws {
        let largest: Double = dtype == .int8 ? 127 : dtype == .float8E4M3 ? 448 : 57_344
        let rows = try OpsTensor(.float32, [tokens])
        let one = try OpsTensor(.float32, [1], values: [0.03])
        let magnitudes = (0..<tokens).map { row in
            wide.values[row * width..<(row + 1) * width].reduce(0) { max($0, abs($1)) }
        }
        let dynamic = magnitudes.map { Float($0) / Float(largest) }
        let cases: [((inout fi_quantize_options) -> Void, [Float])] = [
            ({ _ in }, .init(repeating: 1, count: tokens)),
            ({ $0.scale = 0.011 }, .init(repeating: 0.011, count: tokens)),
            ({ $0.scale_tensor = UnsafePointer(one.c) }, .init(repeating: 0.03, count: tokens)),
            ({ $0.row_scales = UnsafePointer(rows.c) }, dynamic),
        ]
        for (set, scales) in cases {
            var options = quantize
            set(&options)
            let found = try OpsTensor(dtype, [tokens, width], padding: 5)
            try ok(fused(found.c, &options))
            let expected = wide.values.enumerated().map { index, value in
                rounded(Float(value) * (1 / scales[index / width]), to: dtype)
            }
            #expect(found.values == expected, sourceLocation: sourceLocation)
            #expect(found.paddingIsIntact, sourceLocation: sourceLocation)
        }
        #expect(rows.values == dynamic.map { Double($0) }, sourceLocation: sourceLocation)
        let plain = try OpsTensor(dtype, [tokens, width])
        try ok(fused(plain.c, nil))
        #expect(plain.values == wide.values.map { rounded(Float($0), to: dtype) }, sourceLocation: sourceLocation)
    }

    @Test(arguments: types) func norms(_ dtype: DType) throws {
        let (x, weight) = try (random([tokens, width], 1), random([width], 2, .float32))
        for offset in [Float(0), 1] {
            let wide = try OpsTensor(.float32, [tokens, width])
            try ok(fi_rmsnorm(device.handle, nil, x.c, weight.c, wide.c, 1e-5, offset))
            try expectQuantized(wide, dtype) { out, options in
                fi_rmsnorm_quantize(device.handle, nil, x.c, weight.c, out, 1e-5, offset, options)
            }
            let sums = try random([tokens, width], 3)
            try ok(fi_fused_add_rmsnorm(device.handle, nil, x.c, sums.c, weight.c, wide.c, 1e-5, offset))
            try expectQuantized(wide, dtype) { out, options in
                let residual = try random([tokens, width], 3)
                let status = fi_fused_add_rmsnorm_quantize(
                    device.handle, nil, x.c, residual.c, weight.c, out, 1e-5, offset, options)
                #expect(residual.values == sums.values && residual.paddingIsIntact)
                return status
            }
        }
    }

    @Test(arguments: types) func activations(_ dtype: DType) throws {
        let both = try random([tokens, 2 * width], 4)
        let (gate, up) = (both.view.slice(0..<width, along: 1), both.view.slice(width..<2 * width, along: 1))
        for kind in [FI_ACTIVATION_SILU, FI_ACTIVATION_GELU, FI_ACTIVATION_GELU_TANH] {
            let wide = try OpsTensor(.float32, [tokens, width])
            try ok(fi_act_and_mul(device.handle, nil, Int32(kind), both.c, wide.c))
            try expectQuantized(wide, dtype) { out, options in
                fi_act_and_mul_quantize(device.handle, nil, Int32(kind), both.c, out, options)
            }
            try expectQuantized(wide, dtype) { out, options in
                fi_gated_activation_quantize(device.handle, nil, Int32(kind), gate.c, up.c, out, options)
            }
        }
    }

    @Test func scalesThatContradictOrCannotDivide() throws {
        let (x, weight) = try (random([tokens, width], 5), random([width], 6))
        let one = try OpsTensor(.float32, [1], values: [0])
        let out = try OpsTensor(.float8E4M3, [tokens, width])
        func run(_ options: fi_quantize_options, _ out: UnsafeMutablePointer<fi_tensor>) -> fi_status {
            var options = options
            return fi_rmsnorm_quantize(device.handle, nil, x.c, weight.c, out, 1e-5, 0, &options)
        }
        var options = quantize
        options.scale = -2
        expect(run(options, out.c), FI_INVALID_ARGUMENT, "output scale", "-2")
        options.scale_tensor = UnsafePointer(one.c)
        expect(
            run(options, out.c), FI_INVALID_ARGUMENT, "2 of scale, scale_tensor, row_scales and group_scales",
            "at most one")
        options.scale = 0
        expect(run(options, out.c), FI_INVALID_ARGUMENT, "output scale is 0")
        options.scale_tensor = nil
        options.row_scales = UnsafePointer(one.c)
        expect(run(options, out.c), FI_INVALID_ARGUMENT, "row scales")
        options.struct_size += 8
        expect(run(options, out.c), FI_ABI_MISMATCH, "quantize->struct_size")
        expect(run(quantize, x.c), FI_INVALID_ARGUMENT, "output is bfloat16", "float8-e4m3")
        options = quantize
        expect(
            fi_act_and_mul_quantize(device.handle, nil, 7, x.c, out.c, &options), FI_INVALID_ARGUMENT, "activation is 7"
        )
        #expect(out.values.allSatisfy { $0.isNaN })
        // One that knows no tensors has none, whatever lies there.
        options.struct_size = 16
        options.row_scales = UnsafePointer(one.c)
        try ok(run(options, out.c))
        #expect(one[0] == 0 && out.values.allSatisfy { $0.isFinite })
    }

    @Test(arguments: [FI_NHD, FI_HND], [DType.bfloat16, .float8E4M3, .int8])
    func ropeAndAppend(_ layout: Int, _ cacheType: DType) throws {
        let positions: [Int32] = [0, 7, 100, 8191, 31]
        let slots: [Int32] = [3, 0, -1, 9, 14]
        let (k, v) = try (random([tokens, 2, 16], 8), random([tokens, 2, 24], 9))
        let shape = layout == FI_NHD ? [4, 4, 2] : [4, 2, 4]
        let headScales = try OpsTensor(.float32, [2], values: [0.5, 2])
        var rope = fi_rope_options(RoPEParameters(theta: 500_000, rotaryDim: 8, pairing: .interleaved))
        func caches() throws -> (OpsTensor, OpsTensor) {
            (
                try OpsTensor(cacheType, shape + [16], values: [Double](repeating: 1, count: 512)),
                try OpsTensor(cacheType, shape + [24], values: [Double](repeating: 1, count: 768))
            )
        }
        func args(_ k: OpsTensor, _ caches: (OpsTensor, OpsTensor)) -> fi_append_args {
            var args = append
            (args.k, args.v) = (UnsafePointer(k.c), UnsafePointer(v.c))
            (args.k_cache, args.v_cache) = (UnsafePointer(caches.0.c), UnsafePointer(caches.1.c))
            (args.kv_layout, args.slot_mapping) = (Int32(layout), UnsafePointer(slots.c))
            (args.k_scale, args.v_scale, args.k_scales) = (0.03, 0.05, UnsafePointer(headScales.c))
            return args
        }
        let q = try random([tokens, 4, 16], 7)
        let (wideQ, wideK) = try (OpsTensor(.float32, [tokens, 4, 16]), OpsTensor(.float32, [tokens, 2, 16]))
        try ok(fi_rope(device.handle, nil, q.c, nil, positions.c, wideQ.c, nil, &rope))
        try ok(fi_rope(device.handle, nil, k.c, nil, positions.c, wideK.c, nil, &rope))
        let expected = try caches()
        var separate = args(wideK, expected)
        try ok(fi_append_paged_kv(device.handle, nil, &separate))
        // Into 8 bits, into another type, and in place.
        for (type, scale) in [(.float8E5M2, 0.02), (.float32, 0), (nil, 1)] as [(DType?, Float)] {
            let (queries, found) = try (random([tokens, 4, 16], 7), caches())
            let out = try type.map { try OpsTensor($0, [tokens, 4, 16], padding: 2) }
            var fused = args(k, found)
            let before = k.values
            try ok(
                fi_rope_append(device.handle, nil, queries.c, out?.c, scale, positions.c, &fused, &rope))
            let result = out ?? queries
            #expect(
                result.values
                    == wideQ.values.map {
                        rounded(Float($0) * (type == .float8E5M2 ? 1 / scale : 1), to: result.view.dtype)
                    })
            #expect(found.0.values == expected.0.values && found.1.values == expected.1.values)
            #expect(k.values == before && result.paddingIsIntact)
            if out != nil { #expect(queries.values == q.values) }
        }
    }

    @Test func ropeAndAppendErrors() throws {
        let (q, k) = try (random([2, 2, 16], 10, .float32), random([2, 1, 16], 11, .float32))
        let cache = try OpsTensor(.float32, [3, 2, 4, 1, 16])
        let (positions, slots) = ([Int32](arrayLiteral: 3, 4), [Int32](arrayLiteral: 0, 11))
        var args = append
        (args.k, args.v, args.kv_cache) = (UnsafePointer(k.c), UnsafePointer(k.c), UnsafePointer(cache.c))
        let before = q.values
        func run(_ positions: [Int32] = [3, 4], out: OpsTensor? = nil, scale: Float = 0) -> fi_status {
            fi_rope_append(device.handle, nil, q.c, out?.c, scale, positions.c, &args, nil)
        }
        expect(run(), FI_INVALID_ARGUMENT, "append is 0 of", "exactly one")
        args.slot_mapping = UnsafePointer(slots.c)
        expect(run([3, -4]), FI_INVALID_ARGUMENT, "positions[1]", "-4")
        expect(run([3]), FI_INVALID_ARGUMENT, "positions")
        expect(run(scale: 0.5), FI_INVALID_ARGUMENT, "query scale is 0.5")
        expect(run(out: try OpsTensor(.int8, [2, 2, 16]), scale: -1), FI_INVALID_ARGUMENT, "query scale is -1")
        expect(
            fi_rope_append(device.handle, nil, q.c, nil, 0, positions.c, nil, nil), FI_INVALID_ARGUMENT,
            "append is NULL")
        expect(
            fi_rope_append(device.handle, nil, nil, nil, 0, positions.c, &args, nil), FI_INVALID_ARGUMENT, "q is NULL")
        args.slot_mapping = UnsafePointer([Int32](arrayLiteral: 0, 12).c)
        expect(run(), FI_INVALID_ARGUMENT, "page of token 1", "3")
        #expect(cache.values.allSatisfy { $0.isNaN } && q.values == before)
        args.slot_mapping = UnsafePointer(slots.c)
        try ok(run())
        #expect(q.values != before)
    }
}
