/// Scores of each request's pages by their bounds: the most that q · k can be for any key of the page (Quest, arXiv 2406.10774), which
/// ``SelectPagesOperation`` then takes.
///
/// ```
/// bound(i, h, page) = Σ_d max(q[i, h, d] · bounds[page, 0, h / group, d], q[i, h, d] · bounds[page, 1, h / group, d])
/// scores[r, g, place] = max or Σ of bound(i, h, table[r, place])     over the request's query rows i and the query heads h of kv head g
/// scores[r, place]    = max or Σ                                     over all query heads
/// ```
/// Products are exact for 16-bit types and sums have 32 bits. The softmax's scale, being positive, changes no order and is left out, as are the
/// scales of quantised keys. The bounds are of keys as they are stored: where attention rotates them as it loads them (``RoPEParameters`` in
/// a variant) these are no bounds of its scores.
///
/// Tables and lengths are read on the device. It reads the bounds of every page once, `2 · headDim · kvHeads` elements a page, and its time is
/// that of these reads.
public struct ScorePagesOperation: Sendable, Equatable {
    /// What becomes of the bounds of several query heads and rows.
    public enum Reduction: Sendable, Hashable, CaseIterable {
        /// The greatest: a page is worth what it is to the head that wants it most.
        case maximum
        /// Their sum: heads have votes.
        case sum
    }

    /// `[requests · n, queryHeads, headDim]`, float32, float16 or bfloat16, stride 1 within a head: n rows of each request.
    public var queries: TensorView
    /// `[pages, 2, kvHeads, headDim]`, as ``UpdatePageBoundsOperation`` writes them.
    public var bounds: TensorView
    /// `[requests, width]`, int32, stride 1 within a row: each request's pages. On a GPU a page that there are no bounds of has score −∞;
    /// elsewhere it is an error.
    public var table: TensorView
    /// `[requests]`, int32, contiguous: pages of each request. On a GPU what is outside of `0 ... width` counts as the nearest of these;
    /// elsewhere it is an error.
    public var lengths: TensorView
    /// What becomes of the bounds of several query heads and rows.
    public var reduction: Reduction
    /// `[requests, kvHeads, width]`, float32, stride 1 within a row: a score for each kv head; or `[requests, width]`, of all together.
    /// Entries past a request's length are not written.
    public var scores: TensorView

    /// An operation; call ``validate()`` before it is executed.
    public init(
        queries: TensorView, bounds: TensorView, table: TensorView, lengths: TensorView,
        reduction: Reduction = .maximum, scores: TensorView
    ) {
        self.queries = queries
        self.bounds = bounds
        self.table = table
        self.lengths = lengths
        self.reduction = reduction
        self.scores = scores
    }

    /// Whether each kv head has scores of its own.
    package var isPerHead: Bool { scores.rank == 3 }
    /// Query rows of a request.
    package var rowsPerRequest: Int { table.shape[0] == 0 ? 1 : queries.shape[0] / table.shape[0] }
    /// Query heads of a kv head.
    package var group: Int { queries.shape[1] / bounds.shape[2] }

    /// Checks every tensor, and tables and lengths where the host can read them.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor or the request, what it is, and what it must be.
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: scores.device)
        let requests = try Self.check(table, checks)
        let width = table.shape[1]
        guard queries.rank == 3 else {
            throw .invalidArgument(
                "queries", found: "of shape \(queries.shape)", expected: "[requests · n, queryHeads, headDim]")
        }
        try checks.rows(queries, "queries")
        guard requests == 0 ? queries.shape[0] == 0 : queries.shape[0] > 0 && queries.shape[0] % requests == 0 else {
            throw .invalidArgument(
                "queries", found: "\(queries.shape[0]) rows", expected: "as many for each of \(requests) requests")
        }
        guard bounds.rank == 4, bounds.shape[2] >= 1, queries.shape[1] >= 1, queries.shape[1] % bounds.shape[2] == 0
        else {
            throw .invalidArgument(
                "bounds", found: "of shape \(bounds.shape)",
                expected: "[pages, 2, kv heads that divide \(queries.shape[1]) query heads, \(queries.shape[2])]")
        }
        try UpdatePageBoundsOperation.check(bounds, pages: nil, heads: bounds.shape[2], headDim: queries.shape[2])
        try checks.here(bounds, "bounds")
        let heads = bounds.shape[2]
        let isRight =
            scores.rank == 3
            ? scores.shape == [requests, heads, width] : scores.rank == 2 && scores.shape == [requests, width]
        guard scores.dtype == .float32, isRight else {
            throw .invalidArgument(
                "scores", found: "\(scores.dtype) \(scores.shape)",
                expected: "float32 [\(requests), \(width)], or [\(requests), \(heads), \(width)]")
        }
        try checks.rows(scores, "scores")
        try checks.writable(scores, "scores")
        try checks.distinct(scores, "scores", from: queries, "queries")
        try checks.distinct(scores, "scores", from: bounds, "bounds")
        try checks.vector(lengths, "lengths", .int32, requests)
        try checks.ids(lengths, "lengths", below: width + 1)
        guard table.device == .cpu, let counts = lengths.pointer?.assumingMemoryBound(to: Int32.self),
            let pages = table.pointer?.assumingMemoryBound(to: Int32.self)
        else { return }
        for request in 0..<requests {
            for place in 0..<Int(counts[request]) {
                let page = Int(pages[request * table.strides[0] + place])
                guard page >= 0, page < bounds.shape[0] else {
                    throw .pageOutOfRange(request: request, position: place, page: page, pageCount: bounds.shape[0])
                }
            }
        }
    }

    /// Checks a table of pages; the requests that it has.
    static func check(_ table: TensorView, _ checks: TensorChecks) throws(FlashInferError) -> Int {
        guard table.dtype == .int32, table.rank == 2, table.shape[1] <= Int(Int32.max) else {
            throw .invalidArgument(
                "table", found: "\(table.dtype) \(table.shape)", expected: "int32 [requests, pages]")
        }
        try checks.anyRows(table, "table")
        return table.shape[0]
    }
}
