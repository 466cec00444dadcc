extension BatchGeometry {
    /// A batch whose keys lie one request after another in one tensor of `kvIndptr.last` rows.
    ///
    /// - Parameters:
    ///   - queryIndptr: `[requests + 1]`, running sum of query lengths.
    ///   - kvIndptr: `[requests + 1]`, running sum of key counts.
    /// - Throws: ``FlashInferError`` that names the argument, the request and the value.
    public static func ragged(queryIndptr: [Int32], kvIndptr: [Int32]) throws(FlashInferError) -> BatchGeometry {
        try Indptr.validate(queryIndptr, "query indptr")
        try Indptr.validate(kvIndptr, "kv indptr", requests: queryIndptr.count - 1)
        let requests = queryIndptr.count - 1
        let lengths = (0..<requests).map { kvIndptr[$0 + 1] - kvIndptr[$0] }
        return BatchGeometry(
            queryIndptr: queryIndptr,
            blocks: KVBlockTable(
                // One block a request, as long as the longest, so that every key is in the first.
                blockSize: Int(max(lengths.max() ?? 1, 1)), indptr: (0...Int32(requests)).map { $0 },
                indices: Array(kvIndptr.dropLast()), lengths: lengths, blockLimit: Int(kvIndptr[requests]),
                blocksAreRows: true))
    }

    /// One request whose queries and keys are whole tensors.
    ///
    /// - Throws: ``FlashInferError`` for a negative length or one past 2³¹ − 1.
    public static func contiguous(queryLength: Int, kvLength: Int) throws(FlashInferError) -> BatchGeometry {
        try ragged(
            queryIndptr: Indptr.runningSum([queryLength], "query length"),
            kvIndptr: Indptr.runningSum([kvLength], "kv length"))
    }
}
