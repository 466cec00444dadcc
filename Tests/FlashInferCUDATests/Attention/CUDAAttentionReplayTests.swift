import FlashInfer
import FlashInferCUDA
import TestSupport
import Testing

/// One workspace and one captured graph for batches that change.
@Suite(.enabled(if: GPU.isPresent, GPU.absence)) struct CUDAAttentionReplayTests {
    /// The first has the most query rows; later ones have other lengths, fewer requests, none with keys.
    static let batches: [[[(Int, Int)]]] = [
        [
            [(1, 900), (1, 3), (1, 40), (1, 2000)], [(1, 1), (1, 1500), (1, 700), (1, 16)], [(1, 10), (0, 0), (1, 0)],
            [(1, 4000)], [(1, 2000), (1, 40), (1, 3), (1, 900)],
        ],
        [
            [(40, 300), (1, 900), (7, 7)], [(1, 50), (20, 640), (27, 100)], [(48, 1000)], [(2, 700), (1, 5), (30, 9)],
            [(0, 3)],
        ],
    ]

    /// All features with the first types, one with all types: each kernel takes a second to compile.
    static func features(_ types: Int) -> [AttentionCase.Feature] {
        types == 0 ? [.causal, .causalWindow, .cap, .alibi, .ropeHalf, .sinks] : [.causal]
    }

    static func cases(_ batch: Int, _ types: Int, _ feature: AttentionCase.Feature) -> [AttentionCase] {
        let (query, cache) = AttentionCase.gpuTypes[types]
        return batches[batch].map {
            AttentionCase(
                queryType: query, cacheType: cache, layout: .combinedNHD, feature: feature, dimQK: 128, group: 4,
                lengths: $0, poolPages: 600, seed: 2)
        }
    }

    /// Room for every batch of a list.
    static func capacity(_ fixtures: [AttentionFixture], on device: CUDADevice) throws -> PlanSize {
        try Planner.capacity(
            maximumRequests: 6, maximumQueries: 48, maximumKeys: 4096, maximumBlocks: 600,
            shape: fixtures[0].problem.shape, traits: device.kernelTraits(for: fixtures[0].problem),
            processors: device.limits.processors)
    }

    @Test(arguments: batches.indices, AttentionCase.gpuTypes.indices)
    func capturedGraphRunsNewPlans(_ batch: Int, _ types: Int) throws {
        for feature in Self.features(types) {
            try replay(Self.cases(batch, types, feature), on: GPU.makeDevice())
        }
    }

    private func replay(_ tests: [AttentionCase], on device: CUDADevice) throws {
        let fixtures = try tests.map { try AttentionFixture($0) }
        let capacity = try Self.capacity(fixtures, on: device)
        let buffers = try AttentionBuffers(fixtures[0], on: device)
        let workspace = try buffers.workspace(for: capacity)
        let graph = try captured(buffers, in: workspace, capacity: capacity, on: device)
        for fixture in fixtures + [fixtures[0]] {
            try buffers.load(fixture)
            try buffers.poisonResults()
            let plan = try buffers.plan(capacity: capacity)
            try device.prepare(plan, capacity: capacity, in: workspace.view.region)
            try graph.replay()
            let found = try buffers.results()
            try expect(found, fixture)
            // Nothing changed, so nothing changes.
            try graph.replay()
            #expect(try buffers.results() == found, "\(fixture.test)")
        }
        try workspace.download()
    }

    /// Plans prepared one after another, ahead of the GPU: each replay sees its own.
    @Test func plansMayBePreparedAhead() throws {
        let device = try GPU.makeDevice()
        let fixtures = try Self.cases(0, 0, .causal).map { try AttentionFixture($0) }
        let capacity = try Self.capacity(fixtures, on: device)
        let first = try AttentionBuffers(fixtures[0], on: device)
        // One batch's buffers and workspace each, so that all are in flight before any is looked at.
        let all = try fixtures.map { try AttentionBuffers($0, on: device) }
        let workspace = try first.workspace(for: capacity)
        for round in 0..<8 {
            for buffers in all { try buffers.poisonResults() }
            for buffers in all {
                let plan = try buffers.plan(capacity: capacity)
                try device.prepare(plan, capacity: capacity, in: workspace.view.region)
                try device.run(.attention(buffers.operation(plan, in: workspace, capacity: capacity)))
            }
            for buffers in all { try expect(buffers.results(), buffers.fixture, "round \(round)") }
        }
    }

    @Test(arguments: batches.indices, [true, false])
    func plannedAttention(_ batch: Int, _ isBounded: Bool) throws {
        let device = try GPU.makeDevice()
        let fixtures = try Self.cases(batch, 0, .causal).map { try AttentionFixture($0) }
        let capacity = try Self.capacity(fixtures, on: device)
        let buffers = try AttentionBuffers(fixtures[0], on: device)
        let scratch = try buffers.workspace(for: capacity)
        var attention = try PlannedAttention(
            fixtures[0].problem, on: device, capacity: isBounded ? capacity : nil)
        for fixture in fixtures {
            try buffers.load(fixture)
            try buffers.poisonResults()
            try attention.replan(fixture.problem)
            let tensors = try buffers.operation(attention.plan, in: scratch)
            try attention.run(
                tensors.queries, tensors.cache, into: tensors.output, logSumExp: tensors.logSumExp)
            try expect(buffers.results(), fixture)
        }
        // The plan for more than the capacity is refused, and the one in force stays.
        guard isBounded else { return }
        var large = fixtures[0].test
        large.lengths = .init(repeating: (1, 5), count: 300)
        let problem = try AttentionFixture(large).problem
        #expect(throws: FlashInferError.self) { try attention.replan(problem) }
        #expect(attention.plan.problem == fixtures[fixtures.count - 1].problem)
    }

    private func expect(_ found: AttentionResult, _ fixture: AttentionFixture, _ note: String = "") throws {
        let mismatch = AttentionTolerance(products: fixture.test.queryType)
            .mismatch(found, fixture.oracle.evaluate(), fixture.problem)
        #expect(mismatch == nil, "\(fixture.test) \(note)")
    }
}

/// A graph of attention on these buffers, for plans that fit the capacity.
private func captured(
    _ buffers: AttentionBuffers, in workspace: DeviceTensor, capacity: PlanSize, on device: CUDADevice
) throws -> any DeviceGraph {
    let plan = try buffers.plan(capacity: capacity)
    let operation = try buffers.operation(plan, in: workspace, capacity: capacity)
    try device.prepare(plan, capacity: capacity, in: workspace.view.region)
    // Once outside the graph, so that kernels are loaded.
    try device.run(.attention(operation))
    try device.synchronize()
    return try #require(
        try device.capture { () throws(FlashInferError) in try device.execute(.attention(operation)) })
}

/// One replay, for compute-sanitizer.
@Suite(.enabled(if: GPU.isPresent, GPU.absence)) struct ReducedCUDAAttentionReplayTests {
    @Test func reducedReplay() throws {
        let device = try GPU.makeDevice()
        let fixtures = try [[(1, 300), (6, 40)], [(4, 90), (1, 200)]].map {
            try AttentionFixture(
                AttentionCase(
                    queryType: .bfloat16, cacheType: .bfloat16, feature: .causal, dimQK: 64, group: 4, lengths: $0,
                    poolPages: 60))
        }
        let capacity = try CUDAAttentionReplayTests.capacity(fixtures, on: device)
        let buffers = try AttentionBuffers(fixtures[0], on: device)
        let workspace = try buffers.workspace(for: capacity)
        let graph = try captured(buffers, in: workspace, capacity: capacity, on: device)
        for fixture in fixtures {
            try buffers.load(fixture)
            try device.prepare(buffers.plan(capacity: capacity), capacity: capacity, in: workspace.view.region)
            try graph.replay()
            let mismatch = AttentionTolerance(products: .bfloat16)
                .mismatch(try buffers.results(), fixture.oracle.evaluate(), fixture.problem)
            #expect(mismatch == nil)
        }
    }
}
