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

    /// A size.
    public init(
        itemCount: Int, mergeCount: Int, partialRowCount: Int, headDimVO: Int, requestCount: Int, blockCount: Int
    ) {
        self.itemCount = itemCount
        self.mergeCount = mergeCount
        self.partialRowCount = partialRowCount
        self.headDimVO = headDimVO
        self.requestCount = requestCount
        self.blockCount = blockCount
    }

    /// Bytes of the partial outputs, float32 `[partialRowCount, headDimVO]`, rounded up to whole cache lines. The partial
    /// LSEs, float32 `[partialRowCount]`, follow.
    public var partialOutputByteCount: Int { (partialRowCount * headDimVO * 4 + 63) & ~63 }

    /// Bytes of the partial outputs and partial LSEs.
    public var workspaceByteCount: Int { partialOutputByteCount + ((partialRowCount * 4 + 63) & ~63) }

    /// Whether a plan of size `other` fits.
    public func covers(_ other: PlanSize) -> Bool {
        itemCount >= other.itemCount && mergeCount >= other.mergeCount && partialRowCount >= other.partialRowCount
            && headDimVO == other.headDimVO && requestCount >= other.requestCount && blockCount >= other.blockCount
    }
}
