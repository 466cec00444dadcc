/// A weight matrix packed for one device's products: made by ``Device/makeWeights(_:)``, used by ``LinearOperation``.
public protocol DeviceWeights: AnyObject, Sendable {
    /// Output features N.
    var rows: Int { get }
    /// Input features K.
    var columns: Int { get }
    /// Bytes that a product reads.
    var byteCount: Int { get }
    /// Where the weights lie.
    var device: DeviceID { get }
}

/// A weight matrix as a model file holds it: `rows` rows of `columns` weights, in blocks along the columns.
public struct WeightBytes: @unchecked Sendable {
    // Unchecked because of the pointer: the bytes are only read, and their owner keeps them while the weights are packed.

    /// The file's bytes, `format.byteCount(elements: rows × columns)` of them.
    public let bytes: UnsafeRawBufferPointer
    /// How the weights are coded.
    public let format: WeightFormat
    /// Output features N.
    public let rows: Int
    /// Input features K, a multiple of the format's block size.
    public let columns: Int

    /// Checked weights.
    ///
    /// - Throws: ``FlashInferError`` where the sizes are not positive, `columns` is not a multiple of the block, or the number of
    ///   bytes is not what the format needs.
    public init(
        _ bytes: UnsafeRawBufferPointer, format: WeightFormat, rows: Int, columns: Int
    ) throws(FlashInferError) {
        guard rows > 0, columns > 0 else {
            throw .invalidArgument("weights", found: "\(rows) x \(columns)", expected: "at least 1 x 1")
        }
        guard columns % format.blockSize == 0 else {
            throw .invalidArgument(
                "weight columns", found: "\(columns)",
                expected: "a multiple of \(format.blockSize), as \(format) has it")
        }
        guard case (let elements, false) = rows.multipliedReportingOverflow(by: columns),
            let needed = format.byteCount(elements: elements)
        else { throw .overflow("weight size") }
        guard bytes.count == needed else {
            throw .lengthMismatch("weight bytes", found: bytes.count, expected: needed)
        }
        self.bytes = bytes
        self.format = format
        self.rows = rows
        self.columns = columns
    }

    /// The rows and columns of matrices stacked by rows.
    ///
    /// - Throws: ``FlashInferError`` where there is none, or columns or formats differ.
    public static func stackedSize(_ parts: [WeightBytes]) throws(FlashInferError) -> (rows: Int, columns: Int) {
        guard let first = parts.first else {
            throw .invalidArgument("weights", found: "no matrix", expected: "one or more")
        }
        var rows = 0
        for part in parts {
            guard part.columns == first.columns, part.format == first.format else {
                throw .invalidArgument(
                    "stacked weights", found: "\(part.format) with \(part.columns) columns",
                    expected: "\(first.format) with \(first.columns), as the first")
            }
            let (sum, overflow) = rows.addingReportingOverflow(part.rows)
            guard !overflow else { throw .overflow("stacked weight rows") }
            rows = sum
        }
        return (rows, first.columns)
    }
}
