import FlashInferCore
import TestSupport
import Testing

@Suite struct PlannerTests {
    static let cases: [PlanCase] = [.skewed, .uniform, .zipf, .prefill, .window]

    @Test(arguments: cases, [1, 2, 132])
    func everyKeyIsCoveredOnce(_ batch: PlanCase, processors: Int) throws {
        for traits in allTraits {
            for mode in [Planner.Mode.balanced, .unsplit, .batchInvariant(splitSize: 42 * traits.kvGranularity)] {
                let plan = try Planner.plan(batch.problem(), traits: traits, processors: processors, mode: mode)
                checkCoverage(plan)
                let size = try Planner.measure(batch.problem(), traits: traits, processors: processors, mode: mode)
                #expect(size.itemCount == plan.items.count)
                #expect(size.mergeCount == plan.merges.count)
                #expect(size.workspaceByteCount == plan.workspaceByteCount)
            }
        }
    }

    @Test(arguments: cases, [2, 16, 132])
    func makespanIsNearTheLowerBound(_ batch: PlanCase, processors: Int) throws {
        for traits in [gpuTraits, cpuTraits] {
            let plan = try Planner.plan(batch.problem(), traits: traits, processors: processors)
            let uncut = try Planner.plan(batch.problem(), traits: traits, processors: processors, mode: .unsplit)
            let bound = loads(uncut).reduce(0, +) / Float(processors)
            #expect(loads(plan).max()! <= 1.15 * bound, "\(loads(plan).max()! / bound)")
        }
    }

    @Test func plansAreDeterministic() throws {
        for batch in Self.cases {
            for traits in allTraits {
                let first = try Planner.plan(batch.problem(), traits: traits, processors: 132)
                let second = try Planner.plan(batch.problem(), traits: traits, processors: 132)
                #expect(first == second)
            }
        }
    }

    @Test func balancedPartialStatesAreBoundedByTheProcessors() throws {
        for batch in Self.cases {
            let plan = try Planner.plan(batch.problem(), traits: gpuTraits, processors: 132)
            #expect(plan.partialRowCount <= 2 * 131 * 128)
            #expect(plan.merges.count <= 131)
        }
    }

    @Test func batchInvariantCutsDependOnTheRequestAlone() throws {
        let alone = PlanCase(name: "alone", queries: [40], keys: [9000])
        let crowd = PlanCase(name: "crowd", queries: [1, 40, 700], keys: [50_000, 9000, 700])
        func cuts(_ batch: PlanCase, request: Int32, processors: Int) throws -> [[Int32]] {
            try Planner.plan(
                batch.problem(), traits: gpuTraits, processors: processors, mode: .batchInvariant(splitSize: 512)
            ).items.filter { $0.request == request }
                .map { [$0.headStart, $0.rowStart, $0.rowCount, $0.keyStart, $0.keyCount] }
                .sorted { $0.lexicographicallyPrecedes($1) }
        }
        #expect(try cuts(alone, request: 0, processors: 1) == cuts(crowd, request: 1, processors: 132))
    }

    @Test func everyBatchWithinTheBoundsFitsTheCapacity() throws {
        var random = SeededGenerator(seed: 7)
        for _ in 0..<600 {
            let batch = RandomBatch(using: &random)
            let capacity = try Planner.capacity(
                maximumRequests: batch.bounds.requests, maximumQueries: batch.bounds.queries,
                maximumRequestQueries: batch.bounds.requestQueries, maximumKeys: batch.bounds.keys,
                maximumBlocks: .init(Int32.max),
                shape: AttentionShape(
                    queryHeads: batch.batch.shape.queryHeads, kvHeads: batch.batch.shape.kvHeads, headDimQK: 128),
                traits: batch.traits, processors: batch.processors, mode: batch.mode)
            let plan = try Planner.plan(
                batch.batch.problem(), traits: batch.traits, processors: batch.processors, mode: batch.mode,
                capacity: capacity)
            checkCoverage(plan)
            #expect(plan.workspaceByteCount <= capacity.workspaceByteCount)
            let size = try Planner.measure(
                batch.batch.problem(), traits: batch.traits, processors: batch.processors, mode: batch.mode)
            #expect(size == plan.size)
        }
    }

    @Test func aPlanPastItsCapacitySaysWhatIsMissing() throws {
        let capacity = PlanSize(
            itemCount: 3, mergeCount: 9, partialRowCount: 900, headDimVO: 128, requestCount: 64, blockCount: 4096)
        #expect(throws: FlashInferError.capacityExceeded("work items", required: 512, capacity: 3)) {
            try Planner.plan(PlanCase.uniform.problem(), traits: gpuTraits, processors: 1, capacity: capacity)
        }
        #expect(
            throws: FlashInferError.invalidArgument("splitSize", found: "100", expected: "a positive multiple of 64")
        ) {
            try Planner.plan(
                PlanCase.uniform.problem(), traits: gpuTraits, processors: 1, mode: .batchInvariant(splitSize: 100))
        }
        #expect(
            throws: FlashInferError.invalidArgument(
                "processors", found: "\(Int.max) of 2 workers each", expected: "1048576 workers at most")
        ) {
            try Planner.plan(PlanCase.uniform.problem(), traits: queueTraits, processors: .max)
        }
        #expect(throws: FlashInferError.invalidArgument("processors", found: "0", expected: "1 or more")) {
            try Planner.plan(PlanCase.uniform.problem(), traits: gpuTraits, processors: 0)
        }
    }

    @Test func emptyBatchesAndRowsThatSeeNothing() throws {
        let empty = PlanCase(name: "empty", queries: [], keys: [])
        let plan = try Planner.plan(empty.problem(), traits: gpuTraits, processors: 4)
        #expect(plan.items.isEmpty && plan.itemIndptr == [0, 0, 0, 0, 0])
        // Rows of a request without keys still have an item, which writes their zeros.
        let blind = PlanCase(name: "no keys", queries: [3], keys: [0])
        let items = try Planner.plan(blind.problem(), traits: gpuTraits, processors: 4).items
        #expect(items.count == 8 && items.allSatisfy { $0.keyCount == 0 && $0.partialRow == -1 })
    }

    @Test func lengthsPastThirtyTwoBitsAreErrorsNotTraps() throws {
        let rows = PlanCase(name: "2^30 queries", queries: [1 << 30], keys: [1 << 30], shape: (32, 8))
        #expect(throws: FlashInferError.overflow("request 0's query rows × group")) {
            try Planner.plan(rows.problem(), traits: queueTraits, processors: 4)
        }
        let items = PlanCase(name: "2^28 queries", queries: [1 << 28], keys: [1], shape: (32, 32))
        let narrow = KernelTraits(
            tiles: [.init(maximumRows: .max, queryRows: 1, kvHeads: 1, fixedCost: 1, keyCost: 1, pairCost: 0)],
            kvGranularity: 1, minimumSplit: 1)
        #expect(throws: FlashInferError.overflow("the plan's items")) {
            try Planner.plan(items.problem(), traits: narrow, processors: 4)
        }
        let keys = PlanCase(name: "2^31 - 1 keys", queries: [1], keys: [Int(Int32.max)], shape: (8, 8))
        #expect(throws: FlashInferError.overflow("the plan's items")) {
            try Planner.plan(keys.problem(), traits: narrow, processors: 4, mode: .batchInvariant(splitSize: 1))
        }
        checkCoverage(try Planner.plan(keys.problem(), traits: gpuTraits, processors: 132))
        #expect(throws: FlashInferError.overflow("the plan's capacity")) {
            try Planner.capacity(
                maximumRequests: .init(Int32.max), maximumQueries: .init(Int32.max), maximumKeys: .init(Int32.max),
                maximumBlocks: 1, shape: AttentionShape(queryHeads: 65_536, kvHeads: 65_536, headDimQK: 1),
                traits: narrow, processors: 1, mode: .batchInvariant(splitSize: 1))
        }
    }

    @Test func planTimeFor256Requests() throws {
        let lengths = (0..<256).map { 500 + ($0 * 7919) % 3000 }
        let batch = PlanCase(name: "256", queries: .init(repeating: 1, count: 256), keys: lengths)
        let problem = try batch.problem()
        for (name, traits, processors) in [
            ("one item a request, 2 workers", cpuTraits, 2), ("an item a head, 132 workers", gpuTraits, 132),
        ] {
            var best = Duration.seconds(1)
            for _ in 0..<50 {
                let time = try ContinuousClock().measure {
                    _ = try Planner.plan(problem, traits: traits, processors: processors)
                }
                best = min(best, time)
            }
            print("plan of 256 requests, \(name): \(best)")
        }
    }
}
