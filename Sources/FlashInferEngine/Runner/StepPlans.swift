internal import FlashInfer

/// The attention plans of one step: one for the layers that see everything, one for those that look through a window.
struct StepPlans {
    private let global: SharedPlan?
    private let sliding: SharedPlan?
    private let windows: ModelConfig.SlidingWindow?

    init(_ batch: StepBatch, of model: DecoderModel, mode: Planner.Mode) throws(FlashInferError) {
        let config = model.config
        let geometry = try BatchGeometry.paged(
            queryIndptr: batch.queryIndptr, pageIndptr: batch.kvIndptr, pageIndices: batch.kvIndices,
            lastPageLengths: batch.kvLastPageLengths, pageSize: batch.pageSize, pageCount: model.cache.pageCount)
        windows = config.slidingWindow
        let seesAll = windows?.layers.contains(false) ?? true
        global = seesAll ? try Self.plan(geometry, model, window: nil, mode) : nil
        // A window of n keys holds the query's own and the n − 1 to its left.
        sliding = try windows.map { (windows) throws(FlashInferError) in
            try Self.plan(geometry, model, window: windows.size - 1, mode)
        }
    }

    private static func plan(
        _ geometry: BatchGeometry, _ model: DecoderModel, window: Int?, _ mode: Planner.Mode
    ) throws(FlashInferError) -> SharedPlan {
        let config = model.config
        let problem = try AttentionProblem(
            geometry: geometry,
            shape: AttentionShape(
                queryHeads: config.headCount, kvHeads: config.kvHeadCount, headDimQK: config.headDim),
            variant: AttentionVariant(
                mask: .causal, windowLeft: window, logitsSoftCap: config.attentionSoftCap,
                scale: config.attentionScale),
            queryType: model.queryType, kvType: model.cache.view(ofLayer: 0).keys.dtype, outputType: .float32)
        return SharedPlan(try PlannedAttention(problem, on: model.device, mode: mode))
    }

    /// Attention of one layer.
    func run(
        _ layer: Int, _ queries: TensorView, _ cache: KVCacheView, into output: TensorView
    ) throws(FlashInferError) {
        let plan = windows?.layers[layer] ?? false ? sliding : global
        try plan?.attention.run(queries, cache, into: output)
    }
}

/// A plan that a copyable value can hold.
private final class SharedPlan {
    let attention: PlannedAttention

    init(_ attention: consuming PlannedAttention) { self.attention = attention }
}
