/// The bounds of pages' keys after an append: of every page that new keys have come to, and every head and element, the least and the
/// greatest of the page's keys. ``ScorePagesOperation`` scores pages by them (Quest, arXiv 2406.10774).
///
/// ```
/// bounds[page, 0, h, d] = min_t keys[page, t, h, d]
/// bounds[page, 1, h, d] = max_t keys[page, t, h, d]     t < the keys that the sequence has in the page
/// ```
/// A page's bounds are computed anew from all keys that its sequence has in it, so they are tight whatever lay there before: in a page that
/// is not full yet, in one that another sequence had, and in one whose keys were rolled back and written again. Rows of no key are not read.
/// NaN is passed over.
///
/// Tables and lengths are read on the device, so a captured graph brings the bounds of each replay's pages up to date. It runs after the
/// append of the same keys; with `appended` of the lengths themselves it makes the bounds of whole sequences. Of each page touched it reads
/// the keys once, `pageSize · kvHeads · headDim` elements.
public struct UpdatePageBoundsOperation: Sendable, Equatable {
    /// The keys of a paged cache, of any cache type.
    public var keys: KVTensor
    /// `[pages, 2, kvHeads, headDim]`, stride 1 in the last dimension: least and greatest stored numbers (scales not applied). Of the keys'
    /// type or float32; for keys of 8 bits float16 or bfloat16 also. All of these hold every stored number exactly.
    public var bounds: TensorView
    /// `[requests, width]`, int32, stride 1 within a row: each request's pages. On a GPU a page that is not in the cache is passed over;
    /// elsewhere it is an error.
    public var table: TensorView
    /// `[requests]`, int32, contiguous: keys of each request, those appended included. At most what its row of the table holds; on a GPU
    /// keys past that are passed over.
    public var lengths: TensorView
    /// `[requests]`, int32, contiguous: how many of each request's last keys are new.
    public var appended: TensorView
    /// No request has more new keys than this: what a launch has room for. On a GPU keys before the last so many are passed over, but for
    /// those of the pages that the last so many lie in.
    public var maximumAppended: Int

    /// An operation; call ``validate()`` before it is executed.
    public init(
        keys: KVTensor, bounds: TensorView, table: TensorView, lengths: TensorView, appended: TensorView,
        maximumAppended: Int
    ) {
        self.keys = keys
        self.bounds = bounds
        self.table = table
        self.lengths = lengths
        self.appended = appended
        self.maximumAppended = maximumAppended
    }

    /// Pages that a request's new keys may lie in.
    package var maximumPages: Int {
        let size = keys.blockSize ?? 1
        return min(table.shape[1], (maximumAppended + size - 1) / size + 1)
    }

    /// The entries of a request's table whose pages new keys have come to.
    package func touched(length: Int, appended: Int) -> Range<Int> {
        let size = keys.blockSize ?? 1
        let length = min(max(length, 0), table.shape[1] * size)
        let appended = min(max(appended, 0), length, maximumAppended)
        return appended == 0 ? 0..<0 : (length - appended) / size..<(length - 1) / size + 1
    }

    /// Checks every tensor, and tables and lengths where the host can read them.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor or the request, what it is, and what it must be.
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: bounds.device)
        guard let pageSize = keys.blockSize else {
            throw .invalidArgument("keys", found: "a ragged tensor", expected: "a paged cache")
        }
        try checks.here(keys.view, "keys")
        try Self.check(bounds, pages: keys.blockCount, heads: keys.headCount, headDim: keys.headDim)
        let isNarrow = keys.dtype.byteCount == 1
        guard bounds.dtype == keys.dtype || bounds.dtype == .float32 || isNarrow else {
            throw .invalidArgument(
                "bounds", found: "\(bounds.dtype)", expected: "\(keys.dtype) as the keys, or float32")
        }
        try checks.writable(bounds, "bounds")
        try checks.distinct(bounds, "bounds", from: keys.view, "keys")
        guard maximumAppended >= 0, maximumAppended <= Int(Int32.max) else {
            throw .invalidArgument("maximumAppended", found: "\(maximumAppended)", expected: "in 0 ... \(Int32.max)")
        }
        let requests = try ScorePagesOperation.check(table, checks)
        try checks.vector(lengths, "lengths", .int32, requests)
        try checks.vector(appended, "appended", .int32, requests)
        guard table.device == .cpu, let given = lengths.pointer?.assumingMemoryBound(to: Int32.self),
            let new = appended.pointer?.assumingMemoryBound(to: Int32.self),
            let pages = table.pointer?.assumingMemoryBound(to: Int32.self)
        else { return }
        for request in 0..<requests {
            let (length, count) = (Int(given[request]), Int(new[request]))
            let room = table.shape[1] * pageSize
            guard length >= 0, length <= room else {
                throw .invalidRequest(
                    request, argument: "length", found: length, expected: "in 0 ... \(room), what its pages hold")
            }
            guard count >= 0, count <= min(length, maximumAppended) else {
                throw .invalidRequest(
                    request, argument: "appended keys", found: count,
                    expected: "in 0 ... \(min(length, maximumAppended))")
            }
            for place in touched(length: length, appended: count) {
                let page = Int(pages[request * table.strides[0] + place])
                guard page >= 0, page < keys.blockCount else {
                    throw .pageOutOfRange(request: request, position: place, page: page, pageCount: keys.blockCount)
                }
            }
        }
    }

    /// Checks the shape of bounds, of `pages` pages or, where not known, of any.
    static func check(_ bounds: TensorView, pages: Int?, heads: Int, headDim: Int) throws(FlashInferError) {
        let isRight =
            bounds.rank == 4 && bounds.shape[0] >= pages ?? 0 && bounds.shape[1] == 2 && bounds.shape[2] == heads
            && bounds.shape[3] == headDim
        guard isRight, bounds.dtype.isComputeType else {
            throw .invalidArgument(
                "bounds", found: "\(bounds.dtype) \(bounds.shape)",
                expected: "[\(pages.map { "\($0)" } ?? "pages"), 2, \(heads), \(headDim)] floating of 16 or 32 bits")
        }
        guard bounds.strides[3] == 1 || headDim <= 1 else {
            throw .invalidArgument("bounds strides", found: "\(bounds.strides)", expected: "1 in the last dimension")
        }
    }
}
