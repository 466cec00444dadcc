import FlashInfer
import FlashInferCore
import TestSupport
import Testing

/// The snippets of the article on variants, as they stand there.
@Suite struct VariantArticleTests {
    @Test func fiveVariants() throws {
        let gemma = AttentionVariant("gemma-2", mask: .causal && .window(left: 4095), logits: .softCap(50))
        #expect(gemma == AttentionVariant(mask: .causal, windowLeft: 4095, logitsSoftCap: 50))

        let streaming = AttentionVariant("streaming", mask: .causal && (.window(left: 1023) || .prefix(4)))
        let picture = try streaming.explain(.contiguous(queryLength: 4096, kvLength: 4096), block: (256, 256))
        #expect("\(picture)" == Self.picture)

        let ids = Parameter<Int32>("documents", .perPosition)
        let packed = AttentionVariant("packed", mask: .causal && .documents(ids))

        let bias = Parameter<Float>("bias", .perHeadTable(count: 32))
        let t5 = AttentionVariant("t5", mask: .causal, scale: 1) { score, at in
            let distance = at.queryPosition - at.keyPosition
            let far = 16 + (log(max(distance, 1).float / 16) * (16 / log(Expr<Float>(8)))).int
            return score + bias[at.head, select(distance < 16, distance, min(far, 31))]
        }

        let sigmoidal = AttentionVariant(
            "sigmoid", mask: .causal, weights: Weights { logit, at in sigmoid(logit - log(at.keyLength.float)) })

        // Buckets of distances as T5 has them.
        let oracle = ExprOracle(t5.logits.expression.graph)
        var bound = oracle
        bound.parameters["bias"] = ((0..<64).map { Double($0) }, 32)
        var site = OracleSite()
        site.head = 1
        for (distance, bucket) in [(0, 0), (15, 15), (16, 16), (23, 18), (64, 26), (128, 31), (4000, 31)] {
            (site.queryPosition, site.keyPosition) = (distance + 5, 5)
            #expect(bound(site).double == Double(32 + bucket), "distance \(distance)")
        }
        for variant in [gemma, streaming, packed, sigmoidal] {
            #expect(try AttentionVariant(json: variant.json) == variant)
        }
    }

    @Test func parametersOfTheProblem() throws {
        let device = CPUDevice(threads: 1)
        let ids = Parameter<Int32>("documents", .perPosition)
        let packed = AttentionVariant("packed", mask: .causal && .documents(ids))
        let geometry = try BatchGeometry.contiguous(queryLength: 8, kvLength: 8)
        let shape = try AttentionShape(queryHeads: 1, kvHeads: 1, headDimQK: 8)
        let problem = try AttentionProblem(
            geometry: geometry, shape: shape, variant: packed, queryType: .float32, kvType: .float32,
            parameters: ["documents": ParameterValue(positions: [[0, 0, 0, 1, 1, 1, 1, 2]])])
        let attention = try PlannedAttention(problem, on: device)
        // Equal scores: each row is the mean of the values that it sees.
        let queries = try DeviceBuffer(on: device, [Float](repeating: 0, count: 64), shape: [8, 1, 8])
        let values = try DeviceBuffer(
            on: device, (0..<64).map { Float($0 / 8) }, shape: [8, 1, 8])
        let output = try DeviceBuffer(on: device, dtype: .float32, shape: [8, 1, 8])
        let cache = try KVCacheView.ragged(keys: queries.view, values: values.view)
        try attention.run(queries.view, cache, into: output.view)
        let rows = try output.read(as: Float.self)
        for (row, mean) in [0, 0.5, 1, 3, 3.5, 4, 4.5, 7].enumerated() {
            #expect(abs(rows[row * 8] - Float(mean)) < 1e-6)
        }
        #expect(throws: FlashInferError.self) {
            try attention.run(queries.view, cache, into: output.view, parameters: ["document": queries.view])
        }
    }

    private static let picture = """
        streaming: 68.4 % skipped, 16.4 % without a mask
        ▒···············
        ■▒··············
        ■■▒·············
        ■■■▒············
        ▒■■■▒···········
        ▒▒■■■▒··········
        ▒·▒■■■▒·········
        ▒··▒■■■▒········
        ▒···▒■■■▒·······
        ▒····▒■■■▒······
        ▒·····▒■■■▒·····
        ▒······▒■■■▒····
        ▒·······▒■■■▒···
        ▒········▒■■■▒··
        ▒·········▒■■■▒·
        ▒··········▒■■■▒

        """
}
