internal import FlashInferCore

/// A page table in CSR form, from a dense one.
struct PageTable {
    private(set) var indptr: [Int32] = [0]
    private(set) var indices: [Int32] = []
    private(set) var lastPageLengths: [Int32] = []

    /// The ids of the pages that hold each request's keys.
    init(
        _ table: (elements: [Int32], stride: Int, rows: Int, columns: Int), _ lengths: [Int32], _ pageSize: Int
    ) throws(FlashInferError) {
        guard pageSize >= 1 else { throw .invalidArgument("page_size", found: "\(pageSize)", expected: "1 or more") }
        guard lengths.count == table.rows else {
            throw .lengthMismatch("seq_lens", found: lengths.count, expected: table.rows)
        }
        for (request, length) in lengths.enumerated() {
            let pages = (Int(length) + pageSize - 1) / pageSize
            guard length >= 0, pages <= table.columns else {
                throw .invalidRequest(
                    request, argument: "seq_lens", found: Int(length),
                    expected:
                        "in 0 ... \(table.columns * pageSize), what \(table.columns) pages of \(pageSize) keys hold")
            }
            if pages > 0 {
                let start = request * table.stride
                indices += table.elements[start..<start + pages]
            }
            guard let end = Int32(exactly: indices.count) else { throw .overflow("block_tables") }
            indptr.append(end)
            lastPageLengths.append(pages == 0 ? 0 : length - Int32((pages - 1) * pageSize))
        }
    }
}
