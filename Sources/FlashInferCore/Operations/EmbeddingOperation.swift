/// Rows of a table by id: `output[i] = table[ids[i]] · scale`.
public struct EmbeddingOperation: Sendable, Equatable {
    /// `[vocabulary, width]`, any floating type or int8; stride 1 within a row.
    public var table: TensorView

    /// `[tokens]`, int32, contiguous: each in `0 ..< vocabulary`.
    public var ids: TensorView

    /// `[tokens, width]`, float32, float16 or bfloat16.
    public var output: TensorView

    /// Multiplies each element, such as √width for Gemma.
    public var scale: Float

    /// An operation; call ``validate()`` before it is executed.
    public init(table: TensorView, ids: TensorView, output: TensorView, scale: Float = 1) {
        self.table = table
        self.ids = ids
        self.output = output
        self.scale = scale
    }

    /// Checks every tensor, and the ids where the host can read them.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor (or the id), what it is, and what it must be.
    /// - Complexity: O(tokens).
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: table.device)
        guard table.rank == 2, table.dtype.isCacheType else {
            throw .invalidArgument(
                "table", found: "\(table.dtype) \(table.shape)",
                expected: "[vocabulary, width] of a floating type or int8")
        }
        try checks.anyRows(table, "table")
        guard output.rank == 2 else {
            throw .invalidArgument("output", found: "of shape \(output.shape)", expected: "[tokens, width]")
        }
        try checks.rows(output, "output")
        try checks.shape(output, "output", [output.shape[0], table.shape[1]])
        try checks.writable(output, "output")
        try checks.distinct(output, "output", from: table, "table")
        try checks.vector(ids, "ids", .int32, output.shape[0])
        try checks.ids(ids, "ids", below: table.shape[0])
        guard scale.isFinite else {
            throw .invalidArgument("scale", found: "\(scale)", expected: "finite")
        }
    }
}
