import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// What the operations do while a graph is captured.
@Suite(.enabled(if: OpsGPU.isThere, "no CUDA device"), .serialized) struct CaptureGPUTests {
    private let device: CUDADevice
    private let gpu: GPUScope

    init() throws {
        device = try CUDADevice()
        gpu = GPUScope(on: device)
    }

    @Test func aReplayReadsWhatTensorsHoldThen() throws {
        let (heads, dim) = (2, 64)
        let hidden = try gpu.tensor(.bfloat16, [1, heads * dim], values: [Double](repeating: 2, count: heads * dim))
        let weight = try gpu.tensor(.bfloat16, [heads * dim], values: [Double](repeating: 1, count: heads * dim))
        let normed = try gpu.tensor(.bfloat16, [1, heads * dim])
        let table = try gpu.tensor(.int32, [2, 1], values: [1, 3])
        let positions = try gpu.tensor(.int32, [1], values: [0])
        let (keys, values) = (
            try gpu.tensor(.bfloat16, [3, 4, heads, dim]), try gpu.tensor(.bfloat16, [3, 4, heads, dim])
        )
        let cache = try KVCacheView.paged(keys: keys.view, values: values.view)
        let split = try normed.view.reshaped([1, heads, dim])
        func step() throws(FlashInferError) {
            try device.execute(
                .rmsNorm(RMSNormOperation(input: hidden.view, weight: weight.view, output: normed.view)))
            try device.execute(
                .rope(RoPEOperation(queries: split, positions: positions.view, parameters: RoPEParameters())))
            try device.execute(
                .appendKV(
                    AppendKVOperation(keys: split, values: split, cache: cache, slots: try KVSlots(table: table.view))))
        }
        try step()
        let graph = try #require(try device.capture(step))
        for (block, row) in [(0, 2), (2, 1)] {
            table.host[0] = Double(block)
            table.host[1] = Double(row)
            try device.upload(UnsafeRawBufferPointer(table.host.bytes), to: table.view.region)
            try graph.replay()
        }
        let found = try keys.fetch()
        let stored = (0..<12).filter { !found[$0 * heads * dim].isNaN }
        #expect(stored == [2, 7, 9])
        #expect(stored.allSatisfy { found[$0 * heads * dim] == 1 })
    }

    @Test func hostArraysAreRefusedWithWhatToDo() throws {
        let logits = try gpu.tensor(.float32, [2, 8], values: [Double](repeating: 0, count: 16))
        let (tokens, status) = (try gpu.tensor(.int32, [2]), try gpu.tensor(.uint8, [2]))
        let sample = SampleOperation(
            logits: logits.view, tokens: tokens.view, status: status.view,
            rows: [.init(seed: 0, step: 0), .init(seed: 1, step: 0)])
        let softmax = SoftmaxOperation(
            input: logits.view, output: logits.view, status: status.view, temperatures: [1, 2])
        let source = try gpu.tensor(.float32, [1, 1, 8])
        let cache = try gpu.tensor(.float32, [2, 2, 2, 1, 8])
        let append = AppendKVOperation(
            keys: source.view, values: source.view, cache: try .paged(combined: cache.view),
            slots: try KVSlots(slots: [1], pageSize: 2))
        let positions = try gpu.tensor(.int32, [1], values: [0])
        let turnedAppend = RoPEAppendKVOperation(
            queries: source.view, keys: source.view, values: source.view,
            queryOutput: try gpu.tensor(.float32, [1, 1, 8]).view, positions: positions.view,
            parameters: RoPEParameters(), cache: try .paged(combined: cache.view),
            slots: try KVSlots(slots: [1], pageSize: 2))
        let copy = CopyPagesOperation(cache: try .paged(combined: cache.view), sources: [0], destinations: [1])
        let all: [FlashInferCore.Operation] = [
            .sample(sample), .softmax(softmax), .appendKV(append), .copyPages(copy), .ropeAppendKV(turnedAppend),
        ]
        for operation in all {
            #expect(throws: FlashInferError.self) {
                _ = try device.capture { () throws(FlashInferError) in try device.execute(operation) }
            }
            // And afterwards all is well.
            try device.execute(operation)
        }
        try device.synchronize()
    }
}
