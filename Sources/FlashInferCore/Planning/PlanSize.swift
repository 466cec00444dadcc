/// How large a plan is: from counting one (``Planner/measure(_:traits:processors:mode:)``), or from bounds on batches to come.
public struct PlanSize: Sendable, Hashable {
    /// Work items.
    public var itemCount: Int

    /// Merge items.
    public var mergeCount: Int

    /// Rows of partial state.
    public var partialRowCount: Int

    /// Elements of a value head.
    public var headDimVO: Int

    /// Requests of the batch.
    public var requestCount: Int

    /// Block ids of the batch's table.
    public var blockCount: Int

    /// Which of the traits' tiles there may be items of: bit `t` for tile `t`. A captured graph has launches of these only.
    public var tileMask: UInt32

    /// Lists of ``StateLists``, empty ones too; 0 for batches of one level.
    public var stateListCount: Int

    /// States in those lists.
    public var stateCount: Int

    /// Row tiles from which the device writes the items of all heads; 0 for plans whose items the host writes one by one.
    ///
    /// Of a capacity, the most that a plan may have to be made so. A plan with more is no error, as ``covers(_:)`` says: it is made, and its
    /// items are written, by the host, which takes it longer.
    public var rowTileCount: Int

    /// A size; of any tiles where `tileMask` is not given.
    public init(
        itemCount: Int, mergeCount: Int, partialRowCount: Int, headDimVO: Int, requestCount: Int, blockCount: Int,
        tileMask: UInt32 = .max, stateListCount: Int = 0, stateCount: Int = 0, rowTileCount: Int = 0
    ) {
        self.itemCount = itemCount
        self.mergeCount = mergeCount
        self.partialRowCount = partialRowCount
        self.headDimVO = headDimVO
        self.requestCount = requestCount
        self.blockCount = blockCount
        self.tileMask = tileMask
        self.stateListCount = stateListCount
        self.stateCount = stateCount
        self.rowTileCount = rowTileCount
    }

    /// Bytes of the partial outputs, float32 `[partialRowCount, headDimVO]`, rounded up to whole cache lines. The partial
    /// LSEs, float32 `[partialRowCount]`, follow.
    public var partialOutputByteCount: Int { (partialRowCount * headDimVO * 4 + 63) & ~63 }

    /// Bytes of the partial outputs and partial LSEs.
    public var workspaceByteCount: Int { partialOutputByteCount + ((partialRowCount * 4 + 63) & ~63) }

    /// Whether a plan of size `other` fits. Without room for its row tiles the host writes its items one by one.
    public func covers(_ other: PlanSize) -> Bool {
        do throws(FlashInferError) {
            try requireRoom(for: other)
            return true
        } catch { return false }
    }

    /// Finds out whether a plan of size `other` fits; see ``covers(_:)``.
    ///
    /// - Throws: ``FlashInferError/capacityExceeded(_:required:capacity:)`` for the first part that is too large, and
    ///   ``FlashInferError/planMismatch(_:planned:found:)`` for values of another width.
    package func requireRoom(for other: PlanSize) throws(FlashInferError) {
        guard other.headDimVO == headDimVO else {
            throw .planMismatch("head dim (vo)", planned: "\(headDimVO)", found: "\(other.headDimVO)")
        }
        func require(_ required: Int, _ capacity: Int, _ what: StaticString) throws(FlashInferError) {
            guard required <= capacity else {
                throw .capacityExceeded("\(what)", required: required, capacity: capacity)
            }
        }
        try require(other.itemCount, itemCount, "work items")
        try require(other.mergeCount, mergeCount, "merge items")
        try require(other.partialRowCount, partialRowCount, "partial rows")
        try require(other.requestCount, requestCount, "requests")
        try require(other.blockCount, blockCount, "block ids")
        guard other.tileMask & ~tileMask == 0 else {
            throw .capacityExceeded(
                "the query rows of a request, by which kernels are chosen,",
                required: UInt32.bitWidth - other.tileMask.leadingZeroBitCount,
                capacity: UInt32.bitWidth - tileMask.leadingZeroBitCount)
        }
        try require(other.stateListCount, stateListCount, "lists of states of several levels")
        try require(other.stateCount, stateCount, "states of several levels")
    }
}
