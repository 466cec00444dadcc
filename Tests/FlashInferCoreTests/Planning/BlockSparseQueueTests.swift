import FlashInferCore
import TestSupport
import Testing

/// Block rows of a matrix read the same columns, so what runs at the same time is of few heads.
@Suite struct BlockSparseQueueTests {
    private func plan(
        cachedKeys: Int, heads: Int = 6, processors: Int = 2, mode: Planner.Mode = .balanced
    ) throws -> Plan {
        let (rows, columns) = (16, 8)
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
        let plan = try Planner.plan(problem, traits: traits, processors: processors, mode: mode)
        #expect(try Planner.measure(problem, traits: traits, processors: processors, mode: mode) == plan.size)
        return plan
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

    /// The items that follow from row tiles and sections are those that are written one by one, where a capacity asks for that; the last
    /// sections have fewer heads, or more.
    @Test(arguments: [1, 512, 1_024, 1_700, 2_048, 4_000], [1, 3, 5, 6, 7, 16])
    func sectionsHaveAllItems(cachedKeys: Int, heads: Int) throws {
        for processors in [1, 2, 4] {
            let plan = try plan(cachedKeys: cachedKeys, heads: heads, processors: processors)
            var written = plan.size
            written.rowTileCount = 0
            let other = try Planner.plan(
                plan.problem, traits: plan.traits, processors: processors, capacity: written)
            #expect(other.size == written && other.sections == nil)
            #expect(plan.items == other.items && plan.items.count == plan.size.itemCount)
            #expect(plan.queueIndptr == other.queueIndptr && plan.itemIndptr == other.itemIndptr)
            #expect((plan.sections != nil) == (16 * heads >= 8 * processors))
        }
    }

    /// Row tiles of different lengths come longest first, for each head.
    @Test func longestFirst() throws {
        var generator = SeededGenerator(seed: 5)
        for _ in 0..<20 {
            let (rows, columns) = (Int.random(in: 40...200, using: &generator), 50)
            let counts = (0..<rows).map { _ in Int32.random(in: 0...Int32(columns), using: &generator) }
            var indptr: [Int32] = [0]
            for count in counts { indptr.append(indptr[indptr.count - 1] + count) }
            let problem = try AttentionProblem(
                geometry: .blockSparse(
                    rows: rows * 64, columns: columns * 64, rowBlock: 64, columnBlock: 64, indptr: indptr,
                    indices: counts.flatMap { 0..<$0 }),
                shape: AttentionShape(queryHeads: 4, kvHeads: 4, headDimQK: 64), variant: .full, queryType: .float16,
                kvType: .float16)
            let traits = try plan(cachedKeys: 1).traits
            let items = try Planner.plan(problem, traits: traits, processors: 2).items
            #expect(items.count == 4 * rows)
            for head in 0..<4 {
                let own = items.filter { $0.headStart == Int32(head) }
                #expect(own.map(\.keyCount) == counts.sorted(by: >).map { $0 * 64 })
                #expect(Set(own.map(\.request)).count == rows)
            }
        }
    }

    @Test func oneHeadAtLeast() throws {
        let heads = try plan(cachedKeys: 1).items.map(\.headStart)
        #expect(heads == heads.sorted() && heads.count == 96)
    }
}
