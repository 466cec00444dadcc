extension BatchGeometry {
    /// A batch over pages that are chosen on the device, `pagesPerRequest` of each request at most, its last page among them: what is run
    /// with ``AttentionOperation/pageIndices`` of `[requests, pagesPerRequest]`, as ``SelectPagesOperation`` writes them.
    ///
    /// A request of n pages has min(n, `pagesPerRequest`) of them, all full but the last, which has what the sequence's last page has.
    /// The page ids of the plan itself are 0.
    ///
    /// Where keys have the positions of their pages' places, runs give these too (``AttentionOperation/pagePositions``): windows, ALiBi, RoPE
    /// in attention and a variant's hooks then see each key and each query where it stands in the whole sequence. Otherwise chosen keys
    /// count as neighbours, and variants that ask for positions are refused.
    ///
    /// - Parameters:
    ///   - queryIndptr: `[requests + 1]`, running sum of query lengths; `nil` for decode, one query row a request. The last pages must
    ///     hold the queries' own keys: ``SelectPagesOperation/recent`` says how many pages are kept.
    ///   - kvLengths: `[requests]`, keys of each whole sequence.
    ///   - pagesPerRequest: k, 1 or more.
    ///   - pageSize: keys per page, 1 or more.
    ///   - pageCount: pages of the cache.
    ///   - keyPositions: `sequential`, or `places`.
    ///   - tableHeads: how many kv heads have a table each, all that the problem has: page ids and places are then
    ///     `[requests, tableHeads, pagesPerRequest]`. `nil` for one table that all heads share.
    /// - Throws: ``FlashInferError`` that names the request and the value.
    /// - Complexity: O(requests · tableHeads · pagesPerRequest).
    public static func selectedPages(
        queryIndptr: [Int32]? = nil, kvLengths: [Int32], pagesPerRequest: Int, pageSize: Int, pageCount: Int,
        keyPositions: KVBlockTable.KeyPositions = .sequential, tableHeads: Int? = nil
    ) throws(FlashInferError) -> BatchGeometry {
        guard pageSize >= 1, pageSize <= Int(Int32.max) else {
            throw .invalidArgument("page size", found: "\(pageSize)", expected: "in 1 ... \(Int32.max)")
        }
        guard pagesPerRequest >= 1 else {
            throw .invalidArgument("pages per request", found: "\(pagesPerRequest)", expected: "1 or more")
        }
        guard tableHeads ?? 1 >= 1 else {
            throw .invalidArgument("heads with tables", found: "\(tableHeads ?? 1)", expected: "1 or more, or nil")
        }
        guard keyPositions != .columns else {
            throw .invalidArgument(
                "key positions of selected pages", found: "columns", expected: "sequential, or places")
        }
        let (entries, overflow) = pagesPerRequest.multipliedReportingOverflow(by: tableHeads ?? 1)
        let (allEntries, allOverflow) = kvLengths.count.multipliedReportingOverflow(by: entries)
        guard !overflow, !allOverflow, allEntries <= Int(Int32.max) else {
            throw .overflow("the selected pages of all requests")
        }
        guard pageCount >= 1 else {
            throw .invalidArgument("page count", found: "\(pageCount)", expected: "1 or more")
        }
        var lengths: [Int32] = []
        lengths.reserveCapacity(kvLengths.count)
        for (request, length) in kvLengths.enumerated() {
            guard length >= 0 else {
                throw .invalidRequest(request, argument: "kv length", found: Int(length), expected: "0 or more")
            }
            let pages = (Int(length) + pageSize - 1) / pageSize
            let (left, _) = (pages - min(pages, pagesPerRequest)).multipliedReportingOverflow(by: pageSize)
            lengths.append(length - Int32(left))
        }
        let geometry = try paged(
            queryIndptr: queryIndptr, pageIndptr: (0...kvLengths.count).map { Int32($0 * entries) },
            pageIndices: [Int32](repeating: 0, count: allEntries), kvLengths: lengths,
            pageSize: pageSize, pageCount: pageCount)
        let blocks = geometry.blocks
        return BatchGeometry(
            queryIndptr: geometry.queryIndptr,
            blocks: KVBlockTable(
                blockSize: pageSize, indptr: blocks.indptr, indices: blocks.indices, lengths: lengths,
                blockLimit: pageCount, keyPositions: keyPositions,
                sequenceLengths: keyPositions == .places ? kvLengths : [],
                headStride: tableHeads == nil ? 0 : pagesPerRequest))
    }
}
