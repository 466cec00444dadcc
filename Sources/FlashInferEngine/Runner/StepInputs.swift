internal import FlashInfer

/// What a step's layers read besides activations: token ids, positions, cache slots and sampled rows, in one tensor, so that one
/// upload brings them all and a captured step finds the next ones in the same place.
///
/// For `n` rows: `n` ids, `n` positions, `n` pages and `n` rows of the slots, then up to `n` sampled rows.
struct StepInputs: Sendable {
    /// Rows that fit.
    let maximumRows: Int
    /// Positions of a page of the cache.
    private let pageSize: Int
    /// `[5 · rows]`, int32.
    private let table: SharedTensor
    /// Whether slots are read from the host's arrays.
    private let readsHostMemory: Bool

    init(rows: Int, pageSize: Int, on device: any Device) throws(FlashInferError) {
        (maximumRows, self.pageSize) = (rows, pageSize)
        table = try SharedTensor(DeviceBuffer(on: device, dtype: .int32, shape: [5 * rows]))
        readsHostMemory = device.readsHostMemory
    }

    /// Sends a batch to the device, followed by rows up to `rows` that compute token 0 at position 0 and store nothing.
    ///
    /// - Parameter slots: where the rows' keys and values go: `page · pageSize + row`, negative for those that are not kept here.
    /// - Returns: the same for operations.
    func write(_ batch: StepBatch, _ slots: [Int32], paddedTo rows: Int) throws(FlashInferError) -> KVSlots {
        let slots = try KVSlots(slots: slots, pageSize: pageSize)
        let padding = rows - batch.rowCount
        func padded(_ values: [Int32], with value: Int32) -> [Int32] {
            padding == 0 ? values : values + [Int32](repeating: value, count: padding)
        }
        var values: [Int32] = []
        values.reserveCapacity(5 * rows)
        values += padded(batch.tokenIDs, with: 0)
        values += padded(batch.positions, with: 0)
        values += padded(slots.blocks, with: -1)
        values += padded(slots.rows, with: 0)
        values += batch.sampledRows
        try table.write(values)
        return readsHostMemory ? slots : try deviceSlots(rows)
    }

    /// `[rows]`: the token ids.
    func ids(_ rows: Int) -> TensorView { section(0, rows) }

    /// `[rows]`: the positions.
    func positions(_ rows: Int) -> TensorView { section(1, rows) }

    /// The rows of a step of `rows` rows that are sampled: some of them.
    func sampledRows(_ range: Range<Int>, of rows: Int) -> TensorView {
        table.view.slice(4 * rows + range.lowerBound..<4 * rows + range.upperBound)
    }

    private func deviceSlots(_ rows: Int) throws(FlashInferError) -> KVSlots {
        try KVSlots(table: table.view.slice(2 * rows..<4 * rows).reshaped([2, rows]))
    }

    private func section(_ index: Int, _ rows: Int) -> TensorView {
        table.view.slice(index * rows..<(index + 1) * rows)
    }
}
