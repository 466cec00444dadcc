import CFlashInfer
import FlashInferCore
import TestSupport
import Testing

/// Sizes that no memory has: they must be errors, not sums that overflow or arrays that nobody can allocate.
@Suite struct ImpossibleSizeTests {
    let device: CDevice

    init() throws { device = try .cpu() }

    private func tensor(_ dtype: DType, _ shape: [Int]) throws -> UnsafeMutablePointer<fi_tensor> {
        try OpsTensor(dtype, shape, values: [Double](repeating: 1, count: shape.reduce(1, *))).c
    }

    @Test func stridesOfVectors() throws {
        let attention = try CAttention(AttentionTests.plain, on: device)
        let good = [Int32](arrayLiteral: 0, 1).c
        let wrong = [Int32](arrayLiteral: 0, 1).c
        for (stride, status) in [(Int64.max, FI_OVERFLOW), (1 << 58, FI_INVALID_ARGUMENT)] {
            wrong.pointee.strides[0] = stride
            expect(
                fi_attention_plan_paged(attention.handle, nil, nil, wrong, good, good, 4, 0), Int(status), "kv_indptr")
        }
    }

    @Test func offsets() throws {
        let (x, weight) = (try tensor(.float32, [2, 16]), try tensor(.float32, [16]))
        let out = try OpsTensor(.float32, [2, 16])
        x.pointee.byte_offset = 1 << 63
        expect(fi_rmsnorm(device.handle, nil, x, weight, out.c, 1, 0), FI_INVALID_ARGUMENT, "in is", "byte offset")
        #expect(out.values.allSatisfy { $0.isNaN })
    }

    /// What the host reads is copied, so it is small before it is read.
    @Test func hostArrays() throws {
        let v = try tensor(.float32, [2, 1, 4]), lse = try tensor(.float32, [2, 1])
        let other = try tensor(.float32, [2, 1, 4]), otherLSE = try tensor(.float32, [2, 1])
        let mask = try tensor(.uint8, [2])
        mask.pointee.shape[0] = 1 << 62
        expect(
            fi_merge_state_in_place(device.handle, nil, v, lse, other, otherLSE, mask), FI_INVALID_ARGUMENT, "mask is")
        let attention = try CAttention(AttentionTests.plain, on: device)
        let good = [Int32](arrayLiteral: 0, 1).c
        let long = [Int32](arrayLiteral: 0, 1).c
        long.pointee.shape[0] = 1 << 40
        expect(
            fi_attention_plan_paged(attention.handle, nil, nil, good, long, good, 4, 0), FI_INVALID_ARGUMENT,
            "kv_indices is \(1 << 40) elements")
    }

    /// One row may stand for as many as there are tokens, but for no more.
    @Test func rowsThatAreOneRow() throws {
        let logits = try tensor(.float32, [2, 8])
        (logits.pointee.shape[0], logits.pointee.strides[0]) = (1 << 40, 0)
        let tokens = [Int32](arrayLiteral: 7, 7).c, out = try OpsTensor(.float32, [2, 8])
        var parameters = fi_sampling_parameters()
        (parameters.temperature, parameters.top_p) = (1, 1)
        expect(
            fi_sample(device.handle, nil, logits, &parameters, 1, 0, tokens, nil), FI_INVALID_ARGUMENT, "tokens is",
            "[\(1 << 40)]")
        expect(
            fi_filter(device.handle, nil, logits, Int32(FI_LOGITS), &parameters, 1, 0, out.c, nil),
            FI_INVALID_ARGUMENT, "rows is \(1 << 40)")
        expect(fi_argmax(device.handle, nil, logits, tokens, nil), FI_INVALID_ARGUMENT, "rows is \(1 << 40)")
    }

    /// Frameworks leave any stride where an extent is 1.
    @Test func stridesOfOneTakeNoSteps() throws {
        let attention = try CAttention(AttentionTests.plain, on: device)
        try ok(
            fi_attention_plan_paged(
                attention.handle, nil, nil, [Int32](arrayLiteral: 0, 2).c, [Int32](arrayLiteral: 1, 0).c,
                [Int32](arrayLiteral: 1).c, 1, 0))
        var results: [[Double]] = []
        for stride in [Int64(32), 1 << 62, .max, -7] {
            var args = fi_attention_run_args()
            let k = try tensor(.float32, [2, 1, 2, 16]), v = try tensor(.float32, [2, 1, 2, 16])
            (k.pointee.strides[1], v.pointee.strides[1]) = (stride, stride)
            let out = try OpsTensor(.float32, [1, 4, 16]), q = try tensor(.float32, [1, 4, 16])
            (args.q, args.k, args.v, args.out) = (
                UnsafePointer(q), UnsafePointer(k), UnsafePointer(v), UnsafePointer(out.c)
            )
            try ok(attention.run(args))
            results.append(out.values)
        }
        #expect(results.allSatisfy { $0 == [Double](repeating: 1, count: 64) })
    }

    /// NumPy's empty arrays have strides of 0.
    @Test func tensorsWithoutElementsHaveAnyStrides() throws {
        let (x, weight, out) = (
            try tensor(.float32, [0, 16]), try tensor(.float32, [16]), try tensor(.float32, [0, 16])
        )
        for stride in [Int64(0), -1, .max] {
            for empty in [x, out] { (empty.pointee.strides[0], empty.pointee.strides[1]) = (stride, stride) }
            try ok(fi_rmsnorm(device.handle, nil, x, weight, out, 1, 0))
        }
    }

    @Test func scalesThatAreNoNumberTogether() throws {
        let attention = try CAttention(AttentionTests.plain, on: device)
        try ok(fi_attention_plan_single(attention.handle, nil, 1, 2))
        var args = fi_attention_run_args()
        let kv = try tensor(.float32, [2, 2, 16]), q = try tensor(.float32, [1, 4, 16])
        let out = try OpsTensor(.float32, [1, 4, 16])
        (args.q, args.k, args.v) = (UnsafePointer(q), UnsafePointer(kv), UnsafePointer(kv))
        args.out = UnsafePointer(out.c)
        (args.q_scale, args.k_scale) = (1e30, 1e30)
        expect(attention.run(args), FI_INVALID_ARGUMENT, "scale of the keys")
        (args.q_scale, args.k_scale, args.v_scale, args.o_scale) = (0, 0, 1e30, 1e30)
        expect(attention.run(args), FI_INVALID_ARGUMENT, "scale of the values")
        #expect(out.values.allSatisfy { $0.isNaN })
        args.o_scale = 0
        try ok(attention.run(args))
    }
}
