extension AttentionProblem {
    /// The analysis of what causality and window leave over of the mask; `nil` for nothing.
    package var restAnalysis: BlockAnalysis? {
        guard let rest = variant.form.restTerms else { return nil }
        return BlockAnalysis(rest, geometry: geometry, shape: shape, values: parameters)
    }

    /// A range that holds every key that any of `queries` (rows of request `request`) can see; empty where they see none.
    package func visibleKeys(_ request: Int, queries: Range<Int>) -> Range<Int> {
        KeyVisibility(self, analysis: restAnalysis).keys(
            request, of: queries, queryCount: geometry.queryLength(request), keyCount: geometry.kvLength(request))
    }
}

/// What of a variant says which keys a tile can skip, read once for a whole batch.
struct KeyVisibility {
    private let isCausal: Bool
    /// The window, with "none" as one that no sequence is longer than.
    private let window: Int
    /// With keys at their matrix columns, masks hide but skip nothing.
    private let keyPositions: KVBlockTable.KeyPositions
    /// Of what else the mask says.
    private let analysis: BlockAnalysis?
    private let queryHeads: Int
    /// Requests before this have rows that see all keys.
    private let firstMasked: Int

    init(_ problem: AttentionProblem, analysis: BlockAnalysis?) {
        isCausal = problem.variant.form.mask == .causal
        // Lengths have 31 bits, so a wider window is no window, and sums with one never overflow.
        window = min(problem.variant.form.windowLeft ?? .max, 1 << 33)
        keyPositions = problem.geometry.blocks.keyPositions
        self.analysis = analysis
        queryHeads = problem.shape.queryHeads
        firstMasked = problem.geometry.levelStarts.last ?? 0
    }

    /// A range that holds every key that any of a request's `queries` can see.
    ///
    /// Causality and window are one subtraction each, read off the mask's conditions; anything else is found by halving.
    @inline(__always)
    func keys(_ request: Int, of queries: Range<Int>, queryCount: Int, keyCount: Int) -> Range<Int> {
        guard keyPositions != .columns, request >= firstMasked else { return 0..<keyCount }
        let offset = keyCount - queryCount
        // Chosen pages leave keys out, so others are farther away than they seem: what a window hides of neighbours it hides of them.
        let isSequential = keyPositions == .sequential
        let end = isCausal && isSequential ? min(max(queries.upperBound + offset, 0), keyCount) : keyCount
        let start = min(max(queries.lowerBound + offset - window, 0), end)
        guard let analysis, isSequential else { return Range(uncheckedBounds: (start, end)) }
        return analysis.visible(
            SiteBlock(
                request: request, heads: 0..<queryHeads, queries: queries, keys: Range(uncheckedBounds: (start, end))))
    }
}
