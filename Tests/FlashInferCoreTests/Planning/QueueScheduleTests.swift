import FlashInferCore
import TestSupport
import Testing

/// What queues look like: an order that ends evenly and shares keys, and cuts where there are too few items.
@Suite struct QueueScheduleTests {
    static let traits = KernelTraits(
        tiles: [
            .init(
                maximumRows: .max, queryRows: 128, kvHeads: 1, fixedCost: 64, keyCost: 0.25, pairCost: 0.75 / 128,
                schedule: .queue)
        ], kvGranularity: 64, minimumSplit: 64)

    static let causal: [PlanCase] = [
        PlanCase(name: "1 x 16k, 32 heads", queries: [16_384], keys: [16_384], shape: (32, 32)),
        PlanCase(name: "1 x 16k, 8 heads", queries: [16_384], keys: [16_384]),
        PlanCase(name: "1 x 16k, 7 heads", queries: [16_384], keys: [16_384], shape: (28, 7)),
        PlanCase(name: "1 x 4k", queries: [4096], keys: [4096]),
        PlanCase(
            name: "4 x 4k", queries: .init(repeating: 4096, count: 4), keys: .init(repeating: 4096, count: 4)),
        PlanCase(
            name: "16 x 1k", queries: .init(repeating: 1024, count: 16), keys: .init(repeating: 1024, count: 16)),
        PlanCase(
            name: "mixed", queries: [100, 16_384, 900, 3000, 64, 7000, 30],
            keys: [100, 16_384, 900, 3000, 64, 7000, 30]),
        PlanCase(
            name: "one long among short", queries: [16_384] + .init(repeating: 200, count: 40),
            keys: [16_384] + .init(repeating: 200, count: 40)),
        PlanCase(
            name: "window", queries: [16_384], keys: [16_384],
            variant: AttentionVariant(mask: .causal, windowLeft: 1024)),
    ]

    @Test(arguments: causal, [132, 264, 528])
    func theOrderEndsAsEvenlyAsTheBest(_ batch: PlanCase, workers: Int) throws {
        let items = try Planner.plan(batch.problem(), traits: Self.traits, processors: workers, mode: .unsplit).items
        let ours = QueueSimulation(items, Self.traits, workers: workers)
        let others = QueueOrder.allCases.map {
            QueueSimulation($0.sorted(items, Self.traits), Self.traits, workers: workers)
        }
        let best = others.map(\.makespan).min()!
        #expect(ours.makespan <= 1.03 * best, "\(ours.makespan / best)")
        // Longest first over the whole batch needs all keys at once.
        let most = others.map(\.keysInFlight).max()!
        let bound = max(2 * Float64(Self.traits.cachedKeys), Float64(3 * workers / 128 + 2) * 16_384)
        #expect(ours.keysInFlight <= min(bound, 1.01 * most), "\(ours.keysInFlight) keys in flight")
    }

    @Test func manyItemsAreNotCut() throws {
        for batch in Self.causal {
            let plan = try Planner.plan(batch.problem(), traits: Self.traits, processors: 64)
            #expect(plan.merges.isEmpty)
        }
    }

    /// 4,096 equal items are 31 for each of 132 workers, and 4 more.
    @Test(arguments: [(4, 4096), (16, 1024)], [false, true])
    func aLastRoundOfEqualItemsIsCut(_ batch: (requests: Int, length: Int), isPaired: Bool) throws {
        var traits = Self.traits
        traits.tiles[0].isPaired = isPaired
        let lengths = [Int](repeating: batch.length, count: batch.requests)
        let problem = try PlanCase(name: "full", queries: lengths, keys: lengths, variant: .full, shape: (32, 32))
            .problem()
        let plan = try Planner.plan(problem, traits: traits, processors: 132)
        checkCoverage(plan)
        #expect(plan.merges.count == 4)
        #expect(plan.items.dropLast(plan.items.count - 4092).allSatisfy { $0.merge < 0 })
        let queue = QueueSimulation(plan.items, traits, workers: 132)
        #expect(queue.makespan <= 1.01 * queue.ideal, "\(queue.makespan / queue.ideal)")
        // Parts that cost more to merge than they save.
        traits.mergeTime = 1e4
        #expect(try Planner.plan(problem, traits: traits, processors: 132).merges.isEmpty)
    }

    /// 1,376 items, of which 32 have two thirds of the others' rows, are 10.4 for each of 132 workers: the last round is cut where what it is
    /// too long for counts, and not where workers differ by as much anyway, or merges cost more.
    @Test func aLastRoundOfNearlyEqualItemsIsCut() throws {
        var traits = Self.traits
        (traits.tiles[0].queryRows, traits.tiles[0].pairCost) = (192, 0.75 / 192)
        let problem = try PlanCase(name: "full", queries: [8192], keys: [8192], variant: .full, shape: (32, 32))
            .problem()
        let uncut = try Planner.plan(problem, traits: traits, processors: 132, mode: .unsplit)
        let before = QueueSimulation(uncut.items, traits, workers: 132)
        #expect(before.makespan > 1.05 * before.ideal)
        func plan(paceSpread: Float, mergeTime: Float) throws -> Plan {
            (traits.paceSpread, traits.mergeTime) = (paceSpread, mergeTime)
            let plan = try Planner.plan(problem, traits: traits, processors: 132)
            checkCoverage(plan)
            #expect(plan.items.count { $0.merge >= 0 } <= 3 * 132)
            return plan
        }
        let cut = try plan(paceSpread: 0, mergeTime: 0)
        #expect(QueueSimulation(cut.items, traits, workers: 132).makespan < 1.02 * before.ideal)
        // Fewer parts where each costs something.
        let dear = try plan(paceSpread: 0.02, mergeTime: 2)
        #expect(!dear.merges.isEmpty && dear.items.count < cut.items.count)
        #expect(QueueSimulation(dear.items, traits, workers: 132).makespan < 1.03 * before.ideal)
        #expect(try plan(paceSpread: 0.1, mergeTime: 0).merges.isEmpty)
        #expect(try plan(paceSpread: 0, mergeTime: 1e3).merges.isEmpty)
    }

    /// Rows that whole tiles leave over are a request's first under a causal mask: the tile with the fewest keys is the short one.
    @Test func leftOverRowsSeeTheFewestKeys() throws {
        var traits = Self.traits
        (traits.tiles[0].queryRows, traits.tiles[0].stageKeys) = (192, 128)
        func tiles(_ length: Int, _ variant: AttentionVariant, shape: (Int, Int) = (1, 1)) throws -> [[Int32]] {
            let batch = PlanCase(name: "rest", queries: [length], keys: [length], variant: variant, shape: shape)
            let plan = try Planner.plan(batch.problem(), traits: traits, processors: 1, mode: .unsplit)
            checkCoverage(plan)
            return plan.items.map { [$0.rowStart, $0.rowCount] }.sorted { $0[0] < $1[0] }
        }
        #expect(try tiles(1024, .causal).prefix(2) == [[0, 64], [64, 192]])
        #expect(try tiles(1024, .full).suffix(2) == [[768, 192], [960, 64]])
        // Tiles would all end a few keys later in their last stages than they do now.
        #expect(try tiles(384 + 130, .causal).last == [384, 130])
        #expect(try tiles(384, .causal) == [[0, 192], [192, 192]])
        #expect(try tiles(100, .causal) == [[0, 100]])
        #expect(try tiles(1024, AttentionVariant(mask: .causal, windowLeft: 128)).first == [0, 192])
        traits.tiles[0].queryRows = 128
        #expect(try tiles(1000, .causal).last == [896, 104])
        traits.tiles[0].stageKeys = nil
        traits.tiles[0].queryRows = 192
        #expect(try tiles(1024, .causal).last == [960, 64])
    }

    /// Without cuts these end 1.36 to 4.1 times later than the mean load; cuts bring all within 7 % of it.
    @Test(arguments: [
        ([2200], [2200], 132), ([2200], [2200], 264), ([4500], [4500], 264), ([4500], [4500], 528),
        ([1536], [32_768], 264), ([1536], [32_768], 528), ([512], [131_072], 264), ([512], [131_072], 528),
    ])
    func tooFewItemsAreCut(_ queries: [Int], _ keys: [Int], workers: Int) throws {
        let variant: AttentionVariant = queries == keys ? .full : .causal
        let problem = try PlanCase(name: "few", queries: queries, keys: keys, variant: variant).problem()
        let plan = try Planner.plan(problem, traits: Self.traits, processors: workers)
        checkCoverage(plan)
        let uncut = try Planner.plan(problem, traits: Self.traits, processors: workers, mode: .unsplit)
        let ideal = QueueSimulation(uncut.items, Self.traits, workers: workers).ideal
        let makespan = QueueSimulation(plan.items, Self.traits, workers: workers).makespan
        #expect(makespan <= 1.07 * ideal, "\(makespan / ideal)")
        #expect(plan.items.count { $0.merge >= 0 } <= 3 * workers)
    }

    @Test func cutsNeverMakeItLater() throws {
        var random = SeededGenerator(seed: 11)
        for _ in 0..<100 {
            let lengths = (0..<Int.random(in: 1...4, using: &random)).map { _ in
                Int.random(in: 1...1500, using: &random)
            }
            let batch = PlanCase(
                name: "random", queries: lengths, keys: lengths.map { $0 + Int.random(in: 0...4000, using: &random) })
            for workers in [16, 132, 264] {
                let plan = try Planner.plan(batch.problem(), traits: Self.traits, processors: workers)
                let uncut = try Planner.plan(
                    batch.problem(), traits: Self.traits, processors: workers, mode: .unsplit)
                let makespan = QueueSimulation(plan.items, Self.traits, workers: workers).makespan
                let before = QueueSimulation(uncut.items, Self.traits, workers: workers).makespan
                #expect(makespan <= 1.005 * before, "\(lengths): \(makespan / before)")
            }
        }
    }

    /// Fixed cuts change neither the order of the tiles nor the grouping by tile.
    @Test func allModesHaveTheSameOrder() throws {
        let batch = PlanCase(name: "mixed", queries: [700, 1, 12, 3, 16, 2000], keys: [700, 900, 500, 4000, 16, 9000])
        func tiles(_ mode: Planner.Mode) throws -> [[Int32]] {
            let plan = try Planner.plan(batch.problem(), traits: queueTraits, processors: 4, mode: mode)
            return plan.queue.map { plan.items[$0] }.reduce(into: []) { tiles, item in
                let tile = [item.tile, item.request, item.headStart, item.rowStart]
                if tiles.last != tile { tiles.append(tile) }
            }
        }
        let unsplit = try tiles(.unsplit)
        #expect(try tiles(.batchInvariant(splitSize: 512)) == unsplit)
        #expect(try tiles(.balanced) == unsplit)
        #expect(Set(unsplit.map { $0[0] }) == [1, 2])
    }

    @Test func longestItemsComeFirstWithinASection() throws {
        let plan = try Planner.plan(
            PlanCase(name: "fits the cache", queries: [300, 1000], keys: [1500, 1000]).problem(),
            traits: Self.traits, processors: 8)
        let costs = plan.items.map { Self.traits.cost($0) }
        #expect(zip(costs, costs.dropFirst()).allSatisfy { $0 >= $1 })
    }
}
