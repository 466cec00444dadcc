extension BatchGeometry {
    /// A batch over a paged KV cache.
    ///
    /// - Parameters:
    ///   - queryIndptr: `[requests + 1]`, running sum of query lengths; `nil` for decode, one query row a request.
    ///   - pageIndptr: `[requests + 1]`, where each request's page ids start in `pageIndices`.
    ///   - pageIndices: page ids; entries past `pageIndptr.last` are ignored.
    ///   - lastPageLengths: `[requests]`, keys in each request's last page, `1 ... pageSize`. A request without pages has no keys;
    ///     its entry may also be 0.
    ///   - pageSize: keys per page, 1 or more.
    ///   - pageCount: pages of the cache; every page id must be below it.
    /// - Throws: ``FlashInferError`` that names the request and the value.
    /// - Complexity: O(requests + pages).
    public static func paged(
        queryIndptr: [Int32]? = nil, pageIndptr: [Int32], pageIndices: [Int32], lastPageLengths: [Int32], pageSize: Int,
        pageCount: Int
    ) throws(FlashInferError) -> BatchGeometry {
        let requests = lastPageLengths.count
        let lengths = try KVPositions.sequenceLengths(
            pageIndptr: pageIndptr, lastPageLengths: lastPageLengths, pageSize: pageSize)
        if let queryIndptr { try Indptr.validate(queryIndptr, "query indptr", requests: requests) }
        guard Int(pageIndptr[requests]) <= pageIndices.count else {
            throw .lengthMismatch("page indices", found: pageIndices.count, expected: Int(pageIndptr[requests]))
        }
        try validatePages(pageIndptr: pageIndptr, pageIndices: pageIndices, pageCount: pageCount)
        let decode = queryIndptr ?? (0...Int32(requests)).map { $0 }
        return BatchGeometry(
            queryIndptr: decode,
            blocks: KVBlockTable(
                blockSize: pageSize, indptr: pageIndptr, indices: pageIndices, lengths: lengths, blockLimit: pageCount))
    }

    private static func validatePages(
        pageIndptr: [Int32], pageIndices: [Int32], pageCount: Int
    ) throws(FlashInferError) {
        let used = Int(pageIndptr[pageIndptr.count - 1])
        // One pass with no branch per page finds whether anything is wrong; only then is the culprit looked for.
        var largest: UInt32 = 0
        pageIndices.withUnsafeBufferPointer { pages in
            for index in 0..<used { largest = max(largest, UInt32(bitPattern: pages[index])) }
        }
        if used == 0 || Int(largest) < pageCount { return }
        for request in 0..<pageIndptr.count - 1 {
            for index in Int(pageIndptr[request])..<Int(pageIndptr[request + 1]) {
                let page = Int(pageIndices[index])
                guard page >= 0, page < pageCount else {
                    throw .pageOutOfRange(
                        request: request, position: index - Int(pageIndptr[request]), page: page, pageCount: pageCount)
                }
            }
        }
    }
}
