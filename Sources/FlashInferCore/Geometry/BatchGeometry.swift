/// The lengths and tables of a batch, checked once: which query rows and which keys each request has.
///
/// Make one with ``paged(queryIndptr:pageIndptr:pageIndices:lastPageLengths:pageSize:pageCount:)``,
/// ``ragged(queryIndptr:kvIndptr:)``, ``contiguous(queryLength:kvLength:)`` or
/// ``blockSparse(rows:columns:rowBlock:columnBlock:indptr:indices:)``. All are one form: queries as an indptr, keys as a
/// ``KVBlockTable``.
public struct BatchGeometry: Sendable, Equatable {
    /// `[requests + 1]`: request `r` has query rows `queryIndptr[r] ..< queryIndptr[r + 1]`.
    public let queryIndptr: [Int32]

    /// Where the keys and values lie.
    public let blocks: KVBlockTable

    /// The number of requests.
    public var requestCount: Int { blocks.requestCount }

    /// The number of query rows (tokens) of all requests together.
    public var queryCount: Int { Int(queryIndptr[requestCount]) }

    /// The number of query rows of request `request`.
    public func queryLength(_ request: Int) -> Int { Int(queryIndptr[request + 1]) - Int(queryIndptr[request]) }

    /// The number of keys of request `request`.
    public func kvLength(_ request: Int) -> Int { Int(blocks.lengths[request]) }

    internal init(queryIndptr: [Int32], blocks: KVBlockTable) {
        self.queryIndptr = queryIndptr
        self.blocks = blocks
    }
}
