import FlashInfer
import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// What the calls of a decode step cost on the host above what the driver takes: the driver here takes next to nothing.
@Suite(.serialized) struct RunCostTests {
    @Test func aLayerAddsLittle() throws {
        let folder = try TemporaryFolder()
        let source = try QuietDriver.source(in: folder)
        try FakeDriver.with { _ in
            let device = try QuietDriver.device(source)
            let lengths = (0..<64).map { 1024 + $0 * 7919 % 2048 }
            let counts = lengths.map { ($0 + 15) / 16 }
            let indptr = counts.reduce(into: [Int32(0)]) { $0.append($0[$0.count - 1] + Int32($1)) }
            let pages = Int(indptr[64])
            let ids = (0..<Int32(pages)).map { $0 }
            let last = lengths.map { Int32(($0 - 1) % 16 + 1) }
            func problem() throws -> AttentionProblem {
                try AttentionProblem(
                    geometry: .paged(
                        pageIndptr: indptr, pageIndices: ids, lastPageLengths: last, pageSize: 16, pageCount: pages),
                    shape: AttentionShape(queryHeads: 32, kvHeads: 8, headDimQK: 128), variant: .causal,
                    queryType: .bfloat16, kvType: .bfloat16)
            }
            let first = try problem()
            let capacity = try Planner.capacity(
                maximumRequests: 64, maximumQueries: 64, maximumRequestQueries: 1, maximumKeys: 4096,
                maximumBlocks: 64 * 256, shape: first.shape, traits: device.kernelTraits(for: first),
                processors: device.limits.processors)
            let cache = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [pages, 2, 16, 8, 128])
            let view = try KVCacheView.paged(combined: cache.view)
            let queries = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [64, 32, 128])
            let output = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [64, 32, 128])
            var attention = try PlannedAttention(first, on: device, capacity: capacity)
            let norm = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [64, 4096])
            let weight = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [4096])
            let run = try best { try attention.run(queries.view, view, into: output.view) }
            let small = try best {
                try device.run(.rmsNorm(RMSNormOperation(input: norm.view, weight: weight.view, output: norm.view)))
            }
            let geometry = try best { _ = try problem() }
            let replan = try best(calls: 10) { try attention.replan(first) }
            print("host: attention.run \(run) ns, rmsNorm \(small) ns, geometry \(geometry) ns, replan \(replan) ns")
            // The goal is 2 µs; machines that run tests are busy.
            #expect(run < 20_000 && small < 20_000)
        }
    }

    /// Nanoseconds of a call, in the fastest of many loops that are short enough to run undisturbed now and then.
    private func best(calls: Int = 100, _ body: () throws -> Void) rethrows -> Int {
        var best = Int.max
        for _ in 0..<500 {
            let time = try ContinuousClock().measure { for _ in 0..<calls { try body() } }
            best = min(best, Int(time / .nanoseconds(1)) / calls)
        }
        return best
    }
}
