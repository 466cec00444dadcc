/// Checks of strided row-major matrices.
package enum Extent {
    /// Throws unless `count` elements hold `rows` rows of `columns` at distance `stride`.
    package static func check(
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
