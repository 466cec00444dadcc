import FlashInferCore
import TestSupport
import Testing

/// What workers' lists look like: level, and cut no more than that takes.
@Suite struct ListScheduleTests {
    private func decode(_ lengths: [Int]) -> PlanCase {
        PlanCase(name: "decode", queries: .init(repeating: 1, count: lengths.count), keys: lengths)
    }

    @Test(arguments: [1, 2, 4])
    func largeBatchesAreLevel(workersPerProcessor: Int) throws {
        var traits = gpuTraits
        traits.workersPerProcessor = workersPerProcessor
        var random = SeededGenerator(seed: 3)
        for requests in [64, 100, 256] {
            for _ in 0..<10 {
                let batch = decode((0..<requests).map { _ in Int.random(in: 500...9000, using: &random) })
                let plan = try Planner.plan(batch.problem(), traits: traits, processors: 132)
                let loads = loads(plan)
                #expect(loads.count == 132 * workersPerProcessor)
                let mean = loads.reduce(0, +) / Float(loads.count)
                // With fewer tiles than workers every share ends inside a tile, where a part may be too short to cut off.
                let isSmall = 8 * requests < loads.count
                let bound = 1.05 * mean + Float(traits.kvGranularity + (isSmall ? traits.minimumSplit / 2 : 0))
                #expect(loads.max()! <= bound, "\(loads.max()! / mean)")
                #expect(plan.merges.count < loads.count)
            }
        }
    }

    /// Two partial states a worker at most: the end of one tile, the start of another.
    @Test func workersHaveTwoPartsAtMost() throws {
        var random = SeededGenerator(seed: 4)
        for _ in 0..<20 {
            let batch = decode((0..<100).map { _ in Int.random(in: 0...20_000, using: &random) })
            let plan = try Planner.plan(batch.problem(), traits: gpuTraits, processors: 132)
            for worker in 0..<132 {
                let list = plan.items[Int(plan.itemIndptr[worker])..<Int(plan.itemIndptr[worker + 1])]
                #expect(list.count { $0.merge >= 0 } <= 2)
                #expect(list.dropFirst().dropLast().allSatisfy { $0.merge < 0 })
            }
        }
    }

    /// Whole tiles, in equal numbers, where the imbalance of that is at most 1/32 or what starting an item costs.
    @Test(arguments: [(16, 128, 1), (33, 132, 2), (64, 264, 2), (256, 264, 8), (256, 528, 4), (66, 528, 1)])
    func uniformBatchesAreNotCut(requests: Int, workers: Int, most: Int) throws {
        let plan = try Planner.plan(
            decode(.init(repeating: 4096, count: requests)).problem(), traits: gpuTraits, processors: workers)
        #expect(plan.merges.isEmpty)
        let counts = zip(plan.itemIndptr, plan.itemIndptr.dropFirst()).map { $1 - $0 }
        #expect(counts.max()! == most && counts.min()! >= most - 1)
    }

    @Test func uniformBatchesOnOddNumbersOfWorkersAreCut() throws {
        // 136 tiles on 132 workers: whole tiles would take twice as long as they need.
        let plan = try Planner.plan(
            decode(.init(repeating: 4096, count: 17)).problem(), traits: gpuTraits, processors: 132)
        let mean = loads(plan).reduce(0, +) / 132
        #expect(loads(plan).max()! <= 1.05 * mean)
    }

    /// One request of 1,024 keys and 8 heads: as many workers as the shortest part allows.
    @Test(arguments: [(64, 128), (128, 64), (256, 32), (1024, 8)])
    func aSingleRequestSpreads(minimumSplit: Int, items: Int) throws {
        var traits = gpuTraits
        traits.minimumSplit = minimumSplit
        let plan = try Planner.plan(decode([1024]).problem(), traits: traits, processors: 264)
        #expect(plan.items.count == items)
        #expect(loads(plan).count { $0 > 0 } == items)
        #expect(plan.items.allSatisfy { $0.keyCount >= minimumSplit })
        // The first blocks of a launch start on different processors, so they are the ones to have work.
        #expect(loads(plan)[..<items].allSatisfy { $0 > 0 })
    }

    @Test func aSingleLongRequestUsesAllWorkers() throws {
        for (keys, workers) in [(131_072, 132), (131_072, 264), (100_003, 528), (9000, 264)] {
            let plan = try Planner.plan(decode([keys]).problem(), traits: gpuTraits, processors: workers)
            // Beside the first part, each pays for one start, and is cut at a granule.
            let least = Float(8 * keys) / Float(workers) * (33 / 32) + 2 * 128 + 64
            #expect(loads(plan).max()! <= max(least, 128 + 128 + 64), "\(keys) keys, \(workers) workers")
        }
    }

    @Test func noPartIsShorterThanTheMinimum() throws {
        var random = SeededGenerator(seed: 5)
        for _ in 0..<100 {
            let batch = RandomBatch(using: &random)
            let plan = try Planner.plan(batch.batch.problem(), traits: batch.traits, processors: batch.processors)
            for item in plan.items where item.merge >= 0 {
                #expect(item.keyCount >= batch.traits.minimumSplit)
                let end = item.keyStart + item.keyCount
                let isLast = !plan.items.contains {
                    $0.merge == item.merge && $0.keyStart > item.keyStart
                }
                #expect(isLast || Int(end) % batch.traits.kvGranularity == 0)
            }
        }
    }
}
