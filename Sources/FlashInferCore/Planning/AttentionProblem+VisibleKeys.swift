extension AttentionProblem {
    /// A range that holds every key that any of `queries` (rows of request `request`) can see; empty where they see none.
    package func visibleKeys(_ request: Int, queries: Range<Int>) -> Range<Int> {
        KeyVisibility(self).keys(
            of: queries, queryCount: geometry.queryLength(request), keyCount: geometry.kvLength(request))
    }
}

/// What of a variant says which keys a tile can skip, read once for a whole batch.
struct KeyVisibility {
    private let isCausal: Bool
    /// The window, with "none" as one that no sequence is longer than.
    private let window: Int
    /// Whether positions are in the order of the keys; with keys at their matrix columns, masks hide but skip nothing.
    private let isSequential: Bool

    init(_ problem: AttentionProblem) {
        isCausal = problem.variant.mask == .causal
        // Lengths have 31 bits, so a wider window is no window, and sums with one never overflow.
        window = min(problem.variant.windowLeft ?? .max, 1 << 33)
        isSequential = problem.geometry.blocks.keyPositions == .sequential
    }

    /// A range that holds every key that any of a request's `queries` can see.
    @inline(__always)
    func keys(of queries: Range<Int>, queryCount: Int, keyCount: Int) -> Range<Int> {
        guard isSequential else { return 0..<keyCount }
        let offset = keyCount - queryCount
        let end = isCausal ? min(max(queries.upperBound + offset, 0), keyCount) : keyCount
        let start = min(max(queries.lowerBound + offset - window, 0), end)
        return Range(uncheckedBounds: (start, end))
    }
}
