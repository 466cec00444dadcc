import FlashInfer
import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Batches over several levels of shared prefixes on the GPU, against the plain batch's oracle.
@Suite(.enabled(if: GPU.isPresent, GPU.absence)) struct CUDACascadeTests {
    @Test(arguments: CascadeFixture.Case.gpu) func levels(_ test: CascadeFixture.Case) throws {
        try checkCascade(test, on: GPU.device, modes: [.balanced, .unsplit, .batchInvariant(splitSize: 128)])
    }
}

/// A few small cases, for compute-sanitizer and an emulated GPU.
@Suite(.enabled(if: GPU.isPresent, GPU.absence)) struct ReducedCUDACascadeTests {
    @Test(arguments: CascadeFixture.Case.gpuReduced) func reduced(_ test: CascadeFixture.Case) throws {
        try checkCascade(test, on: GPU.device, modes: [.balanced])
    }

    /// One captured graph for trees that change, a batch with nothing shared among them.
    @Test func reducedReplay() throws {
        let device = try GPU.makeDevice()
        let fixtures = try [(9, 3), (16, 4), (3, 5)].map { sequences, seed in
            try CascadeFixture(
                .init(
                    queryType: .bfloat16, cacheType: .bfloat16, headDim: 64, kvHeads: 2, group: 4, pageSize: 16,
                    sequences: sequences, seed: UInt64(seed)))
        }
        let problems = try fixtures.map { try $0.composed }
        let capacity = try Planner.capacity(
            maximumRequests: 60, maximumQueries: 16, maximumKeys: 500, maximumBlocks: 300, maximumLevels: 3,
            shape: problems[0].shape, traits: device.kernelTraits(for: problems[0]),
            processors: device.limits.processors)
        // Graphs read the tensors that they were captured with, so each fixture's has one of its own, in one workspace.
        let all = try fixtures.map { try $0.upload(to: device) }
        let workspace = try all[0].workspace(for: capacity)
        func plan(_ problem: AttentionProblem) throws -> Plan {
            try Planner.plan(
                problem, traits: device.kernelTraits(for: problem), processors: device.limits.processors,
                capacity: capacity)
        }
        let first = try all[0].operation(plan(problems[0]), in: workspace, capacity: capacity)
        try device.run(.attention(first))
        try device.synchronize()
        let graph = try #require(
            try device.capture { () throws(FlashInferError) in try device.execute(.attention(first)) })
        for (index, fixture) in fixtures.enumerated() {
            // Eagerly, and then the first again by the graph.
            try all[index].poison()
            try device.run(
                .attention(all[index].operation(plan(problems[index]), in: workspace, capacity: capacity)))
            try expect(all[index].results(), fixture)
            try all[0].poison()
            try device.prepare(plan(problems[0]), capacity: capacity, in: workspace.view.region)
            try graph.replay()
            try expect(all[0].results(), fixtures[0])
        }
        try workspace.download()
    }

    private func expect(_ found: AttentionResult, _ fixture: CascadeFixture) throws {
        let mismatch = AttentionTolerance(products: fixture.test.queryType)
            .mismatch(found, fixture.oracle.evaluate(), fixture.plain)
        #expect(mismatch == nil, "\(fixture)")
    }
}

/// Runs a tree's levels, and what is found of them in the page table, and compares both with the oracle.
func checkCascade(_ test: CascadeFixture.Case, on device: CUDADevice, modes: [Planner.Mode]) throws {
    let fixture = try CascadeFixture(test)
    let expected = fixture.oracle.evaluate()
    let buffers = try fixture.upload(to: device)
    let tolerance = AttentionTolerance(products: test.queryType)
    for mode in modes {
        for processors in [nil, 3] {
            let found = try buffers.run(fixture.composed, mode: mode, processors: processors).result
            let mismatch = tolerance.mismatch(found, expected, fixture.plain)
            #expect(mismatch == nil, "\(mode) on \(processors.map { "\($0)" } ?? "all") processors: \(test)")
        }
    }
    let cascade = try Cascade.discover(fixture.plain, on: device)
    let mismatch = try tolerance.mismatch(buffers.run(cascade.problem).result, expected, fixture.plain)
    #expect(mismatch == nil, "discovered: \(test)")
}
