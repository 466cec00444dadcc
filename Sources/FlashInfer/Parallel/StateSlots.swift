internal import FlashInferCore

/// States of attention in one buffer, each in a slot of its own: values, then LSEs, so that a slot travels in one message.
struct StateSlots: ~Copyable, Sendable {
    /// The type of the values.
    let dtype: DType
    let heads: Int
    let headDim: Int
    /// Rows that each slot has room for.
    let rowCapacity: Int
    let slotCount: Int

    private let buffer: DeviceBuffer

    init(
        on device: any Device, slots: Int, rows: Int, heads: Int, headDim: Int, dtype: DType
    ) throws(FlashInferError) {
        (self.dtype, self.heads, self.headDim, rowCapacity, slotCount) = (dtype, heads, headDim, rows, slots)
        guard let bytes = Self.slotByteCount(rows, heads, headDim, dtype),
            case (let all, false) = bytes.multipliedReportingOverflow(by: slots)
        else { throw .overflow("states of \(rows) rows") }
        buffer = try DeviceBuffer(on: device, dtype: .uint8, shape: [max(all, 64)])
    }

    /// Bytes of a state's values, up to a multiple of 64; `nil` where they overflow.
    private static func valueByteCount(_ rows: Int, _ heads: Int, _ headDim: Int, _ dtype: DType) -> Int? {
        let shape: Shape = [rows, heads, headDim, dtype.byteCount]
        guard let bytes = shape.elementCount, bytes < Int.max / 4 else { return nil }
        return (bytes + 63) & ~63
    }

    private static func slotByteCount(_ rows: Int, _ heads: Int, _ headDim: Int, _ dtype: DType) -> Int? {
        guard let values = valueByteCount(rows, heads, headDim, dtype) else { return nil }
        return values + (rows * heads * 4 + 63) & ~63
    }

    /// The memory of neighbouring slots for states of `rows` rows.
    func region(_ slots: Range<Int>, rows: Int) -> MemoryRegion {
        let size = Self.slotByteCount(rows, heads, headDim, dtype)!
        return MemoryRegion(
            address: buffer.region.address + UInt(slots.lowerBound * size), byteCount: slots.count * size,
            device: buffer.region.device)
    }

    /// `[slots, rows, heads, headDim]`
    func values(_ slots: Range<Int>, rows: Int) throws(FlashInferError) -> TensorView {
        let size = Self.slotByteCount(rows, heads, headDim, dtype)!
        return try TensorView(
            region(slots, rows: rows), dtype: dtype, shape: [slots.count, rows, heads, headDim],
            strides: [size / dtype.byteCount, heads * headDim, headDim, 1], name: "state values")
    }

    /// `[slots, rows, heads]`, float32.
    func logSumExp(_ slots: Range<Int>, rows: Int) throws(FlashInferError) -> TensorView {
        let size = Self.slotByteCount(rows, heads, headDim, dtype)!
        return try TensorView(
            region(slots, rows: rows), byteOffset: Self.valueByteCount(rows, heads, headDim, dtype)!, dtype: .float32,
            shape: [slots.count, rows, heads], strides: [size / 4, heads, 1], name: "state LSEs")
    }
}
