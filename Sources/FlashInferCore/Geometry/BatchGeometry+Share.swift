extension BatchGeometry {
    /// A batch over the part of a paged cache that one rank has: KV-sequence parallelism.
    ///
    /// Every rank has all query rows; this rank's keys of a request are those of its ``KVShare``, in order. A causal row at
    /// position `p` of its sequence sees this rank's keys before `p + 1`, which are always its first: rows whose own keys are here are
    /// causal over them, and rows whose own keys are elsewhere see a fixed number of keys. Each such stretch of rows becomes a request, and
    /// where stretches of several rows see a fixed number, the geometry is composed of two levels (see ``composed(_:)``). For decode it is
    /// one request a request.
    ///
    /// - Parameters:
    ///   - shares: `[requests]`: this rank's part of each request, all of one rank, world and page size.
    ///   - queryIndptr: `[requests + 1]`, running sum of query lengths; `nil` for decode, one query row a request.
    ///   - kvLengths: `[requests]`, keys of each request on all ranks together.
    ///   - pageIndptr: `[requests + 1]`, where the ids of this rank's pages of each request start in `pageIndices`.
    ///   - pageIndices: ids of this rank's pages.
    ///   - pageCount: pages of this rank's cache.
    ///   - isCausal: whether the variant's mask is causal; not causal, every row sees all keys.
    /// - Throws: ``FlashInferError`` that names the request and the value.
    /// - Complexity: O(stretches × pages): interleaved runs much shorter than the query rows of a request list its pages many times.
    public static func paged(
        shares: [KVShare], queryIndptr: [Int32]? = nil, kvLengths: [Int32], pageIndptr: [Int32], pageIndices: [Int32],
        pageCount: Int, isCausal: Bool = true
    ) throws(FlashInferError) -> BatchGeometry {
        let requests = kvLengths.count
        let queryIndptr = queryIndptr ?? (0...Int32(requests)).map { $0 }
        try Indptr.validate(queryIndptr, "query indptr", requests: requests)
        try Indptr.validate(pageIndptr, "page indptr", requests: requests)
        try check(shares, kvLengths)
        let pageSize = shares.first?.pageSize ?? 1
        for request in 0..<requests {
            let needed = shares[request].pageCount(forLength: Int(kvLengths[request]))
            let found = Int(pageIndptr[request + 1]) - Int(pageIndptr[request])
            guard found >= needed else {
                throw .invalidRequest(
                    request, argument: "pages on rank \(shares[request].rank)", found: found,
                    expected: "\(needed) or more, for its part of \(kvLengths[request]) keys")
            }
        }
        guard Int(pageIndptr[requests]) <= pageIndices.count else {
            throw .lengthMismatch("page indices", found: pageIndices.count, expected: Int(pageIndptr[requests]))
        }
        var list = StretchList()
        for request in 0..<requests {
            let rows = Int(queryIndptr[request + 1]) - Int(queryIndptr[request])
            let length = Int(kvLengths[request])
            list.add(request, positions: [length - rows..<length], length, seen: shares[request], isCausal: isCausal)
        }
        return try list.geometry { (stretches, isShared) throws(FlashInferError) in
            var (indptr, indices, lengths, rows): ([Int32], [Int32], [Int32], [Int32]) = ([0], [], [], [0])
            for stretch in stretches {
                let keys = stretch.isShared == isShared ? stretch.keys : 0
                let first = Int(pageIndptr[stretch.request])
                indices += pageIndices[first..<first + (keys + pageSize - 1) / pageSize]
                guard indices.count <= Int(Int32.max) else { throw .overflow("page ids of all stretches of rows") }
                indptr.append(Int32(indices.count))
                lengths.append(Int32(keys))
                rows.append(rows[rows.count - 1] + Int32(stretch.rows))
            }
            return try .paged(
                queryIndptr: rows, pageIndptr: indptr, pageIndices: indices, kvLengths: lengths, pageSize: pageSize,
                pageCount: pageCount)
        }
    }

    /// One step of ring attention: this rank's query rows over the keys of some rank, in a ragged tensor of that rank's keys, one
    /// request after another.
    ///
    /// - Parameters:
    ///   - shares: `[requests]`: this rank's part of each request; its query rows are those of its positions that are new.
    ///   - source: the rank whose keys they are.
    ///   - queryLengths: `[requests]`, the last positions of each request that are queries, on all ranks together.
    ///   - kvLengths: `[requests]`, keys of each request on all ranks together.
    /// - Throws: ``FlashInferError`` that names the request and the value.
    public static func ringStep(
        shares: [KVShare], keysOf source: Int, queryLengths: [Int32], kvLengths: [Int32], isCausal: Bool = true
    ) throws(FlashInferError) -> BatchGeometry {
        try check(shares, kvLengths)
        guard queryLengths.count == kvLengths.count else {
            throw .lengthMismatch("query lengths", found: queryLengths.count, expected: kvLengths.count)
        }
        var starts: [Int] = [0]
        var list = StretchList()
        for (request, share) in shares.enumerated() {
            let (rows, length) = (Int(queryLengths[request]), Int(kvLengths[request]))
            guard rows >= 0, rows <= length else {
                throw .invalidRequest(
                    request, argument: "query length", found: rows, expected: "in 0 ... \(length), its keys")
            }
            let seen = share.ofRank(source)
            starts.append(starts[request] + seen.keyCount(before: length))
            list.add(
                request, positions: share.positions(in: length - rows..<length), length, seen: seen,
                isCausal: isCausal)
        }
        let total = starts[starts.count - 1]
        guard total <= Int(Int32.max) else { throw .overflow("keys of rank \(source)") }
        return try list.geometry { (stretches, isShared) throws(FlashInferError) in
            var (rows, indices, lengths): ([Int32], [Int32], [Int32]) = ([0], [], [])
            for stretch in stretches {
                rows.append(rows[rows.count - 1] + Int32(stretch.rows))
                indices.append(Int32(starts[stretch.request]))
                lengths.append(Int32(stretch.isShared == isShared ? stretch.keys : 0))
            }
            return BatchGeometry(
                queryIndptr: rows,
                blocks: KVBlockTable(
                    blockSize: Int(max(lengths.max() ?? 1, 1)), indptr: (0...Int32(stretches.count)).map { $0 },
                    indices: indices, lengths: lengths, blockLimit: total, blocksAreRows: true))
        }
    }

    private static func check(_ shares: [KVShare], _ kvLengths: [Int32]) throws(FlashInferError) {
        guard shares.count == kvLengths.count else {
            throw .lengthMismatch("shares", found: shares.count, expected: kvLengths.count)
        }
        for (request, length) in kvLengths.enumerated() where length < 0 {
            throw .invalidRequest(request, argument: "kv length", found: Int(length), expected: "0 or more")
        }
        guard let first = shares.first else { return }
        for (request, share) in shares.enumerated() {
            for (name, found, expected) in [
                ("rank", share.rank, first.rank), ("world size", share.worldSize, first.worldSize),
                ("page size", share.pageSize, first.pageSize),
            ] where found != expected {
                throw .invalidRequest(
                    request, argument: "\(name) of its share", found: found, expected: "\(expected), as of request 0")
            }
        }
    }
}

/// The rows of a batch by what they see of one rank's keys.
private struct StretchList {
    /// Neighbouring rows of a request.
    struct Stretch {
        var request: Int
        var rows: Int
        /// Keys that the last row sees.
        var keys: Int
        /// Whether all rows see all of `keys`; where not, each row sees one key more than the row before.
        var isShared: Bool
    }

    private var stretches: [Stretch] = []
    private var hasShared = false

    /// Adds a request's rows at some positions, which see the keys of `seen`.
    mutating func add(
        _ request: Int, positions: [Range<Int>], _ kvLength: Int, seen: KVShare, isCausal: Bool
    ) {
        let rows = positions.reduce(0) { $0 + $1.count }
        guard isCausal, rows > 1 || positions.first?.upperBound != kvLength else {
            // Every row sees all keys: a decode's, or any row's where nothing is masked.
            return append(request, rows, keys: seen.keyCount(before: kvLength), isShared: false)
        }
        if rows == 0 { return append(request, 0, keys: 0, isShared: false) }
        for range in positions {
            var position = range.lowerBound
            while position < range.upperBound {
                let stretch = seen.stretch(from: position)
                let end = min(stretch.end, range.upperBound)
                let keys = seen.keyCount(before: end)
                // A row alone sees the same keys either way.
                append(
                    request, end - position, keys: keys,
                    isShared: !stretch.isOwn && end - position > 1 && keys > 0)
                position = end
            }
        }
    }

    private mutating func append(_ request: Int, _ rows: Int, keys: Int, isShared: Bool) {
        hasShared = hasShared || isShared
        stretches.append(Stretch(request: request, rows: rows, keys: keys, isShared: isShared))
    }

    /// The geometry of one level, or of two composed: the stretches with fixed keys, and the others.
    func geometry(
        _ level: ([Stretch], _ isShared: Bool) throws(FlashInferError) -> BatchGeometry
    ) throws(FlashInferError) -> BatchGeometry {
        let own = try level(stretches, false)
        return hasShared ? try .composed([level(stretches, true), own]) : own
    }
}
