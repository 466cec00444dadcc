/// The lengths and tables of a batch, checked once: which query rows and which keys each request has.
///
/// Make one with ``paged(queryIndptr:pageIndptr:pageIndices:lastPageLengths:pageSize:pageCount:)``,
/// ``ragged(queryIndptr:kvIndptr:)``, ``contiguous(queryLength:kvLength:)`` or
/// ``blockSparse(rows:columns:rowBlock:columnBlock:indptr:indices:)``, or of several by ``composed(_:)``. All are one form: queries as
/// an indptr, keys as a ``KVBlockTable``.
public struct BatchGeometry: Sendable, Equatable {
    /// `[requests + 1]`: request `r` has query rows `queryIndptr[r] ..< queryIndptr[r + 1]`.
    ///
    /// A composed geometry counts the batch's rows once for each level: request `r` of level `l` then has the rows
    /// `queryIndptr[r] − l · queryCount` on.
    public let queryIndptr: [Int32]

    /// Where the keys and values lie.
    public let blocks: KVBlockTable

    /// The number of requests.
    public var requestCount: Int { blocks.requestCount }

    /// The request that each level but the first starts with; empty for what is not composed.
    let levelStarts: [Int]

    /// How many levels of requests there are, each over all query rows: 1 but for what ``composed(_:)`` makes.
    public var levelCount: Int { levelStarts.count + 1 }

    /// The requests of one level.
    ///
    /// - Precondition: `level` is in `0 ..< levelCount`.
    public func requests(ofLevel level: Int) -> Range<Int> {
        (level == 0 ? 0 : levelStarts[level - 1])..<(level == levelStarts.count ? requestCount : levelStarts[level])
    }

    /// The number of query rows (tokens) of all requests together; of all requests of any one level.
    public var queryCount: Int { Int(queryIndptr[requestCount]) / levelCount }

    /// The first query row of request `request`; of no account for a request without any.
    public func firstQuery(_ request: Int) -> Int {
        let first = Int(queryIndptr[request])
        return levelStarts.isEmpty || first == 0 ? first : first % queryCount
    }

    /// Whether the rows of request `request` see all of its keys, whatever the mask: requests of all levels but the last.
    @inline(__always)
    package func isShared(_ request: Int) -> Bool {
        guard let last = levelStarts.last else { return false }
        return request < last
    }

    /// The number of query rows of request `request`.
    public func queryLength(_ request: Int) -> Int { Int(queryIndptr[request + 1]) - Int(queryIndptr[request]) }

    /// The number of keys of request `request`.
    public func kvLength(_ request: Int) -> Int { Int(blocks.lengths[request]) }

    /// The number of keys of the sequence that request `request` sees some pages of, or all: its last query row has the last position.
    public func sequenceLength(_ request: Int) -> Int {
        blocks.keyPositions == .places ? Int(blocks.sequenceLengths[request]) : kvLength(request)
    }

    internal init(queryIndptr: [Int32], blocks: KVBlockTable, levelStarts: [Int] = []) {
        self.queryIndptr = queryIndptr
        self.blocks = blocks
        self.levelStarts = levelStarts
    }
}
