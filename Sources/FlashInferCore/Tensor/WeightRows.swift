/// A matrix of weights as a model file holds it, in somebody else's memory (usually a mapped file).
///
/// ```swift
/// let embedding = try WeightRows(bytes, format: .q80, rows: 49_152, columns: 576, name: "token_embd.weight")
/// try embedding.gather(tokens, into: hidden, stride: 576)
/// ```
public struct WeightRows: @unchecked Sendable {
    // Unchecked because of the pointer; the memory behind it is only ever read.

    /// The rows, one after another: `[rows, columns]` in `format`.
    public let bytes: UnsafeRawBufferPointer

    /// The format of the weights.
    public let format: WeightFormat

    /// The number of rows: outputs of a product, or ids of an embedding.
    public let rows: Int

    /// The number of weights in a row.
    public let columns: Int

    /// Bytes of one row.
    public let rowByteCount: Int

    /// The first `rows * columns` weights of `bytes`, which must outlive this value and whatever reads through it.
    ///
    /// - Throws: ``FlashInferError`` naming `name` where a size is not positive, `columns` is not a whole number of blocks, a
    ///   product overflows, or `bytes` is too short.
    public init(
        _ bytes: UnsafeRawBufferPointer, format: WeightFormat, rows: Int, columns: Int, name: String = "weights"
    ) throws(FlashInferError) {
        guard rows > 0, columns > 0 else {
            throw .invalidArgument(name, found: "[\(rows), \(columns)]", expected: "at least one row and one column")
        }
        guard columns % format.blockSize == 0 else {
            throw .invalidArgument(
                name, found: "\(columns) columns of \(format)", expected: "a multiple of \(format.blockSize)")
        }
        guard let rowByteCount = format.byteCount(elements: columns) else { throw .overflow(name) }
        let (total, overflow) = rowByteCount.multipliedReportingOverflow(by: rows)
        guard !overflow else { throw .overflow(name) }
        guard bytes.count >= total else {
            throw .invalidArgument(
                name, found: "\(bytes.count) bytes", expected: "\(total) for [\(rows), \(columns)] of \(format)")
        }
        self.bytes = bytes
        self.format = format
        self.rows = rows
        self.columns = columns
        self.rowByteCount = rowByteCount
    }

    /// The first byte of a row, which is not checked.
    package func pointer(to row: Int) -> UnsafeRawPointer? {
        bytes.baseAddress.map { $0 + row * rowByteCount }
    }

    /// The rows and columns of matrices stacked by rows.
    ///
    /// - Throws: ``FlashInferError`` where there is none, or columns or formats differ.
    public static func stackedSize(_ parts: [WeightRows]) throws(FlashInferError) -> (rows: Int, columns: Int) {
        guard let first = parts.first else {
            throw .invalidArgument("parts", found: "none", expected: "at least one matrix")
        }
        var rows = 0
        for (index, part) in parts.enumerated() {
            guard part.format == first.format, part.columns == first.columns else {
                throw .invalidArgument(
                    "parts[\(index)]", found: "\(part.columns) columns of \(part.format)",
                    expected: "\(first.columns) columns of \(first.format), as in parts[0]")
            }
            let (sum, overflow) = rows.addingReportingOverflow(part.rows)
            guard !overflow else { throw .overflow("parts") }
            rows = sum
        }
        return (rows, first.columns)
    }
}
