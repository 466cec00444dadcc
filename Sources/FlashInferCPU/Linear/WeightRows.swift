internal import CFlashInferCPU
public import FlashInferCore

/// A matrix of weights as a model file holds it, in somebody else's memory (usually a mapped file).
///
/// ```swift
/// let embedding = try WeightRows(bytes, format: .q8_0, rows: 49_152, columns: 576, name: "token_embd.weight")
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

    /// The first byte of a row.
    internal func pointer(to row: Int) -> UnsafeRawPointer? {
        bytes.baseAddress.map { $0 + row * rowByteCount }
    }

    /// Writes row `row` as float32 to the first `columns` places of `out`.
    ///
    /// - Throws: ``FlashInferError`` where the row does not exist or `out` is too short.
    public func dequantize(row: Int, into out: UnsafeMutableBufferPointer<Float>) throws(FlashInferError) {
        guard (0..<rows).contains(row) else {
            throw .invalidArgument("row", found: "\(row)", expected: "in 0 ..< \(rows)")
        }
        guard out.count >= columns, let to = out.baseAddress, let from = pointer(to: row) else {
            throw .lengthMismatch("out", found: out.count, expected: columns)
        }
        fi_weight_dequantize(format.kernelFormat, from, Int64(columns), to)
    }

    /// Writes row `ids[i]` as float32 to `out[i * stride ..< i * stride + columns]`: an embedding look-up.
    ///
    /// Reads `ids.count * rowByteCount` bytes of the file and writes `4 * ids.count * columns`.
    ///
    /// - Throws: ``FlashInferError`` where an id is not a row (nothing is written then) or `out` is too short.
    public func gather(
        _ ids: UnsafeBufferPointer<Int32>, into out: UnsafeMutableBufferPointer<Float>, stride: Int
    ) throws(FlashInferError) {
        try Extent.check("out", count: out.count, rows: ids.count, columns: columns, stride: stride)
        for (position, id) in ids.enumerated() where id < 0 || Int(id) >= rows {
            throw .invalidArgument("ids[\(position)]", found: "\(id)", expected: "in 0 ..< \(rows)")
        }
        guard let to = out.baseAddress else { return }
        for (position, id) in ids.enumerated() {
            guard let from = pointer(to: Int(id)) else { return }
            fi_weight_dequantize(format.kernelFormat, from, Int64(columns), to + position * stride)
        }
    }
}

extension WeightFormat {
    /// The C name of the same format; raw values agree.
    internal var kernelFormat: fi_weight_format { fi_weight_format(rawValue: UInt32(rawValue)) }
}

/// Checks of strided row-major matrices.
internal enum Extent {
    /// Throws unless `count` elements hold `rows` rows of `columns` at distance `stride`.
    static func check(
        _ name: String, count: Int, rows: Int, columns: Int, stride: Int
    ) throws(FlashInferError) {
        guard rows > 0 else { return }
        guard stride >= columns || rows == 1 else {
            throw .invalidArgument("\(name) stride", found: "\(stride)", expected: "at least \(columns), the columns")
        }
        let (reach, overflow) = (rows - 1).multipliedReportingOverflow(by: stride)
        let (needed, carry) = reach.addingReportingOverflow(columns)
        guard !overflow, !carry else { throw .overflow("\(name) stride") }
        guard count >= needed else { throw .lengthMismatch(name, found: count, expected: needed) }
    }
}
