import FlashInfer
import TestSupport
import Testing

@Suite struct PlannedAttentionTests {
    private func problem(_ keys: [Int], pageSize: Int = 16, pageCount: Int = 64) throws -> AttentionProblem {
        let pages = keys.map { ($0 + pageSize - 1) / pageSize }
        let geometry = try BatchGeometry.paged(
            pageIndptr: pages.reduce(into: [0]) { $0.append($0.last! + Int32($1)) },
            pageIndices: (0..<pages.reduce(0, +)).map { Int32($0 % pageCount) },
            lastPageLengths: keys.map { Int32($0 == 0 ? 0 : ($0 - 1) % pageSize + 1) }, pageSize: pageSize,
            pageCount: pageCount)
        return try AttentionProblem(
            geometry: geometry, shape: AttentionShape(queryHeads: 8, kvHeads: 2, headDimQK: 64), variant: .causal,
            queryType: .float32, kvType: .float16)
    }

    @Test func replanningWithinTheCapacityAllocatesNothing() throws {
        let device = RecordingDevice(processors: 16)
        let first = try problem([700, 3])
        let capacity = try Planner.capacity(
            maximumRequests: 8, maximumQueries: 8, maximumKeys: 4096, maximumBlocks: 1024, shape: first.shape,
            traits: device.kernelTraits(for: first), processors: 16)
        var attention = try PlannedAttention(first, on: device, capacity: capacity)
        let live = device.liveByteCount
        #expect(live == capacity.workspaceByteCount)
        for keys in [[1], [1024, 1, 1], [0, 0, 900], [100, 200, 300, 50, 60, 70, 80, 90]] {
            try attention.replan(problem(keys))
            #expect(device.liveByteCount == live)
            #expect(attention.plan.problem.geometry.requestCount == keys.count)
        }
        #expect(throws: FlashInferError.self) { try attention.replan(problem(.init(repeating: 5, count: 400))) }
        // The plan that was in force stays so.
        #expect(attention.plan.problem.geometry.requestCount == 8)
    }

    @Test func whatDoesNotFitThePlanIsAnErrorAndRunsNothing() throws {
        let device = RecordingDevice()
        let cache = try PagedKVCache(
            on: device, layers: 2, pages: 64, pageSize: 16, heads: 2, headDim: 64, dtype: .float16)
        let attention = try PlannedAttention(problem([20, 5]), on: device)
        let queries = try DeviceBuffer(on: device, dtype: .float32, shape: [2, 8, 64])
        let (good, wide) = (queries.view, try TensorView(queries.region, dtype: .float32, shape: [4, 4, 64]))
        #expect(
            throws: FlashInferError.invalidArgument("queries", found: "of shape [4, 4, 64]", expected: "[2, 8, 64]")
        ) {
            try attention.run(wide, cache.view(ofLayer: 0), into: good)
        }
        #expect(throws: FlashInferError.planMismatch("sinks", planned: "none", found: "some")) {
            try attention.run(good, cache.view(ofLayer: 0), into: good, sinks: good)
        }
        #expect(throws: FlashInferError.planMismatch("mask", planned: "causal", found: "a custom mask")) {
            try attention.run(good, cache.view(ofLayer: 0), into: good, mask: good)
        }
        let small = try PagedKVCache(
            on: device, layers: 1, pages: 8, pageSize: 16, heads: 2, headDim: 64, dtype: .float16)
        #expect(
            throws: FlashInferError.planMismatch(
                "a cache of at least this many pages or tokens", planned: "64", found: "8")
        ) {
            try attention.run(good, small.view(ofLayer: 0), into: good)
        }
        let other = try PagedKVCache(
            on: device, layers: 1, pages: 64, pageSize: 16, heads: 2, headDim: 64, dtype: .bfloat16)
        #expect(throws: FlashInferError.planMismatch("cache type", planned: "float16", found: "bfloat16")) {
            try attention.run(good, other.view(ofLayer: 0), into: good)
        }
        let keys = try DeviceBuffer(on: device, dtype: .float16, shape: [64, 2, 64])
        #expect(throws: FlashInferError.planMismatch("keys and values", planned: "in pages", found: "a ragged tensor"))
        {
            try attention.run(good, .ragged(keys: keys.view, values: keys.view), into: good)
        }
        #expect(device.operations.isEmpty)
        try attention.run(good, cache.view(ofLayer: 1), into: good)
        #expect(device.operations.count == 1)
    }

    @Test func cachesSayWhatIsWrongWithTheirSize() throws {
        let device = CPUDevice(threads: 1)
        #expect(throws: FlashInferError.invalidArgument("pages", found: "0", expected: "in 1 ... 2147483647")) {
            _ = try PagedKVCache(
                on: device, layers: 1, pages: 0, pageSize: 16, heads: 2, headDim: 64, dtype: .float16)
        }
        #expect(throws: FlashInferError.self) {
            _ = try PagedKVCache(
                on: device, layers: 1000, pages: 1 << 30, pageSize: 1 << 10, heads: 2, headDim: 64, dtype: .float16)
        }
        let cache = try PagedKVCache(
            on: device, layers: 3, pages: 4, pageSize: 16, heads: 2, headDim: 64, dtype: .int8, layout: .hnd)
        #expect(cache.byteCount == 3 * 4 * 2 * 16 * 2 * 64 && cache.byteCountPerToken == 3 * 2 * 2 * 64)
        #expect(cache.view(ofLayer: 2).keys.tokenStride == 64 && cache.view(ofLayer: 2).keys.headStride == 16 * 64)
    }

    @Test func unsupportedCombinationsFailAtPlanTimeWithTheNearest() throws {
        let problem = try AttentionProblem(
            geometry: .contiguous(queryLength: 1, kvLength: 8),
            shape: AttentionShape(queryHeads: 2, kvHeads: 1, headDimQK: 60), variant: .causal, queryType: .float32,
            kvType: .float32)
        #expect(throws: FlashInferError.unsupported("head dim 60", device: "cpu", nearest: "64, with zero padding")) {
            _ = try PlannedAttention(problem, on: CPUDevice(threads: 1))
        }
    }

    @Test func decodeOverPagesEqualsContiguousAttention() throws {
        let device = CPUDevice(threads: 2)
        var random = SeededGenerator(seed: 11)
        let length = 37
        let keys = (0..<length * 2 * 64).map { _ in Float16(random.normal()) }
        let values = (0..<length * 2 * 64).map { _ in Float16(random.normal()) }
        let queries = try DeviceBuffer(
            on: device, (0..<8 * 64).map { _ in random.normal() }, shape: [1, 8, 64])
        let whole = try DeviceBuffer(on: device, dtype: .float32, shape: [1, 8, 64])
        let paged = try DeviceBuffer(on: device, dtype: .float32, shape: [1, 8, 64])
        let k = try DeviceBuffer(on: device, keys, shape: [length, 2, 64])
        let v = try DeviceBuffer(on: device, values, shape: [length, 2, 64])
        try PlannedAttention(
            AttentionProblem(
                geometry: .contiguous(queryLength: 1, kvLength: length),
                shape: AttentionShape(queryHeads: 8, kvHeads: 2, headDimQK: 64), variant: .causal, queryType: .float32,
                kvType: .float16), on: device
        ).run(queries.view, .ragged(keys: k.view, values: v.view), into: whole.view)

        let cache = try PagedKVCache(
            on: device, layers: 1, pages: 9, pageSize: 5, heads: 2, headDim: 64, dtype: .float16, layout: .hnd)
        let geometry = try BatchGeometry.paged(
            pageIndptr: [0, 8], pageIndices: [8, 1, 7, 2, 6, 0, 5, 3], lastPageLengths: [2], pageSize: 5, pageCount: 9)
        let slots = try KVSlots(
            table: geometry.blocks, batchIndices: .init(repeating: 0, count: length),
            positions: (0..<Int32(length)).map { $0 })
        try device.run(
            .appendKV(
                AppendKVOperation(keys: k.view, values: v.view, cache: cache.view(ofLayer: 0), slots: slots)))
        try PlannedAttention(
            AttentionProblem(
                geometry: geometry, shape: AttentionShape(queryHeads: 8, kvHeads: 2, headDimQK: 64), variant: .causal,
                queryType: .float32, kvType: .float16), on: device
        ).run(queries.view, cache.view(ofLayer: 0), into: paged.view)
        let (first, second): ([Float], [Float]) = (try whole.read(), try paged.read())
        #expect(first == second)
    }

    /// Attention over all keys equals the merge of attention over two halves of them.
    @Test func halvesMergeToTheWhole() throws {
        let device = CPUDevice(threads: 2)
        var random = SeededGenerator(seed: 5)
        func tensor(_ shape: Shape) throws -> DeviceBuffer {
            try DeviceBuffer(on: device, (0..<shape.elementCount!).map { _ in random.normal() }, shape: shape)
        }
        let shape = try AttentionShape(queryHeads: 4, kvHeads: 2, headDimQK: 32)
        let (queries, keys, values) = (
            try SharedBuffer(tensor([3, 4, 32])), try SharedBuffer(tensor([50, 2, 32])),
            try SharedBuffer(tensor([50, 2, 32]))
        )
        let outputs = try DeviceBuffer(on: device, dtype: .float32, shape: [3, 3, 4, 32])
        let sums = try DeviceBuffer(on: device, dtype: .float32, shape: [3, 3, 4])
        for (index, range) in [0..<50, 0..<19, 19..<50].enumerated() {
            let problem = try AttentionProblem(
                geometry: .contiguous(queryLength: 3, kvLength: range.count), shape: shape, variant: .full,
                queryType: .float32, kvType: .float32)
            try PlannedAttention(problem, on: device).run(
                queries.view, .ragged(keys: keys.view.slice(range), values: values.view.slice(range)),
                into: outputs.view.select(index), logSumExp: sums.view.select(index))
        }
        let merged = try DeviceBuffer(on: device, dtype: .float32, shape: [3, 4, 32])
        let mergedSums = try DeviceBuffer(on: device, dtype: .float32, shape: [3, 4])
        try device.run(
            .mergeStates(
                MergeStatesOperation(
                    values: outputs.view.slice(1..<3), logSumExp: sums.view.slice(1..<3), output: merged.view,
                    mergedLogSumExp: mergedSums.view)))
        let whole: [Float] = try device.read(outputs.view.select(0))
        let parts: [Float] = try merged.read()
        for (first, second) in zip(whole, parts) { #expect(abs(first - second) < 1e-5) }
        let (wholeSums, partSums): ([Float], [Float]) = (try device.read(sums.view.select(0)), try mergedSums.read())
        for (first, second) in zip(wholeSums, partSums) { #expect(abs(first - second) < 1e-5) }
    }
}

/// A buffer that a tuple can hold.
private final class SharedBuffer {
    private let buffer: DeviceBuffer
    var view: TensorView { buffer.view }

    init(_ buffer: consuming DeviceBuffer) { self.buffer = buffer }
}
