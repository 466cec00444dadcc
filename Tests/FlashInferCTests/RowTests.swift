import CFlashInfer
import FlashInferCore
import TestSupport
import Testing

/// Every operation on rows once, against its definition: what the kernels do is their own tests' matter.
@Suite struct RowTests {
    let device: CDevice
    private let tokens = 5
    private let width = 48

    init() throws { device = try .cpu() }

    private func random(_ shape: [Int], _ seed: UInt64, _ dtype: DType = .bfloat16) throws -> OpsTensor {
        var random = OpsRandom(seed)
        return try OpsTensor(dtype, shape, padding: 3, values: random.normals(shape.reduce(1, *)))
    }

    private func expectClose(
        _ found: OpsTensor, _ oracle: OpsOracle.Results, units: Double = 1,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let outlier = firstOutlier(
            found.values, exact: oracle.exact, reference: oracle.reference, width: found.view.shape[-1],
            dtype: found.view.dtype, units: units)
        #expect(outlier == nil, sourceLocation: sourceLocation)
        #expect(found.paddingIsIntact, sourceLocation: sourceLocation)
    }

    @Test func version() throws {
        let parts = String(cString: fi_version_string()).split(separator: ".").compactMap { UInt32($0) }
        #expect(parts.count == 3 && fi_version() == parts[0] * 10_000 + parts[1] * 100 + parts[2])
    }

    @Test(arguments: [Float(0), 1]) func rmsNorm(_ offset: Float) throws {
        let (x, weight) = try (
            random([tokens, width], 1), OpsTensor(.float32, [width], values: (0..<width).map { Double($0) / 16 })
        )
        let out = try OpsTensor(.bfloat16, [tokens, width])
        try ok(fi_rmsnorm(device.handle, nil, x.c, weight.c, out.c, 1e-5, offset))
        let oracle = OpsOracle.rmsNorm(
            x.values, residual: nil, weight: weight.values, epsilon: 1e-5, offset: offset, output: .bfloat16)
        expectClose(out, oracle)
        let residual = try random([tokens, width], 2)
        let sums = zip(x.values, residual.values).map { rounded(Float($0) + Float($1), to: .bfloat16) }
        let fused = OpsOracle.rmsNorm(
            x.values, residual: residual.values, weight: weight.values, epsilon: 1e-5, offset: offset,
            output: .bfloat16)
        try ok(fi_fused_add_rmsnorm(device.handle, nil, x.c, residual.c, weight.c, x.c, 1e-5, offset))
        expectClose(x, fused)
        #expect(residual.values == sums)
    }

    @Test(arguments: [
        (FI_ACTIVATION_SILU, GatedActivationOperation.Activation.silu), (FI_ACTIVATION_GELU, .geluErf),
        (FI_ACTIVATION_GELU_TANH, .geluTanh),
    ]) func activations(_ kind: Int, _ activation: GatedActivationOperation.Activation) throws {
        let both = try random([tokens, 2 * width], 3)
        let (out, split) = try (OpsTensor(.bfloat16, [tokens, width]), OpsTensor(.bfloat16, [tokens, width]))
        try ok(fi_act_and_mul(device.handle, nil, Int32(kind), both.c, out.c))
        let (gate, up) = (both.view.slice(0..<width, along: 1), both.view.slice(width..<2 * width, along: 1))
        try ok(fi_gated_activation(device.handle, nil, Int32(kind), gate.c, up.c, split.c))
        let rows = (0..<tokens).map { Array(both.values[$0 * 2 * width..<($0 + 1) * 2 * width]) }
        expectClose(
            out,
            OpsOracle.gatedActivation(
                rows.flatMap { $0.prefix(width) }, rows.flatMap { $0.suffix(width) }, activation, output: .bfloat16))
        #expect(out.values == split.values)
    }

    @Test(arguments: [
        RoPEParameters(), RoPEParameters(theta: 500, rotaryDim: 8, pairing: .interleaved, scaling: .linear(factor: 2)),
        RoPEParameters(
            theta: 500_000,
            scaling: .llama3(factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext: 8192)),
    ]) func rope(_ parameters: RoPEParameters) throws {
        let (q, k) = try (random([tokens, 3, 16], 4, .float32), random([tokens, 1, 16], 5, .float32))
        let (qOut, kOut) = try (OpsTensor(.float32, [tokens, 3, 16]), OpsTensor(.float32, [tokens, 1, 16]))
        let positions: [Int32] = [0, 7, 100, 8191, 31]
        var options = fi_rope_options(parameters)
        try ok(fi_rope(device.handle, nil, q.c, k.c, positions.c, qOut.c, kOut.c, &options))
        for (input, output, heads) in [(q, qOut, 3), (k, kOut, 1)] {
            for row in 0..<tokens * heads {
                let exact = OpsOracle.rope(
                    Array(input.values[row * 16..<row * 16 + 16]), position: Double(positions[row / heads]), parameters)
                for d in 0..<16 { #expect(abs(output[row * 16 + d] - exact[d]) <= 0x1p-19) }
            }
        }
        // In place, and the queries alone.
        try ok(fi_rope(device.handle, nil, q.c, nil, positions.c, nil, nil, &options))
        #expect(q.values == qOut.values)
    }

    @Test func ropeOfEachPairAndDefaults() throws {
        let q = try random([tokens, 1, 16], 6, .float32)
        let positions: [Int32] = [1, 2, 3, 4, 5]
        let factors: [Float] = [1, 2, 3, 4, 5, 6, 7, 8]
        var options = fi_rope_options(RoPEParameters())
        options.scaling = Int32(FI_ROPE_PER_PAIR)
        let input = q.values
        try factors.withUnsafeBufferPointer { factors in
            options.factors = factors.baseAddress
            options.factor_count = 8
            try ok(fi_rope(device.handle, nil, q.c, nil, positions.c, nil, nil, &options))
            options.factor_count = 7
            expect(
                fi_rope(device.handle, nil, q.c, nil, positions.c, nil, nil, &options), FI_LENGTH_MISMATCH,
                "RoPE factors")
        }
        for row in 0..<tokens {
            let exact = OpsOracle.rope(
                Array(input[row * 16..<row * 16 + 16]), position: Double(positions[row]),
                RoPEParameters(scaling: .perPair(factors: factors)))
            for d in 0..<16 { #expect(abs(q[row * 16 + d] - exact[d]) <= 0x1p-19) }
        }
        let (first, second) = try (random([tokens, 1, 16], 7, .float32), random([tokens, 1, 16], 7, .float32))
        var standard = fi_rope_options(RoPEParameters())
        try ok(fi_rope(device.handle, nil, first.c, nil, positions.c, nil, nil, nil))
        try ok(fi_rope(device.handle, nil, second.c, nil, positions.c, nil, nil, &standard))
        #expect(first.values == second.values)
    }

    @Test func addConvertAndEmbed() throws {
        let (a, b) = try (random([tokens, width], 8, .float32), random([tokens, width], 9, .float32))
        let out = try OpsTensor(.float32, [tokens, width])
        try ok(fi_add(device.handle, nil, a.c, b.c, out.c, 2, -3))
        for index in 0..<out.count { #expect(abs(out[index] - (2 * a[index] - 3 * b[index])) <= 0x1p-20) }
        try ok(fi_add(device.handle, nil, a.c, nil, out.c, 0.5, 7))
        #expect(out.values == a.values.map { $0 / 2 })

        let quantised = try OpsTensor(.float8E4M3, [tokens, width])
        try ok(fi_convert(device.handle, nil, a.c, quantised.c, 16))
        #expect(quantised.values == a.values.map { rounded(Float($0) * 16, to: .float8E4M3) })

        let ids: [Int32] = [4, 0, 0, 2, 1]
        try ok(fi_embedding(device.handle, nil, a.c, ids.c, out.c, 2))
        for (row, id) in ids.enumerated() {
            for column in 0..<width { #expect(out[row * width + column] == 2 * a[Int(id) * width + column]) }
        }
        expect(
            fi_embedding(device.handle, nil, a.c, [Int32](arrayLiteral: 0, 1, 5, 0, 0).c, out.c, 1),
            FI_INVALID_ARGUMENT, "ids[2]", "5")
    }

    @Test func logits() throws {
        let logits = try random([tokens, width], 10, .float32)
        let (out, tokensOut) = try (OpsTensor(.float32, [tokens, width]), OpsTensor(.int32, [tokens]))
        let status = try OpsTensor(.uint8, [tokens])
        let temperatures = try OpsTensor(.float32, [tokens], values: [1, 0.5, 2, 1, 3])
        for (given, each) in [(nil, [1, 1, 1, 1, 1]), (temperatures.c, temperatures.values.map { Float($0) })] {
            try ok(fi_softmax(device.handle, nil, logits.c, given, out.c, status.c))
            expectClose(
                out, OpsOracle.softmax(logits.values, width: width, temperatures: each, output: .float32), units: 4)
            try ok(fi_softmax(device.handle, nil, logits.c, given, out.c, nil))
        }
        logits[2 * width] = .nan
        try ok(fi_argmax(device.handle, nil, logits.c, tokensOut.c, status.c))
        for row in 0..<tokens where row != 2 {
            let values = Array(logits.values[row * width..<(row + 1) * width])
            #expect(Int(tokensOut[row]) == values.firstIndex(of: values.max()!))
        }
        #expect(tokensOut[2] == -1 && status.values == [0, 0, Double(FI_ROW_STATUS_NAN), 0, 0])

        let ids: [Int32] = [0, 3, 5, 7, 47]
        let scores = try OpsTensor(.float32, [tokens])
        try ok(fi_log_probability(device.handle, nil, logits.c, ids.c, nil, scores.c, nil))
        let probabilities = OpsOracle.softmax(
            logits.values.map { $0.isNaN ? 0 : $0 }, width: width, temperatures: [1, 1, 1, 1, 1], output: .float32)
        for row in [0, 1, 3, 4] {
            let exact = ElementaryFunctions.log(probabilities.exact[row * width + Int(ids[row])])
            #expect(abs(scores[row] - exact) <= 1e-5)
        }
        #expect(scores[2].isNaN)
    }

    @Test func sampling() throws {
        let logits = try random([tokens, width], 11, .float32)
        let (all, alone) = try (OpsTensor(.int32, [tokens]), OpsTensor(.int32, [tokens]))
        let status = try OpsTensor(.uint8, [tokens])
        let step: UInt64 = 3
        func parameters(_ seed: UInt64) -> fi_sampling_parameters {
            fi_sampling_parameters(temperature: 0.7, top_k: 12, top_p: 0.9, min_p: 0.01, seed: seed, step: step)
        }
        let rows = (0..<tokens).map { parameters(42 &+ UInt64($0) &* 0x9E37_79B9_7F4A_7C15) }
        for (order, isJoint) in [(FI_TOP_K_FIRST, false), (FI_JOINT, true)] {
            try ok(fi_sample(device.handle, nil, logits.c, rows, Int64(tokens), Int32(order), all.c, status.c))
            var shared = parameters(42)
            try ok(fi_sample(device.handle, nil, logits.c, &shared, 1, Int32(order), alone.c, nil))
            #expect(all.values == alone.values)
            for (row, given) in rows.enumerated() {
                let oracle = SamplingOracle(
                    Array(logits.values[row * width..<(row + 1) * width]),
                    SampleOperation.Row(
                        temperature: 0.7, topK: 12, topP: 0.9, minP: 0.01, seed: given.seed, step: step), joint: isJoint
                )
                #expect(
                    oracle.accepts(Int(all[row]), uniform: Philox4x32(seed: given.seed, step: step).uniform()))
            }
        }
        expect(
            fi_sample(device.handle, nil, logits.c, rows, 3, 0, all.c, nil), FI_LENGTH_MISMATCH, "parameter_count")
        var wrong = parameters(1)
        wrong.top_p = -1
        expect(fi_sample(device.handle, nil, logits.c, &wrong, 1, 0, all.c, nil), FI_INVALID_ARGUMENT, "topP")
    }

    @Test func bits() throws {
        var random = OpsRandom(12)
        let flags = (0..<37).map { _ in random.uniform() < 0.5 ? 0.0 : 3.0 }
        let x = try OpsTensor(.uint8, [37], values: flags)
        for isBig in [false, true] {
            let out = try OpsTensor(.uint8, [5])
            try ok(fi_packbits(x.c, isBig ? 1 : 0, out.c))
            for (index, flag) in flags.enumerated() {
                let bit = isBig ? 7 - index % 8 : index % 8
                #expect((Int(out[index / 8]) >> bit & 1 == 1) == (flag != 0))
            }
            let indptr: [Int32] = [0, 3, 3, 20, 37]
            let (segments, starts) = try (OpsTensor(.uint8, [9]), OpsTensor(.int32, [5]))
            try ok(fi_segment_packbits(x.c, indptr.c, isBig ? 1 : 0, nil, starts.c))
            try ok(fi_segment_packbits(x.c, indptr.c, isBig ? 1 : 0, segments.c, starts.c))
            #expect(starts.values == [0, 1, 1, 4, 7])
            for segment in 0..<4 {
                for index in Int(indptr[segment])..<Int(indptr[segment + 1]) {
                    let local = index - Int(indptr[segment])
                    let bit = isBig ? 7 - local % 8 : local % 8
                    let byte = Int(segments[Int(starts[segment]) + local / 8])
                    #expect((byte >> bit & 1 == 1) == (flags[index] != 0))
                }
            }
        }
        expect(fi_packbits(x.c, 0, try OpsTensor(.uint8, [4]).c), FI_LENGTH_MISMATCH, "out")
        let starts = try OpsTensor(.int32, [3])
        expect(
            fi_segment_packbits(x.c, [Int32](arrayLiteral: 0, 9, 5).c, 0, nil, starts.c), FI_INDPTR_NOT_MONOTONE,
            "indptr")
        expect(
            fi_segment_packbits(x.c, [Int32](arrayLiteral: 0, 9, 38).c, 0, nil, starts.c), FI_INVALID_ARGUMENT,
            "38")
    }
}
