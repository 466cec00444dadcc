import FlashInferCore
import Testing

/// Block rows of a matrix read the same columns, so what runs at the same time is of few heads.
@Suite struct BlockSparseQueueTests {
    private func plan(cachedKeys: Int) throws -> Plan {
        let (rows, columns, heads) = (16, 8, 6)
        let problem = try AttentionProblem(
            geometry: .blockSparse(
                rows: rows * 64, columns: columns * 64, rowBlock: 64, columnBlock: 64,
                indptr: (0...Int32(rows)).map { $0 * Int32(columns) },
                indices: (0..<rows).flatMap { _ in (0..<Int32(columns)) }),
            shape: AttentionShape(queryHeads: heads, kvHeads: heads, headDimQK: 64), variant: .full,
            queryType: .float16, kvType: .float16)
        let traits = KernelTraits(
            tiles: [
                .init(
                    maximumRows: .max, queryRows: 64, kvHeads: 1, fixedCost: 1, keyCost: 1, pairCost: 0,
                    schedule: .queue)
            ], kvGranularity: 64, minimumSplit: 64, cachedKeys: cachedKeys)
        return try Planner.plan(problem, traits: traits, processors: 2)
    }

    /// 512 columns: two heads fit in 1,024 keys, and each section has all block rows with both.
    @Test func headsComeOneAfterAnother() throws {
        let plan = try plan(cachedKeys: 1_024)
        let heads = plan.items[plan.queue(ofTile: 0)].map(\.headStart)
        #expect(heads.count == 96)
        for (section, start) in stride(from: 0, to: 96, by: 32).enumerated() {
            #expect(Set(heads[start..<start + 32]) == [Int32(2 * section), Int32(2 * section + 1)])
        }
        #expect(Set(plan.items.map { [$0.request, $0.headStart] }).count == 96)
    }

    @Test func oneHeadAtLeast() throws {
        let heads = try plan(cachedKeys: 1).items.map(\.headStart)
        #expect(heads == heads.sorted() && heads.count == 96)
    }
}
