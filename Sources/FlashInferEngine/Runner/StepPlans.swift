internal import FlashInfer

/// The attention plans of one step: one for the layers that see everything, one for those that look through a window.
struct StepPlans: ~Copyable {
    private var global: PlannedAttention?
    private var sliding: PlannedAttention?
    private let windows: ModelConfig.SlidingWindow?

    init(_ batch: StepBatch, of model: borrowing DecoderModel, mode: Planner.Mode) throws(FlashInferError) {
        let config = model.config
        let geometry = try BatchGeometry.paged(
            queryIndptr: batch.queryIndptr, pageIndptr: batch.kvIndptr, pageIndices: batch.kvIndices,
            lastPageLengths: batch.kvLastPageLengths, pageSize: batch.pageSize, pageCount: model.cache.pageCount)
        windows = config.slidingWindow
        global = nil
        sliding = nil
        if windows?.layers.contains(false) ?? true {
            global = try Self.plan(geometry, model, window: nil, mode)
        }
        if let windows, windows.layers.contains(true) {
            // A window of n keys holds the query's own and the n − 1 to its left.
            sliding = try Self.plan(geometry, model, window: windows.size - 1, mode)
        }
    }

    private static func plan(
        _ geometry: BatchGeometry, _ model: borrowing DecoderModel, window: Int?, _ mode: Planner.Mode
    ) throws(FlashInferError) -> PlannedAttention {
        let config = model.config
        return try PlannedAttention(
            AttentionProblem(
                geometry: geometry,
                shape: AttentionShape(
                    queryHeads: config.headCount, kvHeads: config.kvHeadCount, headDimQK: config.headDim),
                variant: AttentionVariant(
                    mask: .causal, windowLeft: window, logitsSoftCap: config.attentionSoftCap,
                    scale: config.attentionScale),
                queryType: .float32, kvType: model.cache.view(ofLayer: 0).keys.dtype),
            on: model.device, mode: mode)
    }

    /// Attention of one layer.
    func run(
        _ layer: Int, _ queries: TensorView, _ cache: KVCacheView, into output: TensorView
    ) throws(FlashInferError) {
        if windows?.layers[layer] ?? false {
            try sliding!.run(queries, cache, into: output)
        } else {
            try global!.run(queries, cache, into: output)
        }
    }
}
