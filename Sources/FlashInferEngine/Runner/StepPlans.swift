internal import FlashInfer

/// The attention plans of a step: one for the layers that see everything, one for those that look through a window.
final class StepPlans {
    private var global: PlannedAttention?
    private var sliding: PlannedAttention?
    /// In place of `global` where keys are spread over ranks.
    private var spread: KVParallelAttention?
    // The model may keep the plans.
    private unowned let model: DecoderModel

    /// Bounds on the batches that the same plans' memory is to serve.
    struct Capacity: Sendable, Equatable {
        /// Requests, each of one token.
        var requests: Int
        /// Pages of each.
        var pagesPerRequest: Int
        /// Levels of shared prefixes, the sequences' ends included.
        var levels = 1

        /// Requests of all levels: each level but the last has at most one for each of its groups, and one between any two.
        var requestsOfAllLevels: Int { requests + (levels - 1) * (requests + 1) }
    }

    /// Plans for one batch, or with a capacity for any within it.
    init(_ batch: SharedGeometry, of model: DecoderModel, capacity: Capacity? = nil) throws(FlashInferError) {
        self.model = model
        if let ranks = model.spread?.ranks {
            let problem = try Self.problem(batch.plain, model, window: nil)
            spread = try KVParallelAttention(
                problem, across: ranks, on: model.device,
                stateType: capacity == nil ? model.types.states : .float32,
                maximumRows: capacity?.requests ?? model.buffers.maximumRows, mode: model.planning,
                capacity: capacity.map { (capacity) throws(FlashInferError) in
                    try Self.size(capacity, problem, model, window: nil)
                })
            return
        }
        let windows = model.config.slidingWindow
        if windows?.layers.contains(false) ?? true {
            global = try Self.plan(batch.shared, model, window: nil, capacity)
        }
        if let windows { sliding = try Self.plan(batch.plain, model, window: windows.keysToTheLeft, capacity) }
    }

    /// Plans another batch in the same memory.
    func replan(_ batch: SharedGeometry) throws(FlashInferError) {
        // All ranks compute the steps that rank 0 sends, so there is nothing to agree on.
        try spread?.replan(Self.problem(batch.plain, model, window: nil), checksRanks: false)
        try global?.replan(Self.problem(batch.shared, model, window: nil))
        guard let window = model.config.slidingWindow else { return }
        try sliding?.replan(Self.problem(batch.plain, model, window: window.keysToTheLeft))
    }

    /// Attention of one layer.
    func run(
        _ layer: Int, _ queries: TensorView, _ cache: KVCacheView, into output: TensorView
    ) throws(FlashInferError) {
        if model.config.slidingWindow?.layers[layer] ?? false {
            try sliding?.run(queries, cache, into: output)
        } else {
            try global?.run(queries, cache, into: output)
            try spread?.run(queries, cache, into: output)
        }
    }

    private static func plan(
        _ geometry: BatchGeometry, _ model: DecoderModel, window: Int?, _ capacity: Capacity?
    ) throws(FlashInferError) -> PlannedAttention {
        let problem = try problem(geometry, model, window: window)
        let size = try capacity.map { (capacity) throws(FlashInferError) in
            try Self.size(capacity, problem, model, window: window)
        }
        return try PlannedAttention(problem, on: model.device, mode: model.planning, capacity: size)
    }

    private static func size(
        _ capacity: Capacity, _ problem: AttentionProblem, _ model: DecoderModel, window: Int?
    ) throws(FlashInferError) -> PlanSize {
        let levels = window == nil ? capacity.levels : 1
        return try Planner.capacity(
            maximumRequests: levels > 1 ? capacity.requestsOfAllLevels : capacity.requests,
            maximumQueries: capacity.requests, maximumRequestQueries: 1,
            maximumKeys: capacity.pagesPerRequest * model.cache.pageSize,
            maximumBlocks: capacity.requests * capacity.pagesPerRequest, maximumLevels: levels, shape: problem.shape,
            traits: model.device.kernelTraits(for: problem), processors: model.device.limits.processors,
            mode: model.planning)
    }

    fileprivate static func problem(
        _ geometry: BatchGeometry, _ model: DecoderModel, window: Int?
    ) throws(FlashInferError) -> AttentionProblem {
        try AttentionProblem(
            geometry: geometry, shape: model.config.attentionShape,
            variant: model.config.attentionVariant(window: window), queryType: model.types.query,
            kvType: model.cache.view(ofLayer: 0).keys.dtype, outputType: model.types.attention)
    }
}

/// A batch as layers with a window see it, and as layers that see everything do: with prefixes that sequences share read once, where
/// that pays.
struct SharedGeometry {
    let plain: BatchGeometry
    let shared: BatchGeometry

    /// Levels that are planned: three for a system's prompt, for a conversation or a prompt that is sampled many times, and for what is
    /// each sequence's own.
    static let maximumLevels = 3

    /// Whether anything is shared.
    var isShared: Bool { shared.levelCount > 1 }

    /// Looks for prefixes that neighbours share, by their pages.
    ///
    /// - Parameter isPadded: whether what is shared always has ``maximumLevels``, for graphs.
    init(_ plain: BatchGeometry, of model: DecoderModel, isPadded: Bool = false) throws(FlashInferError) {
        self.plain = plain
        // Sequences whose results must not depend on their neighbours read their own keys; so do layers with a window, and ranks, which
        // would have to agree on what is shared.
        guard model.planning == .balanced, model.spread == nil,
            model.config.slidingWindow?.layers.contains(false) ?? true,
            !PrefixTree(plain, isCausal: true).nodes.isEmpty
        else {
            shared = plain
            return
        }
        let cascade = try Cascade.discover(
            StepPlans.problem(plain, model, window: nil), on: model.device, maximumLevels: Self.maximumLevels,
            isPadded: isPadded)
        shared = cascade.isShared ? cascade.problem.geometry : plain
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
