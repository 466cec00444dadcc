/// Softmax of each row at its own temperature: `output = exp(x / t − max) / Σ exp(x / t − max)`.
///
/// A row without a distribution (a NaN, all −∞, or +∞) becomes zeros and says so in `status`.
public struct SoftmaxOperation: Sendable, Equatable {
    /// `[…, width]`, rank 1 to 3, float32, float16 or bfloat16.
    public var input: TensorView

    /// The input's shape; may be the input.
    public var output: TensorView

    /// `[rows]`, uint8, contiguous: a ``RowStatus`` for each row.
    public var status: TensorView

    /// One for each row, or one for all; empty for 1. Above 0.
    public var temperatures: [Float]

    /// An operation; call ``validate()`` before it is executed.
    public init(input: TensorView, output: TensorView, status: TensorView, temperatures: [Float] = []) {
        self.input = input
        self.output = output
        self.status = status
        self.temperatures = temperatures
    }

    /// Checks every tensor and temperature.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor or the row, what it is, and what it must be.
    /// - Complexity: O(rows).
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: input.device)
        try checks.rows(input, "input")
        try checks.rows(output, "output", like: input)
        try checks.writable(output, "output")
        try checks.distinct(output, "output", from: input, "input")
        try checks.vector(status, "status", .uint8, input.rowCount)
        try Self.check(temperatures, rows: input.rowCount)
    }

    /// Temperatures above 0, one for each row, one for all, or none.
    static func check(_ temperatures: [Float], rows: Int) throws(FlashInferError) {
        guard temperatures.count <= 1 || temperatures.count == rows else {
            throw .lengthMismatch("temperatures", found: temperatures.count, expected: rows)
        }
        for (row, temperature) in temperatures.enumerated() where !(temperature > 0 && temperature.isFinite) {
            throw .invalidArgument("temperatures[\(row)]", found: "\(temperature)", expected: "finite and above 0")
        }
    }
}

extension TensorView {
    /// The number of rows: the product of all extents but the last.
    package var rowCount: Int {
        var count = 1
        for dimension in 0..<max(rank - 1, 0) { count *= shape[dimension] }
        return count
    }
}
