import FlashInferCore
import TestSupport
import Testing

/// Queues whose items are taken two at a time.
@Suite struct PairedQueueTests {
    private static let traits = {
        var traits = QueueScheduleTests.traits
        traits.tiles[0].isPaired = true
        return traits
    }()

    /// The items that are taken together.
    private func pairs(_ items: [WorkItem]) -> [(first: WorkItem, second: WorkItem?)] {
        stride(from: 0, to: items.count, by: 2).map { (items[$0], $0 + 1 < items.count ? items[$0 + 1] : nil) }
    }

    @Test(arguments: QueueScheduleTests.causal)
    func neighboursComeTogether(_ batch: PlanCase) throws {
        let problem = try batch.problem()
        let plan = try Planner.plan(problem, traits: Self.traits, processors: 132, mode: .unsplit)
        checkCoverage(plan)
        let together = pairs(plan.items).count { pair in
            guard let second = pair.second else { return false }
            return second.request == pair.first.request && second.headStart == pair.first.headStart
                && second.rowStart + second.rowCount == pair.first.rowStart
        }
        if problem.variant.windowLeft == nil {
            let expected = batch.queries.reduce(0) { $0 + ($1 * problem.shape.group + 127) / 128 / 2 }
            #expect(together == expected * problem.shape.kvHeads)
        }
        // Else heads of one row tile are together, which take equally long.
        let uneven = pairs(plan.items).count { pair in
            pair.second.map { abs($0.keyCount - pair.first.keyCount) > 128 } ?? true
        }
        #expect(uneven <= 1 + batch.queries.count)
    }

    @Test(arguments: QueueScheduleTests.causal)
    func theItemsAreThoseOfOtherQueues(_ batch: PlanCase) throws {
        let problem = try batch.problem()
        let paired = try Planner.plan(problem, traits: Self.traits, processors: 132, mode: .unsplit)
        let other = try Planner.plan(problem, traits: QueueScheduleTests.traits, processors: 132, mode: .unsplit)
        #expect(Set(paired.items) == Set(other.items))
        #expect(paired.items.count == other.items.count)
    }

    @Test(arguments: QueueScheduleTests.causal, [132, 264])
    func theOrderEndsAsEvenlyAsWithoutPairs(_ batch: PlanCase, workers: Int) throws {
        let problem = try batch.problem()
        let other = try Planner.plan(problem, traits: QueueScheduleTests.traits, processors: workers)
        let single = QueueSimulation(other.items, QueueScheduleTests.traits, workers: workers).makespan
        let plan = try Planner.plan(problem, traits: Self.traits, processors: workers)
        let longest = pairs(plan.items).map { pair in
            pair.second.map { $0.keyCount > pair.first.keyCount ? $0 : pair.first } ?? pair.first
        }
        let paired = QueueSimulation(longest, Self.traits, workers: workers / 2).makespan
        #expect(paired <= 1.06 * single, "\(paired / single)")
    }

    /// Parts of neighbouring tiles that are cut alike have the same keys.
    @Test func cutNeighboursShareKeys() throws {
        let problem = try PlanCase(name: "few", queries: [512], keys: [131_072], variant: .full).problem()
        let plan = try Planner.plan(problem, traits: Self.traits, processors: 264)
        checkCoverage(plan)
        #expect(!plan.merges.isEmpty)
        for pair in pairs(plan.items) {
            #expect(pair.second?.keyStart == pair.first.keyStart && pair.second?.keyCount == pair.first.keyCount)
            #expect(pair.second?.headStart == pair.first.headStart)
        }
    }

    /// Documents begin where they like: tiles that begin at other keys are with another head's of the same rows.
    @Test(arguments: [[1000, 24, 2000, 72], [128, 128, 256, 384], [4000], [65, 65, 65, 65, 700]], [2, 4])
    func documentsAreTogetherWhereTheyBeginTogether(lengths: [Int], heads: Int) throws {
        let ids = Parameter<Int32>("ids", .perPosition)
        let elements = lengths.enumerated().flatMap { [Int32](repeating: Int32($0), count: $1) }
        let count = Int32(elements.count)
        let problem = try AttentionProblem(
            geometry: .ragged(queryIndptr: [0, count], kvIndptr: [0, count]),
            shape: AttentionShape(queryHeads: heads, kvHeads: heads, headDimQK: 128),
            variant: AttentionVariant("documents", mask: .causal && .documents(ids)), queryType: .bfloat16,
            kvType: .bfloat16, parameters: ["ids": ParameterValue(elements)])
        let plan = try Planner.plan(problem, traits: Self.traits, processors: 132, mode: .unsplit)
        let other = try Planner.plan(problem, traits: QueueScheduleTests.traits, processors: 132, mode: .unsplit)
        #expect(Set(plan.items) == Set(other.items) && plan.items.count == other.items.count)
        for pair in pairs(plan.items) {
            let second = try #require(pair.second)
            #expect(second.keyStart == pair.first.keyStart)
            #expect(abs(second.keyCount - pair.first.keyCount) <= 128)
        }
    }

    /// What has no neighbour waits for what has none either, so that all others stay together.
    @Test func oddTilesMeet() throws {
        let batch = PlanCase(name: "odd", queries: [384, 384, 640], keys: [384, 384, 640], shape: (1, 1))
        let plan = try Planner.plan(batch.problem(), traits: Self.traits, processors: 2, mode: .unsplit)
        let rows = pairs(plan.items).map { [$0.first.rowStart / 128, $0.second.map { $0.rowStart / 128 } ?? -1] }
        #expect(rows.count { $0[0] - $0[1] == 1 && $0[1] >= 0 && $0[0] > 0 } == 4)
        #expect(rows.filter { $0[0] == 0 } == [[0, 0], [0, -1]])
    }
}
