public import FlashInferCore

/// A weight matrix, or a vector as a matrix of one row, still in its mapped file.
public struct WeightTensor: Sendable {
    /// What the file calls it.
    public let name: String
    /// How its numbers are stored.
    public let format: WeightFormat
    /// The number of rows: outputs of a projection, entries of an embedding.
    public let rows: Int
    /// The number of columns, contiguous in memory: inputs of a projection.
    public let columns: Int

    /// The file, kept mapped by this value.
    public let file: MappedFile
    /// Where the data lies in `file`.
    public let range: Range<Int>

    /// Makes a tensor; `range` must lie in `file` and fit the format and the shape.
    package init(name: String, format: WeightFormat, rows: Int, columns: Int, file: MappedFile, range: Range<Int>) {
        self.name = name
        self.format = format
        self.rows = rows
        self.columns = columns
        self.file = file
        self.range = range
    }

    /// The data, row after row. Valid as long as this value or its `file` lives; not necessarily aligned.
    public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: file.bytes[range]) }

    /// The bytes of a row.
    public var bytesPerRow: Int { columns / format.blockSize * format.bytesPerBlock }
}
