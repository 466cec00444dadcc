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

    /// Row tiles from which the device itself writes the items, for each head; 0 where the host writes each.
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
        itemCount >= other.itemCount && mergeCount >= other.mergeCount && partialRowCount >= other.partialRowCount
            && headDimVO == other.headDimVO && requestCount >= other.requestCount && blockCount >= other.blockCount
            && other.tileMask & ~tileMask == 0 && stateListCount >= other.stateListCount
            && stateCount >= other.stateCount
    }
}
