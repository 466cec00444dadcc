import FlashInfer
import FlashInferCUDA
import TestSupport
import Testing

/// Ranks that share one GPU, each with a stream of its own, and meet by way of the host.
@Suite(.enabled(if: GPU.isPresent, GPU.absence), .timeLimit(.minutes(10))) struct ReducedKVParallelGPUTests {
    private func check(_ fixture: KVParallelFixture, form: StateExchange.Form) throws {
        let expected = try fixture.expected()
        let found = try onThreads(ThreadCommunicator.ranks(fixture.worldSize)) { host -> [String] in
            let device = try GPU.makeDevice()
            let ranks = try Communicators.join(host, on: device, transport: .host)
            let part = try fixture.part(ofRank: ranks.rank, worldSize: ranks.worldSize)
            let shape = try fixture.shape
            let cache = try DeviceBuffer(
                on: device, part.cache.map { Float16($0) },
                shape: [part.pageCount, 2, fixture.pageSize, fixture.kvHeads, fixture.headDim])
            let width: Shape = [fixture.rows, shape.queryHeads, fixture.headDim]
            let queries = try DeviceBuffer(on: device, fixture.queries.map { Float16($0) }, shape: width)
            let output = try DeviceBuffer(on: device, dtype: .float32, shape: width)
            let lse = try DeviceBuffer(on: device, dtype: .float32, shape: [fixture.rows, shape.queryHeads])
            let sinks = try fixture.sinks.map { try DeviceTensorBox(DeviceBuffer(on: device, $0, shape: [$0.count])) }
            let attention = try KVParallelAttention(
                AttentionProblem(
                    geometry: part.geometry, shape: shape, variant: fixture.variant, queryType: .float16,
                    kvType: .float16, outputType: .float32), across: ranks, on: device, form: form)
            try attention.run(
                queries.view, .paged(combined: cache.view), into: output.view, logSumExp: lse.view,
                sinks: sinks?.buffer.view)
            // Weights are rounded to 11 bits before they meet the values.
            return fixture.complaints(try output.read(), try lse.read(), expected, weightError: 0x1p-10)
        }
        for (rank, complaints) in found.enumerated() {
            #expect(complaints.isEmpty, "rank \(rank) of \(fixture) by \(form): \(complaints.prefix(3))")
        }
    }

    @Test(arguments: StateExchange.Form.allCases)
    func twoRanksAreOne(_ form: StateExchange.Form) throws {
        try check(
            KVParallelFixture(
                lengths: [(1, 77), (18, 50), (1, 0), (1, 5)], split: .interleaved(pages: 1), worldSize: 2,
                pageSize: 16, headDim: 64, variant: AttentionVariant(mask: .causal, hasSinks: true)), form: form)
    }

    @Test func chunksOfAPrompt() throws {
        try check(
            KVParallelFixture(
                lengths: [(33, 33), (5, 60)], split: .chunks(pages: 1), worldSize: 3, pageSize: 16, headDim: 64),
            form: .allGather)
    }
}

private final class DeviceTensorBox: Sendable {
    let buffer: DeviceBuffer

    init(_ buffer: consuming DeviceBuffer) { self.buffer = buffer }
}
