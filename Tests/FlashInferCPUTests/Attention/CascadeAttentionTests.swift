import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

/// Batches over several levels of shared prefixes, against the plain batch's oracle.
@Suite struct CascadeAttentionTests {
    @Test(arguments: CascadeFixture.Case.random) func levelsEqualThePlainBatch(_ test: CascadeFixture.Case) throws {
        let fixture = try CascadeFixture(test)
        let expected = fixture.oracle.evaluate()
        let devices = AttentionConformanceTests.devices
        let device = devices[Int(test.seed) % devices.count]
        let buffers = try fixture.upload(to: device)
        for mode in [Planner.Mode.balanced, .unsplit, .batchInvariant(splitSize: 128)] {
            let (found, plan) = try buffers.run(fixture.composed, mode: mode, processors: 1 + Int(test.seed) % 3)
            expectClose(found, expected, fixture.plain, device)
            #expect(plan.merges.isEmpty)
        }
    }

    /// What is found in the page table alone, however much of it is split off.
    @Test(arguments: CascadeFixture.Case.random) func discoveredTreesEqualThePlainBatch(
        _ test: CascadeFixture.Case
    ) throws {
        let fixture = try CascadeFixture(test)
        let expected = fixture.oracle.evaluate()
        let device = AttentionConformanceTests.devices[0]
        let buffers = try fixture.upload(to: device)
        var traits = try device.kernelTraits(for: fixture.plain)
        // Sharing that costs nothing, so that everything is shared.
        for tile in traits.tiles.indices { traits.tiles[tile].fixedCost = 0 }
        traits.stateTime = 0
        for levels in [2, 4] {
            let cascade = try Cascade.discover(
                fixture.plain, traits: traits, processors: 2, maximumLevels: levels, isPadded: test.seed % 2 == 0)
            if test.seed % 2 == 0 { #expect(cascade.problem.geometry.levelCount == levels) }
            expectClose(try buffers.run(cascade.problem).result, expected, fixture.plain, device)
        }
    }

    /// Capacities hold whatever trees there are, and a workspace of one takes them in turn.
    @Test func oneWorkspaceForManyTrees() throws {
        let device = AttentionConformanceTests.devices[0]
        var fixtures: [CascadeFixture] = []
        for seed in 0..<12 {
            let test = CascadeFixture.Case(
                levels: 2 + seed % 3, sequences: 1 + seed, queries: seed % 4 == 3 ? 3 : 1, nodePages: 20,
                seed: UInt64(seed))
            fixtures.append(try CascadeFixture(test))
        }
        let problem = try fixtures[0].composed
        for mode in [Planner.Mode.balanced, .batchInvariant(splitSize: 128)] {
            let capacity = try Planner.capacity(
                maximumRequests: 60, maximumQueries: 40, maximumKeys: 400, maximumBlocks: 400, maximumLevels: 4,
                shape: problem.shape, traits: device.kernelTraits(for: problem), processors: 2, mode: mode)
            for fixture in fixtures {
                let buffers = try fixture.upload(to: device)
                let workspace = try buffers.workspace(for: capacity)
                let problem = try fixture.composed
                let plan = try Planner.plan(
                    problem, traits: device.kernelTraits(for: problem), processors: 2, mode: mode, capacity: capacity)
                let measured = try Planner.measure(
                    problem, traits: device.kernelTraits(for: problem), processors: 2, mode: mode)
                #expect(plan.size == measured)
                try buffers.poison()
                let operation = try buffers.operation(plan, in: workspace, capacity: capacity)
                try operation.validate()
                try device.execute(.attention(operation))
                expectClose(try buffers.results(), fixture.oracle.evaluate(), fixture.plain, device)
            }
        }
    }
}
