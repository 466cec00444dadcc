import FlashInfer
import FlashInferCUDA
import FlashInferCore
import Synchronization
import TestSupport
import Testing

/// Many threads on one device, some of which capture: what `Scripts/sanitize thread` runs with FILTER=ManyThreadsTests.
@Suite(.serialized) struct ManyThreadsTests {
    /// The tensors of one thread: a decode batch in pages, and a layer around it.
    private final class Work {
        let device: CUDADevice
        let queries, output, hidden, weight: DeviceBuffer
        let cache: DeviceBuffer
        let view: KVCacheView
        let problems: [AttentionProblem]
        var attention: PlannedAttention

        init(on device: CUDADevice) throws {
            self.device = device
            problems = try (0..<3).map { try Work.problem([40 + $0, 17, 300 * ($0 + 1)]) }
            let capacity = try Planner.capacity(
                maximumRequests: 3, maximumQueries: 3, maximumRequestQueries: 1, maximumKeys: 1024,
                maximumBlocks: 192, shape: problems[0].shape, traits: device.kernelTraits(for: problems[0]),
                processors: device.limits.processors)
            queries = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [3, 32, 128])
            output = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [3, 32, 128])
            hidden = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [3, 4096])
            weight = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [4096])
            cache = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [192, 2, 16, 8, 128])
            view = try KVCacheView.paged(combined: cache.view)
            attention = try PlannedAttention(problems[0], on: device, capacity: capacity)
        }

        private static func problem(_ lengths: [Int]) throws -> AttentionProblem {
            let counts = lengths.map { ($0 + 15) / 16 }
            let indptr = counts.reduce(into: [Int32(0)]) { $0.append($0[$0.count - 1] + Int32($1)) }
            return try AttentionProblem(
                geometry: .paged(
                    pageIndptr: indptr, pageIndices: (0..<indptr[lengths.count]).map { $0 },
                    lastPageLengths: lengths.map { Int32(($0 - 1) % 16 + 1) }, pageSize: 16, pageCount: 192),
                shape: AttentionShape(queryHeads: 32, kvHeads: 8, headDimQK: 128), variant: .causal,
                queryType: .bfloat16, kvType: .bfloat16)
        }

        /// What can be captured.
        func layer() throws(FlashInferError) {
            try device.run(
                .rmsNorm(RMSNormOperation(input: hidden.view, weight: weight.view, output: hidden.view)))
            try device.run(.add(AddOperation(first: hidden.view, second: hidden.view, output: hidden.view)))
            try attention.run(queries.view, view, into: output.view)
        }

        /// What reads arrays of the host.
        func append(_ step: Int) throws(FlashInferError) {
            let slots = try KVSlots(slots: [Int32(step % 90), -1, Int32(100 + step % 70)], pageSize: 16)
            let rows = try TensorView(queries.region, dtype: .bfloat16, shape: [3, 8, 128], strides: [4096, 128, 1])
            try device.run(.appendKV(AppendKVOperation(keys: rows, values: rows, cache: view, slots: slots)))
        }
    }

    private func withQuietDevice(_ body: (CUDADevice, CubinSource) throws -> Void) throws {
        let folder = try TemporaryFolder()
        let source = try QuietDriver.source(in: folder)
        // The quiet driver borrows what does not matter from the fake, of which there is one at a time.
        try FakeDriver.with { _ in try body(QuietDriver.device(source), source) }
    }

    @Test func everythingAtOnce() throws {
        try withQuietDevice { device, source in
            _ = QuietDriver.takeFaults()
            let shared = try Work(on: device)
            // Its kernels are loaded by whoever comes first.
            let failures = Mutex<[String]>([])
            let graph = try #require(try device.capture { () throws(FlashInferError) in try shared.layer() })
            nonisolated(unsafe) let everybodys = shared
            ParallelWork.forEach(8, threads: 8) { thread in
                do {
                    let work = try Work(on: device)
                    for step in 0..<120 {
                        switch (step &* 7 &+ thread &* 5) % 12 {
                        case 0:
                            let own = try device.capture { () throws(FlashInferError) in
                                #expect(device.isCapturing)
                                try work.layer()
                                try work.layer()
                            }
                            _ = own
                        case 1: try graph.replay()
                        case 2: try work.attention.replan(work.problems[step % 3])
                        case 3: try work.append(step)
                        case 4:
                            let buffer = try DeviceBuffer(on: device, [Float](repeating: 1, count: 300), shape: [300])
                            _ = try buffer.read(as: Float.self)
                        case 5: try everybodys.layer()
                        case 6: try device.synchronize()
                        case 7:
                            let other = try QuietDriver.device(source)
                            _ = try Work(on: other)
                        case 8: _ = CUDAReport(environment: TestKernels.environment(), driverCandidates: [])
                        case 9: try device.preload(Array(KernelCatalogue.shipped.prefix(3)))
                        default: try work.layer()
                        }
                        #expect(!device.isCapturing)
                    }
                } catch {
                    failures.withLock { $0.append("\(error)") }
                }
            }
            #expect(failures.withLock { $0 } == [])
            let faults = QuietDriver.takeFaults()
            #expect(faults.strays == 0, "calls of other threads while a thread captured")
            #expect(faults.clashes == 0, "threads that launched one graph at a time")
        }
    }

    @Test func captureWaitsForThoseInsideAndKeepsOthersOut() throws {
        let gate = CaptureGate()
        let (inside, alone, wrong) = (Counter(), Counter(), Counter())
        ParallelWork.forEach(6, threads: 6) { thread in
            for step in 0..<2000 {
                if step % 10 == thread {
                    gate.alone {
                        if alone.value != 0 { wrong.add(1) }
                        alone.add(1)
                        if inside.value != 0 { wrong.add(1) }
                        if !gate.isMine { wrong.add(1) }
                        // It comes in itself, and frees nothing now.
                        gate.inside {}
                        if gate.insideIfOpen({}) { wrong.add(1) }
                        alone.add(-1)
                    }
                } else {
                    gate.inside {
                        inside.add(1)
                        if gate.isMine || alone.value != 0 { wrong.add(1) }
                        // From inside this never waits, whatever it returns.
                        _ = gate.insideIfOpen {}
                        inside.add(-1)
                    }
                }
            }
        }
        #expect(wrong.value == 0)
        #expect(gate.insideIfOpen {})
    }
}
