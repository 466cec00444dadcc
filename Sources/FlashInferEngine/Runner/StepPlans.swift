internal import FlashInfer

/// The attention plans of a step: one for the layers that see everything, one for those that look through a window.
final class StepPlans {
    private var global: PlannedAttention?
    private var sliding: PlannedAttention?
    private let model: DecoderModel

    /// Bounds on the batches that the same plans' memory is to serve.
    struct Capacity: Sendable, Equatable {
        /// Requests, each of one token.
        var requests: Int
        /// Pages of each.
        var pagesPerRequest: Int
    }

    /// Plans for one batch, or with a capacity for any within it.
    init(_ geometry: BatchGeometry, of model: DecoderModel, capacity: Capacity? = nil) throws(FlashInferError) {
        self.model = model
        let windows = model.config.slidingWindow
        if windows?.layers.contains(false) ?? true {
            global = try Self.plan(geometry, model, window: nil, capacity)
        }
        if let windows { sliding = try Self.plan(geometry, model, window: windows.keysToTheLeft, capacity) }
    }

    /// Plans another batch in the same memory.
    func replan(_ geometry: BatchGeometry) throws(FlashInferError) {
        try global?.replan(Self.problem(geometry, model, window: nil))
        guard let window = model.config.slidingWindow else { return }
        try sliding?.replan(Self.problem(geometry, model, window: window.keysToTheLeft))
    }

    /// Attention of one layer.
    func run(
        _ layer: Int, _ queries: TensorView, _ cache: KVCacheView, into output: TensorView
    ) throws(FlashInferError) {
        if model.config.slidingWindow?.layers[layer] ?? false {
            try sliding?.run(queries, cache, into: output)
        } else {
            try global?.run(queries, cache, into: output)
        }
    }

    private static func plan(
        _ geometry: BatchGeometry, _ model: DecoderModel, window: Int?, _ capacity: Capacity?
    ) throws(FlashInferError) -> PlannedAttention {
        let problem = try problem(geometry, model, window: window)
        let (device, mode) = (model.device, model.planning)
        let size = try capacity.map { (capacity) throws(FlashInferError) in
            try Planner.capacity(
                maximumRequests: capacity.requests, maximumQueries: capacity.requests, maximumRequestQueries: 1,
                maximumKeys: capacity.pagesPerRequest * model.cache.pageSize,
                maximumBlocks: capacity.requests * capacity.pagesPerRequest, shape: problem.shape,
                traits: device.kernelTraits(for: problem), processors: device.limits.processors, mode: mode)
        }
        return try PlannedAttention(problem, on: device, mode: mode, capacity: size)
    }

    private static func problem(
        _ geometry: BatchGeometry, _ model: DecoderModel, window: Int?
    ) throws(FlashInferError) -> AttentionProblem {
        try AttentionProblem(
            geometry: geometry, shape: model.config.attentionShape,
            variant: model.config.attentionVariant(window: window), queryType: model.types.query,
            kvType: model.cache.view(ofLayer: 0).keys.dtype, outputType: model.types.attention)
    }
}

extension ModelConfig.SlidingWindow {
    /// A window of n keys holds the query's own and the n − 1 to its left.
    fileprivate var keysToTheLeft: Int { size - 1 }
}

extension StepBatch {
    /// The batch's lengths and pages, followed by requests of one row and no keys up to `rows` rows.
    func geometry(pageCount: Int, paddedTo rows: Int) throws(FlashInferError) -> BatchGeometry {
        let padding = rows - rowCount
        if padding == 0 {
            return try BatchGeometry.paged(
                queryIndptr: queryIndptr, pageIndptr: kvIndptr, pageIndices: kvIndices,
                lastPageLengths: kvLastPageLengths, pageSize: pageSize, pageCount: pageCount)
        }
        let extra = [Int32](repeating: kvIndptr[kvIndptr.count - 1], count: padding)
        return try BatchGeometry.paged(
            queryIndptr: queryIndptr + (rowCount + 1...rows).map { Int32($0) }, pageIndptr: kvIndptr + extra,
            pageIndices: kvIndices, lastPageLengths: kvLastPageLengths + [Int32](repeating: 0, count: padding),
            pageSize: pageSize, pageCount: pageCount)
    }
}
