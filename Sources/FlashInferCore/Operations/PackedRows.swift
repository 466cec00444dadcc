extension SampleOperation.Row {
    /// Bytes of one row of ``SampleOperation/packedRows``.
    public static let packedByteCount = 32

    /// Rows as ``SampleOperation/packedRows`` and ``FilterOperation/packedRows`` have them: temperature, topK (unsigned), topP and
    /// minP, 4 bytes each; seed and step, 8 bytes each; in the machine's byte order. `fi_sampling_parameters` of the C library lies so.
    public static func packed(_ rows: [SampleOperation.Row]) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(rows.count * packedByteCount)
        for row in rows {
            append(row.temperature, to: &bytes)
            append(UInt32(clamping: row.topK), to: &bytes)
            append(row.topP, to: &bytes)
            append(row.minP, to: &bytes)
            append(row.seed, to: &bytes)
            append(row.step, to: &bytes)
        }
        return bytes
    }

    /// The row at `address`, which a packed tensor in host memory has.
    package init(packedAt address: UnsafeRawPointer) {
        self.init(
            temperature: address.load(as: Float.self),
            topK: Int(address.load(fromByteOffset: 4, as: UInt32.self)),
            topP: address.load(fromByteOffset: 8, as: Float.self),
            minP: address.load(fromByteOffset: 12, as: Float.self),
            seed: address.load(fromByteOffset: 16, as: UInt64.self),
            step: address.load(fromByteOffset: 24, as: UInt64.self))
    }
}

extension VerifyDraftsOperation.Draw {
    /// Bytes of one row of ``VerifyDraftsOperation/packedDraws``.
    public static let packedByteCount = 16

    /// Draws as ``VerifyDraftsOperation/packedDraws`` has them: seed and step, 8 bytes each, in the machine's byte order.
    public static func packed(_ draws: [VerifyDraftsOperation.Draw]) -> [UInt8] {
        var bytes: [UInt8] = []
        for draw in draws {
            append(draw.seed, to: &bytes)
            append(draw.step, to: &bytes)
        }
        return bytes
    }

    /// The draw at `address`, which a packed tensor in host memory has.
    package init(packedAt address: UnsafeRawPointer) {
        self.init(seed: address.load(as: UInt64.self), step: address.load(fromByteOffset: 8, as: UInt64.self))
    }
}

private func append<Value: BitwiseCopyable>(_ value: Value, to bytes: inout [UInt8]) {
    withUnsafeBytes(of: value) { bytes += $0 }
}

extension TensorChecks {
    /// Parameters of `rows` rows in a tensor of bytes, or none.
    func packed(_ view: TensorView?, _ name: String, _ rows: Int, _ byteCount: Int) throws(FlashInferError) {
        guard let view else { return }
        guard view.dtype == .uint8, view.shape == [rows, byteCount], view.isContiguous, view.address % 8 == 0 else {
            throw .invalidArgument(
                name, found: "\(view.dtype) \(view.shape) at \(view.address)",
                expected: "contiguous uint8 [\(rows), \(byteCount)] at a multiple of 8 bytes")
        }
        try here(view, name)
    }
}

extension TensorView {
    /// The rows of a packed tensor in host memory, made by `make` from their addresses.
    package func unpacked<Row>(_ make: (UnsafeRawPointer) -> Row) -> [Row] {
        guard elementCount > 0, let pointer else { return [] }
        return (0..<shape[0]).map { make(UnsafeRawPointer(pointer) + $0 * shape[1]) }
    }
}
