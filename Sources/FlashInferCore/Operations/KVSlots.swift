/// Where each new token's keys and values go in a cache: its block (page, or first row of a ragged tensor) and row in it.
///
/// Made once a step, used by every layer.
public struct KVSlots: Sendable, Equatable {
    /// `[tokens]`: block ids; −1 for a token that is not stored.
    public let blocks: [Int32]

    /// `[tokens]`: the row within the block.
    public let rows: [Int32]

    /// `[2, tokens]`, int32, contiguous: blocks, then rows, in device memory, where `blocks` and `rows` are empty instead.
    ///
    /// So that a captured graph appends wherever the tensor says at each replay.
    public let table: TensorView?

    /// The number of tokens, those not stored included.
    public var count: Int { table?.shape[1] ?? blocks.count }

    /// Slots that a tensor holds when the append runs.
    ///
    /// - Parameter table: `[2, tokens]`, int32, contiguous: each token's block (−1 for a token that is not stored), then each
    ///   token's row. The host cannot check device memory: tokens whose slot is outside the cache are not stored, and two tokens
    ///   must not share a slot.
    /// - Throws: ``FlashInferError/invalidArgument(_:found:expected:)`` for another type, shape or stride.
    public init(table: TensorView) throws(FlashInferError) {
        guard table.dtype == .int32, table.rank == 2, table.shape[0] == 2, table.isContiguous else {
            throw .invalidArgument(
                "slot table", found: "\(table.dtype) \(table.shape) with strides \(table.strides)",
                expected: "contiguous int32 [2, tokens]")
        }
        self.table = table
        (blocks, rows) = ([], [])
    }

    /// The same slots in host arrays: read from `table` where that is host memory.
    ///
    /// - Precondition: `table` is `nil` or on the CPU.
    package var onHost: KVSlots {
        guard let table else { return self }
        precondition(table.device == .cpu, "device memory cannot be read from here")
        let ids = UnsafeBufferPointer(
            start: table.pointer?.assumingMemoryBound(to: Int32.self), count: table.elementCount)
        return KVSlots(unchecked: Array(ids.prefix(count)), rows: Array(ids.suffix(count)))
    }

    /// The slots of positions of requests: token `i` is key `positions[i]` of request `batchIndices[i]`.
    ///
    /// - Parameters:
    ///   - table: where the requests' keys lie; a position must be below its request's length.
    ///   - batchIndices: `[tokens]`; −1 for a token that is not stored.
    ///   - positions: `[tokens]`.
    /// - Throws: ``FlashInferError`` that names the token, the value and the limit, also where two tokens share a slot.
    /// - Complexity: O(tokens), or O(tokens · log tokens) where tokens do not ascend in memory.
    public init(table: KVBlockTable, batchIndices: [Int32], positions: [Int32]) throws(FlashInferError) {
        guard positions.count == batchIndices.count else {
            throw .lengthMismatch("positions", found: positions.count, expected: batchIndices.count)
        }
        var blocks: [Int32] = []
        var rows: [Int32] = []
        blocks.reserveCapacity(positions.count)
        rows.reserveCapacity(positions.count)
        for (token, request) in batchIndices.enumerated() {
            if request == -1 {
                blocks.append(-1)
                rows.append(0)
                continue
            }
            guard request >= 0, Int(request) < table.requestCount else {
                throw .invalidArgument(
                    "batchIndices[\(token)]", found: "\(request)", expected: "in 0 ..< \(table.requestCount), or -1")
            }
            let position = Int(positions[token])
            let length = Int(table.lengths[Int(request)])
            guard position >= 0, position < length else {
                throw .invalidRequest(
                    Int(request), argument: "position of token \(token)", found: position,
                    expected: "in 0 ..< \(length) (the keys it has after the append)")
            }
            blocks.append(table.indices[Int(table.indptr[Int(request)]) + position / table.blockSize])
            rows.append(Int32(position % table.blockSize))
        }
        try self.init(blocks: blocks, rows: rows)
    }

    /// The slots of a batch's query tokens, which are the last keys of their requests; of the last level's where there are several.
    ///
    /// - Throws: ``FlashInferError`` for a request with more queries than keys, or where two tokens share a slot.
    public init(_ geometry: BatchGeometry) throws(FlashInferError) {
        let requests = geometry.requests(ofLevel: geometry.levelCount - 1)
        let first = geometry.queryIndptr[requests.lowerBound]
        let (batchIndices, positions) = try KVPositions.batchIndicesPositions(
            appendIndptr: geometry.queryIndptr[requests.lowerBound...].map { $0 - first },
            sequenceLengths: Array(geometry.blocks.lengths[requests]))
        try self.init(
            table: geometry.blocks, batchIndices: batchIndices.map { $0 + Int32(requests.lowerBound) },
            positions: positions)
    }

    /// Slots given as `page · pageSize + row`; negative for a token that is not stored.
    ///
    /// - Throws: ``FlashInferError`` where the page size is not positive or two tokens share a slot.
    public init(slots: [Int32], pageSize: Int) throws(FlashInferError) {
        guard pageSize >= 1, let size = Int32(exactly: pageSize) else {
            throw .invalidArgument("page size", found: "\(pageSize)", expected: "in 1 ... \(Int32.max)")
        }
        try self.init(blocks: slots.map { $0 < 0 ? -1 : $0 / size }, rows: slots.map { $0 < 0 ? 0 : $0 % size })
    }

    private init(unchecked blocks: [Int32], rows: [Int32]) {
        self.blocks = blocks
        self.rows = rows
        table = nil
    }

    private init(blocks: [Int32], rows: [Int32]) throws(FlashInferError) {
        self.init(unchecked: blocks, rows: rows)
        try checkDistinct()
    }

    /// Two tokens in one slot would leave whichever was stored last.
    private func checkDistinct() throws(FlashInferError) {
        let slots = blocks.indices.lazy.filter { blocks[$0] >= 0 }
            .map { Int64(blocks[$0]) << 32 | Int64(rows[$0]) }
        var ascending = true
        var previous = Int64.min
        for slot in slots {
            ascending = ascending && slot > previous
            previous = slot
        }
        if ascending { return }
        let sorted = slots.sorted()
        for (slot, next) in zip(sorted, sorted.dropFirst()) where slot == next {
            throw .invalidArgument(
                "slots", found: "block \(slot >> 32) row \(slot & 0xFFFF_FFFF) for two tokens",
                expected: "a slot of its own for each token")
        }
    }
}
