extension WeightRows {
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
        format.dequantize(from, count: columns, into: to)
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
            format.dequantize(from, count: columns, into: to + position * stride)
        }
    }

    /// Row `row` as float32.
    ///
    /// - Throws: ``FlashInferError`` where the row does not exist.
    public func row(_ row: Int) throws(FlashInferError) -> [Float] {
        var elements = [Float](repeating: 0, count: columns)
        try filling(&elements) { (out) throws(FlashInferError) in try dequantize(row: row, into: out) }
        return elements
    }

    /// Rows `ids` as float32, one after another: an embedding look-up.
    ///
    /// - Throws: ``FlashInferError`` where an id is not a row, or `out` does not hold `ids.count * columns` elements.
    public func gather(_ ids: [Int32], into out: inout [Float]) throws(FlashInferError) {
        try filling(&out) { (out) throws(FlashInferError) in
            let result = ids.withUnsafeBufferPointer { ids in
                Result { () throws(FlashInferError) in try gather(ids, into: out, stride: columns) }
            }
            try result.get()
        }
    }

    /// Calls `body` with the array's storage; arrays pass on no typed errors of their own.
    private func filling(
        _ elements: inout [Float], _ body: (UnsafeMutableBufferPointer<Float>) throws(FlashInferError) -> Void
    ) throws(FlashInferError) {
        let result = elements.withUnsafeMutableBufferPointer { buffer in
            Result { () throws(FlashInferError) in try body(buffer) }
        }
        try result.get()
    }
}
