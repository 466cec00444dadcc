/// Where each request's keys and values lie: the block-sparse form that every KV cache takes here.
///
/// Request `r` has `lengths[r]` keys. Key `j` lies in block `indices[indptr[r] + j / blockSize]`, at row `j % blockSize`.
/// A page table is this with `blockSize` = page size and block ids = page ids. A ragged or contiguous tensor is this with one
/// block per request, whose id is the request's first row and whose blocks start at every row (see ``KVTensor``).
/// A block-sparse matrix is this with one request per block row.
public struct KVBlockTable: Sendable, Equatable {
    /// Which position the masks see for a key.
    public enum KeyPositions: Sendable, Hashable {
        /// Key `j` of a request has position `j`: sequences.
        case sequential
        /// A key has the position of its column in the whole matrix, `block id × blockSize + row`: block-sparse matrices.
        case columns
        /// A key has the position that its block has in the sequence, `place × blockSize + row`: some pages of a sequence, whose places a
        /// run gives (``AttentionOperation/pagePositions``).
        case places
    }

    /// Keys per block, 1 or more.
    public let blockSize: Int

    /// `[requests + 1]`: where each request's block ids start in `indices`.
    public let indptr: [Int32]

    /// `[indptr.last]`: block ids. Ids past a request's length are never read.
    public let indices: [Int32]

    /// `[requests]`: the number of keys of each request.
    public let lengths: [Int32]

    /// Every block id that is read is below this.
    public let blockLimit: Int

    /// Which position the masks see for a key.
    public let keyPositions: KeyPositions

    /// `[requests]`: keys of each whole sequence, where positions are places in it; else empty.
    public let sequenceLengths: [Int32]

    /// Entries of a request's table from one kv head's to the next one's, where heads have tables of their own, one after another; 0 where
    /// all heads have one.
    public let headStride: Int

    /// Whether block ids are rows of a ragged tensor, where a block starts at every row, and not pages.
    public let blocksAreRows: Bool

    /// The number of requests.
    public var requestCount: Int { lengths.count }

    /// Known-good parts, as made by the checked geometries.
    internal init(
        blockSize: Int, indptr: [Int32], indices: [Int32], lengths: [Int32], blockLimit: Int,
        keyPositions: KeyPositions = .sequential, sequenceLengths: [Int32] = [], headStride: Int = 0,
        blocksAreRows: Bool = false
    ) {
        self.blockSize = blockSize
        self.indptr = indptr
        self.indices = indices
        self.lengths = lengths
        self.blockLimit = blockLimit
        self.keyPositions = keyPositions
        self.sequenceLengths = sequenceLengths
        self.headStride = headStride
        self.blocksAreRows = blocksAreRows
    }
}
