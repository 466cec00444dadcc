import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Variants on the GPU, against plain recursion in float64.
@Suite(.enabled(if: GPU.isPresent, GPU.absence)) struct VariantGPUTests {
    @Test(arguments: VariantSample.builtIns.indices) func builtIns(_ index: Int) throws {
        try check(
            AttentionCase(
                queryType: index % 2 == 0 ? .bfloat16 : .float16, cacheType: index % 2 == 0 ? .bfloat16 : .float16,
                layout: index % 3 == 0 ? .raggedNHD : .combinedNHD, dimQK: 64, kvHeads: 1, group: 2,
                lengths: [(1, 37), (0, 9), (17, 50), (3, 0), (1, 150), (40, 70), (9, 4)],
                hasHeadScales: index % 4 == 0, seed: UInt64(index), sample: VariantSample.builtIns[index]))
    }

    /// Requests of more than 64 rows, which Hopper's kernel takes: several stages, holes between them, and parts.
    @Test(arguments: VariantSample.builtIns.indices) func longPrompts(_ index: Int) throws {
        try check(
            AttentionCase(
                queryType: index % 2 == 0 ? .float16 : .bfloat16, cacheType: index % 2 == 0 ? .float16 : .bfloat16,
                layout: index % 3 == 0 ? .combinedNHD : .raggedNHD, dimQK: 64, kvHeads: 1, group: 1,
                lengths: [(150, 600), (70, 40)], hasHeadScales: index % 5 == 0, seed: UInt64(2 * index + 1),
                sample: VariantSample.builtIns[index]))
    }

    /// Masks and logits whose tiles two blocks of Hopper's take side by side, some of which begin at the same key: several tiles and heads, an odd
    /// number of tiles, more queries than keys, and a request without keys.
    @Test(arguments: VariantSample.builtIns.indices.filter { VariantSample.builtIns[$0].mayBePaired })
    func pairsOfTiles(_ index: Int) throws {
        try check(
            AttentionCase(
                queryType: .bfloat16, cacheType: .bfloat16, layout: index % 2 == 0 ? .combinedNHD : .raggedNHD,
                dimQK: 128, kvHeads: 2, group: 1, lengths: [(330, 590), (200, 70), (80, 0), (129, 129)],
                seed: UInt64(3 * index + 1), sample: VariantSample.builtIns[index]))
    }

    /// Against definitions that were written without an expression.
    @Test(arguments: VariantDefinition.all.indices) func definitions(_ index: Int) throws {
        let definition = VariantDefinition.all[index]
        for (mode, dtype, limit) in [
            (Planner.Mode.balanced, DType.float16, 0.01), (.batchInvariant(splitSize: 128), .bfloat16, 0.04),
        ] {
            let error = try definition.error(on: GPU.device, dtype: dtype, mode: mode)
            #expect(error < limit, "\(definition.name), \(dtype)")
        }
    }

    /// Keys that no row sees are not read: their pages may be anywhere.
    @Test(arguments: [1, 20, 128]) func holesAreNotRead(_ rows: Int) throws {
        let device = try GPU.device
        let variant = AttentionVariant("streaming", mask: .causal && (.window(left: 21) || .prefix(4)))
        let shape = try AttentionShape(queryHeads: 1, kvHeads: 1, headDimQK: 64)
        func tensor(_ shape: Shape, _ seed: UInt64) throws -> DeviceBuffer {
            var g = SeededGenerator(seed: seed)
            let count = (0..<shape.rank).reduce(1) { $0 * shape[$1] }
            return try DeviceBuffer(on: device, (0..<count).map { _ in Float16(g.normal()) }, shape: shape)
        }
        let queries = try tensor([rows, 1, 64], 1)
        // Pages that threads copy, as the copy engine gives zeros for what is not there.
        let keys = try tensor([150, 4, 1, 64], 2)
        let values = try tensor([150, 4, 1, 64], 3)
        var results: [[Float16]] = []
        for nowhere in [nil, 1_000_000] as [Int32?] {
            let geometry = try BatchGeometry.paged(
                queryIndptr: [0, Int32(rows)], pageIndptr: [0, 150],
                pageIndices: (0..<150).map { (32..<96).contains($0) ? nowhere ?? $0 : $0 }, lastPageLengths: [4],
                pageSize: 4, pageCount: 1_000_001)
            let problem = try AttentionProblem(
                geometry: geometry, shape: shape, variant: variant, queryType: .float16, kvType: .float16)
            let plan = try Planner.plan(
                problem, traits: device.kernelTraits(for: problem), processors: 2, mode: .unsplit)
            let workspace = try DeviceBuffer(
                on: device, dtype: .uint8, shape: [device.workspaceByteCount(for: plan.size)])
            let output = try DeviceBuffer(on: device, dtype: .float16, shape: [rows, 1, 64])
            let cache = try KVCacheView(
                keys: .paged(keys.view, layout: .nhd), values: .paged(values.view, layout: .nhd))
            // Not validated: the pages that are nowhere would be found.
            try device.execute(
                .attention(
                    AttentionOperation(
                        queries: queries.view, cache: cache, output: output.view, plan: plan,
                        workspace: workspace.region)))
            results.append(try output.read())
        }
        #expect(results[0] == results[1])
        #expect(results[0].allSatisfy { $0.isFinite })
    }

    @Test(arguments: 0..<12) func randomExpressions(_ seed: Int) throws {
        try check(
            AttentionCase(
                queryType: .float16, cacheType: .float16, layout: .raggedNHD, dimQK: 32, kvHeads: 1, group: 2,
                lengths: [(1, 60), (6, 50), (20, 80)], seed: UInt64(seed), sample: .random(UInt64(seed))))
    }

    private func check(_ test: AttentionCase) throws {
        let device = try GPU.device
        let fixture = try AttentionFixture(test)
        let traits = try device.kernelTraits(for: fixture.problem)
        let expected = fixture.oracle.evaluate()
        let buffers = try AttentionBuffers(fixture, on: device)
        for (mode, processors) in [(Planner.Mode.balanced, 2), (.batchInvariant(splitSize: fixedSplit(traits)), 3)] {
            let found = try buffers.run(mode: mode, processors: processors)
            let mismatch = AttentionTolerance(products: test.queryType).mismatch(found, expected, fixture.problem)
            #expect(mismatch == nil, "\(mode): \(test)")
        }
    }
}
