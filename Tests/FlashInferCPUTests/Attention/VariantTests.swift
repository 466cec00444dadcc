import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

/// Variants that no kernel was written for, on every instruction set of this machine, against plain recursion in float64.
@Suite struct VariantTests {
    private static let types: [(DType, DType)] = [
        (.float32, .float32), (.bfloat16, .bfloat16), (.float16, .float16), (.bfloat16, .float8E4M3),
    ]

    /// Decodes (read in place), chunks and prompts (packed), requests without queries and without keys, and one worth splitting.
    private static let lengths = [(1, 37), (5, 80), (0, 9), (17, 100), (3, 0), (1, 700), (40, 300), (9, 4)]

    @Test(arguments: VariantSample.builtIns.indices) func builtIns(_ index: Int) throws {
        let (queryType, cacheType) = Self.types[index % Self.types.count]
        for seed in [UInt64(2 * index + 1), UInt64(2 * index + 2)] {
            try check(
                AttentionCase(
                    queryType: queryType, cacheType: cacheType,
                    layout: seed % 3 == 0 ? .raggedNHD : .combinedNHD, lengths: Self.lengths,
                    hasHeadScales: seed % 4 == 0, seed: seed, sample: VariantSample.builtIns[index]))
        }
    }

    @Test(arguments: 0..<40) func randomExpressions(_ seed: Int) throws {
        try check(
            AttentionCase(
                dimQK: 32, lengths: [(1, 60), (6, 50), (0, 3), (20, 150), (2, 0), (30, 290), (5, 2)],
                seed: UInt64(seed), sample: .random(UInt64(seed))))
    }

    private func check(_ test: AttentionCase) throws {
        let fixture = try AttentionFixture(test)
        let expected = fixture.oracle.evaluate()
        for (index, device) in AttentionConformanceTests.devices.enumerated() {
            let mode: Planner.Mode = index % 2 == 0 ? .balanced : .batchInvariant(splitSize: 128)
            let found = try fixture.run(on: device, mode: mode, processors: 1 + Int(test.seed) % 3)
            expectClose(found, expected, fixture.problem, device)
        }
    }

    @Test func blockSparseColumns() throws {
        // Positions are columns: the expressions see them, whatever order the keys come in.
        let geometry = try BatchGeometry.blockSparse(
            rows: 64, columns: 96, rowBlock: 16, columnBlock: 16, indptr: [0, 2, 5, 6, 10],
            indices: [4, 1, 0, 5, 2, 3, 1, 0, 5, 3])
        let shape = try AttentionShape(queryHeads: 2, kvHeads: 2, headDimQK: 32)
        let fused = AttentionVariant(mask: .causal, windowLeft: 40)
        // The same pairs, written so that no kernel has them.
        let written = AttentionVariant(
            "band", mask: .causal && !Mask { at in at.queryPosition - at.keyPosition > 40 || at.head < 0 })
        #expect(fused.form.isFused && !written.form.isFused)
        let device = CPUDevice(threads: 1)
        var results: [[Float]] = []
        for variant in [fused, written] {
            let problem = try AttentionProblem(
                geometry: geometry, shape: shape, variant: variant, queryType: .float32, kvType: .float32)
            let plan = try Planner.plan(problem, traits: device.kernelTraits(for: problem), processors: 1)
            func numbers(_ count: Int, _ seed: UInt64) -> [Float] {
                var g = SeededGenerator(seed: seed)
                return (0..<count).map { _ in g.normal() }
            }
            let queries = try DeviceBuffer(on: device, numbers(64 * 64, 1), shape: [64, 2, 32])
            let keys = try DeviceBuffer(on: device, numbers(96 * 64, 2), shape: [6, 16, 2, 32])
            let values = try DeviceBuffer(on: device, numbers(96 * 64, 3), shape: [6, 16, 2, 32])
            let output = try DeviceBuffer(on: device, dtype: .float32, shape: [64, 2, 32])
            let workspace = try DeviceBuffer(on: device, dtype: .uint8, shape: [max(plan.workspaceByteCount, 1)])
            let operation = AttentionOperation(
                queries: queries.view,
                cache: try KVCacheView(
                    keys: .paged(keys.view, layout: .nhd), values: .paged(values.view, layout: .nhd)),
                output: output.view, plan: plan, workspace: workspace.region)
            try operation.validate()
            try device.execute(.attention(operation))
            results.append(try output.read())
        }
        for (a, b) in zip(results[0], results[1]) { #expect(abs(a - b) <= 1e-5, "\(a) and \(b)") }
    }
}
