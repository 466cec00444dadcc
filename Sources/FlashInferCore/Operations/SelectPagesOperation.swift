/// The pages of each row's greatest scores, in the order of their places: what a page table of attention over selected pages is.
///
/// ```
/// chosen[r]   = the k greatest of scores[r, 0 ..< lengths[r]], the last `recent` places always among them, ascending
/// pages[r, i] = table[request(r), chosen[r][i]]     or  chosen[r][i] + offsets[r]
/// pages[r, i] = −1 for i ≥ lengths[r]
/// ```
/// Of equal scores the lowest places are taken, or the highest; zeros of both signs are equal, and a NaN comes before every number: so
/// the result is one and the same on every device. As places ascend, the chosen keys stay in the order of their positions, and with
/// `recent` ≥ 1 a sequence's last page, the only one that may not be full, is the last chosen: a request of n keys has
/// `(min(k, pages) − 1) · pageSize + (keys of its last page)` of them, which the host knows without reading what was chosen.
///
/// A plan over tables of k pages a request can then be run, and replayed in a graph, with `pages` in place of its page ids
/// (``AttentionOperation/pageIndices``), and with `positions` where its variant asks where keys stand
/// (``AttentionOperation/pagePositions``). Lengths, tables and scores are read on the device. Scores are often the pages' bounds:
/// ``ScorePagesOperation``.
///
/// Page-level selection is Quest's (arXiv 2406.10774), token-level selection is DeepSeek sparse attention's; FlashInfer has both as
/// `top_k_page_table_transform` and `top_k_ragged_transform`.
public struct SelectPagesOperation: Sendable, Equatable {
    /// What a chosen place becomes.
    public enum Transform: Sendable, Equatable {
        /// Its entry in the row of a table, `[requests, pages]`, int32, stride 1 within a row: at least as many as scores have.
        case table(TensorView)
        /// Itself and the row's offset, `[rows]`, int32, contiguous.
        case offsets(TensorView)
    }

    /// `[rows, width]`, stride 1 within a row, float32, float16 or bfloat16: a row is a request. Or `[requests, heads, width]`: each kv head
    /// of a request has scores, and a selection, of its own; lengths, requests and offsets are the requests'.
    public var scores: TensorView
    /// `[rows]` (or requests), int32, contiguous: how many of a row's scores there are. On a GPU what is outside of `0 ... width` counts as the nearest
    /// of these; elsewhere it is an error.
    public var lengths: TensorView
    /// What a chosen place becomes.
    public var transform: Transform
    /// `[rows]`, int32, contiguous: the request, or row of the table, of each row; `nil` where row `r` is request `r`. On a GPU a row of
    /// a request that is not there has pages of −1; elsewhere it is an error.
    public var requests: TensorView?
    /// The last places of each row that are chosen whatever their scores; at most k of them count.
    public var recent: Int
    /// Which of equal scores are taken.
    public var ties: Ties
    /// `[rows, k]`, or `[requests, heads, k]` as scores are, int32, stride 1 within a row.
    public var pages: TensorView
    /// Of `pages`' shape, int32: the chosen places themselves, −1 where there is none; `nil` where not wanted.
    public var positions: TensorView?

    /// Which of equal scores are taken.
    public enum Ties: Sendable, Hashable, CaseIterable {
        /// Those of the lowest places.
        case lowest
        /// Those of the highest.
        case highest
    }

    /// An operation; call ``validate()`` before it is executed.
    public init(
        scores: TensorView, lengths: TensorView, transform: Transform, requests: TensorView? = nil, recent: Int = 1,
        ties: Ties = .lowest, pages: TensorView, positions: TensorView? = nil
    ) {
        self.scores = scores
        self.lengths = lengths
        self.transform = transform
        self.requests = requests
        self.recent = recent
        self.ties = ties
        self.pages = pages
        self.positions = positions
    }

    /// Checks every tensor, and lengths and requests where the host can read them.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor or the row, what it is, and what it must be.
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: scores.device)
        guard scores.rank == 2 || scores.rank == 3 else {
            throw .invalidArgument(
                "scores", found: "of shape \(scores.shape)", expected: "[rows, width], or [requests, heads, width]")
        }
        try checks.rows(scores, "scores")
        let (rows, width) = (scores.shape[0], scores.shape[-1])
        guard width <= Int(Int32.max) else { throw .overflow("scores of a row") }
        guard recent >= 0 else {
            throw .invalidArgument("recent", found: "\(recent)", expected: "0 or more")
        }
        try checks.vector(lengths, "lengths", .int32, rows)
        guard pages.dtype == .int32, pages.rank == scores.rank, pages.shape[0] == rows, pages.shape[-1] >= 1,
            scores.rank == 2 || pages.shape[1] == scores.shape[1]
        else {
            throw .invalidArgument(
                "pages", found: "\(pages.dtype) \(pages.shape)",
                expected: scores.rank == 2
                    ? "int32 [\(rows), k], k 1 or more" : "int32 [\(rows), \(scores.shape[1]), k], k 1 or more")
        }
        try checkOutput(pages, "pages", checks)
        if let positions {
            guard positions.dtype == .int32, positions.shape == pages.shape else {
                throw .invalidArgument(
                    "positions", found: "\(positions.dtype) \(positions.shape)",
                    expected: "int32 \(pages.shape), as pages")
            }
            try checkOutput(positions, "positions", checks)
            try checks.apart(positions, "positions", from: pages, "pages")
        }
        if let requests { try checks.vector(requests, "requests", .int32, rows) }
        switch transform {
        case .table(let table):
            guard table.dtype == .int32, table.rank == 2, table.shape[1] >= width else {
                throw .invalidArgument(
                    "table", found: "\(table.dtype) \(table.shape)",
                    expected: "int32 [requests, pages] of at least \(width) pages, as scores have")
            }
            guard requests != nil || table.shape[0] == rows else {
                throw .invalidArgument(
                    "table", found: "of \(table.shape[0]) requests",
                    expected: "\(rows), one for each row of scores, or the rows' requests")
            }
            try checks.anyRows(table, "table")
            try checks.apart(pages, "pages", from: table, "table")
            if let positions { try checks.apart(positions, "positions", from: table, "table") }
            if let requests { try checks.ids(requests, "requests", below: table.shape[0]) }
        case .offsets(let offsets):
            try checks.vector(offsets, "offsets", .int32, rows)
            try checks.distinct(pages, "pages", from: offsets, "offsets")
            guard requests == nil else {
                throw .invalidArgument("requests", found: "given", expected: "nil: offsets are the rows' own")
            }
        }
        try checks.ids(lengths, "lengths", below: width + 1)
    }

    private func checkOutput(_ view: TensorView, _ name: String, _ checks: TensorChecks) throws(FlashInferError) {
        try checks.anyRows(view, name)
        try checks.writable(view, name)
        try checks.apart(view, name, from: scores, "scores")
        try checks.distinct(view, name, from: lengths, "lengths")
    }

    /// Rows that share a request's length and table: its kv heads, or 1.
    package var rowsPerRequest: Int { scores.rank == 3 ? scores.shape[1] : 1 }
}
