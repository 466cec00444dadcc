import FlashInfer
import TestSupport
import Testing

/// Attention over the keys of several ranks equals one rank's.
@Suite(.timeLimit(.minutes(10))) struct KVParallelTests {
    struct Outcome: Sendable {
        var output: [Float]
        var lse: [Float]
    }

    /// What a rank does.
    static func run(
        _ fixture: KVParallelFixture, _ ranks: any Communicator, on device: any Device, form: StateExchange.Form,
        stateType: DType = .float32
    ) throws -> Outcome {
        let part = try fixture.part(ofRank: ranks.rank, worldSize: ranks.worldSize)
        let shape = try fixture.shape
        let cache = try DeviceBuffer(
            on: device, part.cache,
            shape: [part.pageCount, 2, fixture.pageSize, fixture.kvHeads, fixture.headDim])
        let rows = max(fixture.rows, 1)
        let width: Shape = [rows, shape.queryHeads, fixture.headDim]
        let queryBuffer = try DeviceBuffer(on: device, dtype: .float32, shape: width)
        let outputBuffer = try DeviceBuffer(on: device, dtype: .float32, shape: width)
        let lseBuffer = try DeviceBuffer(on: device, dtype: .float32, shape: [rows, shape.queryHeads])
        let queries = queryBuffer.view.slice(0..<fixture.rows)
        if fixture.rows > 0 { try device.write(fixture.queries, to: queries) }
        try device.fill(outputBuffer.region, with: 0xff)
        try device.fill(lseBuffer.region, with: 0xff)
        let sinks = try DeviceBuffer(on: device, fixture.sinks ?? [0], shape: [fixture.sinks?.count ?? 1])
        let attention = try KVParallelAttention(
            AttentionProblem(
                geometry: part.geometry, shape: shape, variant: fixture.variant, queryType: .float32,
                kvType: .float32), across: ranks, on: device, form: form, stateType: stateType)
        let output = outputBuffer.view.slice(0..<fixture.rows)
        let lse = lseBuffer.view.slice(0..<fixture.rows)
        for _ in 0..<2 {
            try attention.run(
                queries, .paged(combined: cache.view), into: output, logSumExp: lse,
                sinks: fixture.sinks == nil ? nil : sinks.view)
        }
        return Outcome(output: try device.read(output), lse: try device.read(lse))
    }

    static func check(
        _ fixture: KVParallelFixture, form: StateExchange.Form, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let ranks = ThreadCommunicator.ranks(fixture.worldSize)
        let found = try onThreads(ranks) { try run(fixture, $0, on: CPUDevice(threads: 1), form: form) }
        let expected = try fixture.expected()
        for (rank, outcome) in found.enumerated() {
            let complaints = fixture.complaints(outcome.output, outcome.lse, expected)
            #expect(
                complaints.isEmpty, "rank \(rank) of \(fixture) by \(form): \(complaints.prefix(3))",
                sourceLocation: sourceLocation)
            // All ranks merge in the same order, so they have the same bits.
            if form == .allGather {
                #expect(outcome.output == found[0].output && outcome.lse == found[0].lse)
            }
        }
    }

    @Test(
        arguments: StateExchange.Form.allCases, [KVSplit.chunks(pages: 5), .interleaved(pages: 1), .zigzag(pages: 3)])
    func fourRanksAreOne(_ form: StateExchange.Form, _ split: KVSplit) throws {
        // Decode, chunks of a prompt, a whole prompt, a request without queries, one without keys, one shorter than a page.
        try Self.check(
            KVParallelFixture(
                lengths: [(1, 77), (19, 77), (33, 33), (0, 12), (0, 0), (1, 3), (2, 3)], split: split), form: form)
    }

    @Test(arguments: 1...60)
    func randomBatches(_ seed: Int) throws {
        try Self.check(.random(UInt64(seed)), form: seed % 2 == 0 ? .allGather : .ring)
    }

    @Test func oneRankNeedsNoOthers() throws {
        let device = CPUDevice(threads: 1)
        let fixture = KVParallelFixture(lengths: [(5, 40), (1, 9)], split: .interleaved(pages: 2), worldSize: 1)
        let found = try Self.run(fixture, SoleRank(on: .cpu), on: device, form: .allGather)
        #expect(try fixture.complaints(found.output, found.lse, fixture.expected()).isEmpty)
    }

    @Test func statesInBFloat16AreCloseEnoughForBFloat16() throws {
        let fixture = KVParallelFixture(lengths: [(1, 60), (7, 90)], split: .interleaved(pages: 1))
        let found = try onThreads(ThreadCommunicator.ranks(4)) {
            try Self.run(fixture, $0, on: CPUDevice(threads: 1), form: .allGather, stateType: .bfloat16)
        }
        let expected = try fixture.expected()
        for (index, value) in found[0].output.enumerated() {
            // Each of the four states is rounded once to 8 bits.
            #expect(abs(Double(value) - expected.output[index]) <= 0x1p-8 * (expected.magnitude[index] + 1e-6))
        }
    }

    @Test func ranksThatPlanDifferentBatchesAreErrors() throws {
        let ranks = ThreadCommunicator.ranks(3, timeout: .seconds(10))
        let found = outcomes(ranks) { ranks in
            let fixture = KVParallelFixture(
                lengths: [(ranks.rank == 1 ? 2 : 1, 40)], split: .interleaved(pages: 1), worldSize: 3)
            return try Self.run(fixture, ranks, on: CPUDevice(threads: 1), form: .allGather)
        }
        for outcome in found {
            #expect(
                throws: FlashInferError.rankMismatch("query rows", rank: 1, found: "2", expected: "1, as on rank 0")
            ) {
                _ = try outcome.get()
            }
        }
    }

    @Test func whatNeedsPositionsIsRefused() throws {
        for variant in [
            AttentionVariant(mask: .causal, windowLeft: 9), AttentionVariant(mask: .causal, positionEncoding: .alibi),
            AttentionVariant(mask: .causal, positionEncoding: .rope(RoPEParameters())),
        ] {
            let fixture = KVParallelFixture(
                lengths: [(1, 40)], split: .interleaved(pages: 1), worldSize: 2, variant: variant)
            let found = outcomes(ThreadCommunicator.ranks(2, timeout: .seconds(10))) {
                try Self.run(fixture, $0, on: CPUDevice(threads: 1), form: .allGather)
            }
            for outcome in found {
                guard case .failure(FlashInferError.unsupported(let what, _, _)) = outcome else {
                    Issue.record("\(outcome)")
                    continue
                }
                #expect(what.contains("over the keys of 2 ranks"))
            }
        }
    }

    @Test func replanningKeepsItsMemory() throws {
        let device = RecordingDevice(processors: 8)
        let shape = try AttentionShape(queryHeads: 8, kvHeads: 2, headDimQK: 64)
        func problem(_ keys: [Int32]) throws -> AttentionProblem {
            let share = try KVShare(.interleaved(pages: 1), pageSize: 16, rank: 0, worldSize: 1)
            let pages = keys.map { share.pageCount(forLength: Int($0)) }
            return try AttentionProblem(
                geometry: .paged(
                    shares: keys.map { _ in share }, kvLengths: keys,
                    pageIndptr: pages.reduce(into: [0]) { $0.append($0.last! + Int32($1)) },
                    pageIndices: (0..<pages.reduce(0, +)).map { Int32($0) }, pageCount: 1024), shape: shape,
                variant: .causal, queryType: .float32, kvType: .float16)
        }
        let first = try problem([700, 3])
        let capacity = try Planner.capacity(
            maximumRequests: 8, maximumQueries: 8, maximumKeys: 4096, maximumBlocks: 1024, shape: shape,
            traits: device.kernelTraits(for: first), processors: 8)
        var attention = try KVParallelAttention(
            first, across: SoleRank(on: device.id), on: device, maximumRows: 4, capacity: capacity)
        let live = device.liveByteCount
        try attention.replan(problem([100, 200, 300, 0]))
        #expect(device.liveByteCount == live)
        #expect(
            throws: FlashInferError.capacityExceeded("the exchange of states (rows)", required: 5, capacity: 4)
        ) {
            try attention.replan(problem([1, 1, 1, 1, 1]))
        }
    }
}
