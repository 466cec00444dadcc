import FlashInfer

/// Zeros for decode steps of ``CUDACase/decode(_:_:kvType:heads:pageSize:measuresHost:)``: 32 query heads over 8, of 128 elements, in pages
/// of 16. What they are does not matter to whoever measures time on the host or memory.
struct DecodeTensors: ~Copyable {
    private let cache: DeviceBuffer
    private let queries: DeviceBuffer
    private let output: DeviceBuffer
    private let view: KVCacheView

    /// Tensors that each of these problems, of so many requests, fits.
    init(_ problems: [AttentionProblem], requests: Int, on gpu: any Device) throws {
        let pages = problems.map { $0.geometry.blocks.blockLimit }.max() ?? 1
        let cache = try DeviceBuffer(on: gpu, dtype: .bfloat16, shape: [pages, 2, 16, 8, 128])
        let queries = try DeviceBuffer(on: gpu, dtype: .bfloat16, shape: [requests, 32, 128])
        let output = try DeviceBuffer(on: gpu, dtype: .bfloat16, shape: [requests, 32, 128])
        let view = try KVCacheView.paged(combined: cache.view)
        try gpu.fill(cache.region, with: 0)
        try gpu.fill(queries.region, with: 0)
        self.cache = cache
        self.queries = queries
        self.output = output
        self.view = view
    }

    /// Enqueues a step.
    func run(_ attention: borrowing PlannedAttention) throws(FlashInferError) {
        try attention.run(queries.view, view, into: output.view)
    }
}
