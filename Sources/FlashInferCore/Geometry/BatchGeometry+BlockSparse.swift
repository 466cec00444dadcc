extension BatchGeometry {
    /// A block-sparse attention matrix (BSR): which blocks of `rowBlock` queries see which blocks of `columnBlock` keys.
    ///
    /// Each block row becomes one request, with the keys of its blocks, in the order given. Masks see a key's column in the
    /// whole matrix as its position.
    ///
    /// - Parameters:
    ///   - rows: query rows of the whole matrix; the last block row may be short.
    ///   - columns: keys of the whole matrix, a multiple of `columnBlock`.
    ///   - indptr: `[ceil(rows / rowBlock) + 1]`, where each block row's block ids start in `indices`.
    ///   - indices: block columns, each below `columns / columnBlock`.
    /// - Throws: ``FlashInferError`` that names the block row (as the request) and the value.
    public static func blockSparse(
        rows: Int, columns: Int, rowBlock: Int, columnBlock: Int, indptr: [Int32], indices: [Int32]
    ) throws(FlashInferError) -> BatchGeometry {
        guard rowBlock >= 1 else { throw .invalidArgument("row block", found: "\(rowBlock)", expected: "1 or more") }
        guard columnBlock >= 1 else {
            throw .invalidArgument("column block", found: "\(columnBlock)", expected: "1 or more")
        }
        guard rows >= 0, rows <= Int(Int32.max) else {
            throw .invalidArgument("rows", found: "\(rows)", expected: "in 0 ... \(Int32.max)")
        }
        guard columns >= 0, columns <= Int(Int32.max), columns % columnBlock == 0 else {
            throw .invalidArgument(
                "columns", found: "\(columns)", expected: "a multiple of \(columnBlock) in 0 ... \(Int32.max)")
        }
        let blockRows = rows / rowBlock + (rows % rowBlock == 0 ? 0 : 1)
        let queryIndptr = (0...blockRows).map { Int32(min($0 * rowBlock, rows)) }
        let geometry = try paged(
            queryIndptr: queryIndptr, pageIndptr: indptr, pageIndices: indices,
            lastPageLengths: [Int32](repeating: Int32(columnBlock), count: blockRows), pageSize: columnBlock,
            pageCount: columns / columnBlock)
        let blocks = geometry.blocks
        return BatchGeometry(
            queryIndptr: queryIndptr,
            blocks: KVBlockTable(
                blockSize: columnBlock, indptr: blocks.indptr, indices: blocks.indices, lengths: blocks.lengths,
                blockLimit: blocks.blockLimit, keyPositions: .columns))
    }

    /// The matrix without blocks that causality, or the window, hides from all of a block row's queries.
    ///
    /// - Complexity: O(blocks).
    func withoutHiddenBlocks(isCausal: Bool, windowLeft: Int?) -> BatchGeometry {
        let size = blocks.blockSize
        let offset = blocks.blockLimit * size - queryCount
        var (indptr, indices, lengths): ([Int32], [Int32], [Int32]) = ([0], [], [])
        indptr.reserveCapacity(blocks.indptr.count)
        indices.reserveCapacity(blocks.indices.count)
        lengths.reserveCapacity(requestCount)
        for request in 0..<requestCount {
            let first = offset + Int(queryIndptr[request])
            let last = offset + Int(queryIndptr[request + 1]) - 1
            let nearest = isCausal ? last : .max
            let farthest = windowLeft.map { first - min($0, 1 << 33) } ?? .min
            for index in Int(blocks.indptr[request])..<Int(blocks.indptr[request + 1]) {
                let column = Int(blocks.indices[index]) * size
                if column <= nearest, column + size - 1 >= farthest { indices.append(blocks.indices[index]) }
            }
            lengths.append((Int32(indices.count) - indptr[request]) * Int32(size))
            indptr.append(Int32(indices.count))
        }
        return BatchGeometry(
            queryIndptr: queryIndptr,
            blocks: KVBlockTable(
                blockSize: size, indptr: indptr, indices: indices, lengths: lengths, blockLimit: blocks.blockLimit,
                keyPositions: .columns))
    }
}
