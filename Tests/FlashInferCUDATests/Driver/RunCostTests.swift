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
            let cost = try cost(on: QuietDriver.device(source))
            // The goal is 2 µs; machines that run tests are busy.
            #expect(cost < 20_000)
        }
    }

    /// With the driver's own launch, some 2.4 µs. One request, as the GPU may be an emulated one.
    @Test(.enabled(if: GPU.isPresent, GPU.absence)) func aLayerOnAGPU() throws {
        let device = try GPU.makeDevice()
        let isEmulated = device.name.contains("Emulated")
        let cost = try cost(on: device, requests: 1, rounds: isEmulated ? 1 : 25, calls: isEmulated ? 1 : 16) {
            try device.synchronize()
        }
        #expect(isEmulated || cost < 100_000)
    }

    /// Nanoseconds of a layer's call or of a small operation's, whichever is more; `wait` is called outside of the timing.
    private func cost(
        on device: CUDADevice, requests: Int = 64, rounds: Int = 500, calls: Int = 100, _ wait: () throws -> Void = {}
    ) throws -> Int {
        let lengths = (0..<requests).map { (requests == 1 ? 64 : 1024) + $0 * 7919 % 2048 }
        let counts = lengths.map { ($0 + 15) / 16 }
        let indptr = counts.reduce(into: [Int32(0)]) { $0.append($0[$0.count - 1] + Int32($1)) }
        let pages = Int(indptr[requests])
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
        let queries = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [requests, 32, 128])
        let output = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [requests, 32, 128])
        var attention = try PlannedAttention(first, on: device, capacity: capacity)
        let norm = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [requests, 4096])
        let weight = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [4096])
        let run = try best(rounds, calls: calls, wait) { try attention.run(queries.view, view, into: output.view) }
        let small = try best(rounds, calls: calls, wait) {
            try device.run(.rmsNorm(RMSNormOperation(input: norm.view, weight: weight.view, output: norm.view)))
        }
        let geometry = try best(rounds, calls: calls, wait) { _ = try problem() }
        let replan = try best(rounds, calls: 10, wait) { try attention.replan(first) }
        print(
            "host, \(device.name): attention.run \(run) ns, rmsNorm \(small) ns, geometry \(geometry) ns, "
                + "replan \(replan) ns")
        return max(run, small)
    }

    /// Nanoseconds of a call, in the fastest of many loops that are short enough to run undisturbed now and then.
    private func best(_ rounds: Int, calls: Int, _ wait: () throws -> Void, _ body: () throws -> Void) rethrows -> Int {
        var best = Int.max
        for _ in 0..<rounds {
            try wait()
            let time = try ContinuousClock().measure { for _ in 0..<calls { try body() } }
            best = min(best, Int(time / .nanoseconds(1)) / calls)
        }
        return best
    }
}
