extension BatchGeometry {
    /// Several geometries over the same query rows as one: composable formats (FlashInfer, arXiv 2501.01005, section 3.1.2).
    ///
    /// A level says which keys groups of neighbouring query rows have; a row's keys are those of its requests in all levels, which must be
    /// different keys. A prefix that many sequences share is one request of all their rows: its keys are read once for all of them, as
    /// the keys of a request are. A tree of prefixes has a level for each depth; where a group has nothing at some depth, its
    /// request has no keys.
    ///
    /// ```swift
    /// // Two samples of one prompt: three pages for both, and one page of its own for each.
    /// let shared = try BatchGeometry.paged(
    ///     queryIndptr: [0, 2], pageIndptr: [0, 3], pageIndices: [0, 1, 2], lastPageLengths: [16], pageSize: 16, pageCount: 8)
    /// let own = try BatchGeometry.paged(
    ///     queryIndptr: [0, 1, 2], pageIndptr: [0, 1, 2], pageIndices: [3, 4], lastPageLengths: [5, 9], pageSize: 16,
    ///     pageCount: 8)
    /// let geometry = try BatchGeometry.composed([shared, own])
    /// ```
    /// All levels are planned, and run, as one batch: partial results meet in the workspace and are merged by their log-sum-exps. The last
    /// level's requests are the sequences' ends: the variant's mask applies to them, as if their keys were the whole sequence. The
    /// keys of all other levels are seen by all of their rows, so they must come before the first query of each. Variants that
    /// ask for positions (windows, ALiBi, RoPE, masks and logits of one's own) have no meaning there and are refused when a problem is
    /// made.
    ///
    /// - Parameter levels: from the root to the leaves; each over the same number of query rows, in pages of one size (of one cache)
    ///   or all in one ragged tensor.
    /// - Throws: ``FlashInferError`` that names the level and the value.
    /// - Complexity: O(requests + pages).
    public static func composed(_ levels: [BatchGeometry]) throws(FlashInferError) -> BatchGeometry {
        guard let last = levels.last else {
            throw .invalidArgument("levels", found: "none", expected: "1 or more")
        }
        if levels.count == 1 { return last }
        for (index, level) in levels.enumerated() { try check(level, as: last, "levels[\(index)]") }
        let rows = last.queryCount
        guard rows <= Int(Int32.max) / levels.count else { throw .overflow("query rows of all levels") }
        let blockCount = levels.reduce(0) { $0 + Int($1.blocks.indptr[$1.requestCount]) }
        guard blockCount <= Int(Int32.max) else { throw .overflow("block ids of all levels") }

        let requests = levels.reduce(0) { $0 + $1.requestCount }
        var (queryIndptr, blockIndptr): ([Int32], [Int32]) = ([0], [0])
        var (indices, lengths): ([Int32], [Int32]) = ([], [])
        var levelStarts: [Int] = []
        queryIndptr.reserveCapacity(requests + 1)
        blockIndptr.reserveCapacity(requests + 1)
        indices.reserveCapacity(blockCount)
        lengths.reserveCapacity(requests)
        for (index, level) in levels.enumerated() {
            if index > 0 { levelStarts.append(lengths.count) }
            let (firstRow, firstBlock) = (Int32(index * rows), Int32(indices.count))
            queryIndptr += level.queryIndptr[1...].lazy.map { $0 + firstRow }
            blockIndptr += level.blocks.indptr[1...].lazy.map { $0 + firstBlock }
            indices += level.blocks.indices[..<Int(level.blocks.indptr[level.requestCount])]
            lengths += level.blocks.lengths
        }
        return BatchGeometry(
            queryIndptr: queryIndptr,
            blocks: KVBlockTable(
                blockSize: levels.reduce(1) { max($0, $1.blocks.blockSize) }, indptr: blockIndptr, indices: indices,
                lengths: lengths, blockLimit: levels.reduce(0) { max($0, $1.blocks.blockLimit) },
                blocksAreRows: last.blocks.blocksAreRows),
            levelStarts: levelStarts)
    }

    private static func check(
        _ level: BatchGeometry, as last: BatchGeometry, _ name: String
    ) throws(FlashInferError) {
        guard level.levelCount == 1 else {
            throw .invalidArgument(name, found: "\(level.levelCount) levels", expected: "one; give them one by one")
        }
        guard level.queryCount == last.queryCount else {
            throw .invalidArgument(
                name, found: "\(level.queryCount) query rows", expected: "\(last.queryCount), as the last level has")
        }
        guard level.blocks.keyPositions == .sequential, level.blocks.headStride == 0 else {
            throw .invalidArgument(
                name,
                found: level.blocks.keyPositions == .columns
                    ? "a block-sparse matrix" : "selected pages with places, or of each head",
                expected: "paged or ragged keys; merge the states of both instead")
        }
        guard level.blocks.blocksAreRows == last.blocks.blocksAreRows,
            level.blocks.blocksAreRows || level.blocks.blockSize == last.blocks.blockSize
        else {
            func kind(_ blocks: KVBlockTable) -> String {
                blocks.blocksAreRows ? "a ragged tensor" : "pages of \(blocks.blockSize)"
            }
            throw .invalidArgument(
                name, found: kind(level.blocks), expected: "\(kind(last.blocks)), as the last level has")
        }
    }
}
