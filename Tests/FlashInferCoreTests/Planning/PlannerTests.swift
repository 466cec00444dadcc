import FlashInferCore
import TestSupport
import Testing

@Suite struct PlannerTests {
    static let cases: [PlanCase] = [.skewed, .uniform, .zipf, .prefill, .window]

    @Test(arguments: cases, [1, 2, 132])
    func everyKeyIsCoveredOnce(_ batch: PlanCase, processors: Int) throws {
        for traits in [gpuTraits, cpuTraits] {
            for mode in [Planner.Mode.balanced, .unsplit, .batchInvariant(splitSize: 2048)] {
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
            let first = try Planner.plan(batch.problem(), traits: gpuTraits, processors: 132)
            let second = try Planner.plan(batch.problem(), traits: gpuTraits, processors: 132)
            #expect(first == second)
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
        for _ in 0..<200 {
            let (requests, queries, keys) = (
                Int.random(in: 1...40, using: &random), Int.random(in: 1...2000, using: &random),
                Int.random(in: 1...20_000, using: &random)
            )
            let processors = [1, 2, 7, 132].randomElement(using: &random)!
            let mode = [Planner.Mode.balanced, .unsplit, .batchInvariant(splitSize: 1024)].randomElement(
                using: &random)!
            let traits = Bool.random(using: &random) ? gpuTraits : cpuTraits
            let capacity = try Planner.capacity(
                maximumRequests: requests, maximumQueries: queries, maximumKeys: keys, maximumBlocks: .init(Int32.max),
                shape: AttentionShape(queryHeads: 32, kvHeads: 8, headDimQK: 128), traits: traits,
                processors: processors, mode: mode)
            var left = queries
            let lengths = (0..<Int.random(in: 1...requests, using: &random)).map { _ in
                let length = Int.random(in: 0...min(left, 600), using: &random)
                left -= length
                return length
            }
            let batch = PlanCase(
                name: "random", queries: lengths, keys: lengths.map { _ in Int.random(in: 0...keys, using: &random) })
            let plan = try Planner.plan(
                batch.problem(), traits: traits, processors: processors, mode: mode, capacity: capacity)
            checkCoverage(plan)
            #expect(plan.workspaceByteCount <= capacity.workspaceByteCount)
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
