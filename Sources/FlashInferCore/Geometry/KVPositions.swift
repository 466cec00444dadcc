/// The host-side arithmetic of lengths and positions in a paged cache.
public enum KVPositions {
    /// The number of keys each request has: `(pages − 1) · pageSize + lastPageLength`, or 0 without pages.
    ///
    /// - Parameters:
    ///   - pageIndptr: `[requests + 1]`, running sum of the requests' page counts.
    ///   - lastPageLengths: `[requests]`, keys in each request's last page, `1 ... pageSize`; may be 0 without pages.
    /// - Throws: ``FlashInferError`` that names the request and the value.
    /// - Complexity: O(requests).
    public static func sequenceLengths(
        pageIndptr: [Int32], lastPageLengths: [Int32], pageSize: Int
    ) throws(FlashInferError) -> [Int32] {
        guard pageSize >= 1, pageSize <= Int(Int32.max) else {
            throw .invalidArgument("page size", found: "\(pageSize)", expected: "in 1 ... \(Int32.max)")
        }
        try Indptr.validate(pageIndptr, "page indptr", requests: lastPageLengths.count)
        var lengths: [Int32] = []
        lengths.reserveCapacity(lastPageLengths.count)
        for (request, last) in lastPageLengths.enumerated() {
            let pages = Int(pageIndptr[request + 1]) - Int(pageIndptr[request])
            guard last >= (pages == 0 ? 0 : 1), Int(last) <= pageSize else {
                throw .lastPageLengthOutOfRange(request: request, length: Int(last), pageSize: pageSize)
            }
            // Both factors fit in 31 bits, so the product fits in 64; whether the sum fits in 31 is what is checked.
            guard let length = Int32(exactly: pages == 0 ? 0 : (pages - 1) * pageSize + Int(last)) else {
                throw .overflow("key count of request \(request)")
            }
            lengths.append(length)
        }
        return lengths
    }

    /// Each appended token's request and position: token `i` of request `r` has position
    /// `sequenceLengths[r] − appended + i`, the lengths counting the appended tokens.
    ///
    /// - Parameters:
    ///   - appendIndptr: `[requests + 1]`, running sum of the numbers of appended tokens.
    ///   - sequenceLengths: `[requests]`, keys after the append.
    ///   - count: entries wanted, the appended tokens or more; the rest have batch index −1 and position 0.
    /// - Throws: ``FlashInferError`` that names the request and the value.
    /// - Complexity: O(count).
    public static func batchIndicesPositions(
        appendIndptr: [Int32], sequenceLengths: [Int32], count: Int? = nil
    ) throws(FlashInferError) -> (batchIndices: [Int32], positions: [Int32]) {
        try Indptr.validate(appendIndptr, "append indptr", requests: sequenceLengths.count)
        let appended = Int(appendIndptr[sequenceLengths.count])
        let count = count ?? appended
        guard count >= appended else {
            throw .invalidArgument("count", found: "\(count)", expected: "the \(appended) appended tokens or more")
        }
        var batchIndices = [Int32](repeating: -1, count: count)
        var positions = [Int32](repeating: 0, count: count)
        for (request, length) in sequenceLengths.enumerated() {
            let tokens = appendIndptr[request]..<appendIndptr[request + 1]
            guard Int(length) >= tokens.count else {
                throw .invalidRequest(
                    request, argument: "sequence length", found: Int(length),
                    expected: "at least the \(tokens.count) appended tokens")
            }
            for token in tokens {
                batchIndices[Int(token)] = Int32(request)
                positions[Int(token)] = length - tokens.upperBound + token
            }
        }
        return (batchIndices, positions)
    }
}
