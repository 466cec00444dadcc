/// The head counts and head dimensions of attention.
public struct AttentionShape: Sendable, Hashable {
    /// Query heads, a positive multiple of `kvHeads`.
    public let queryHeads: Int

    /// Key/value heads. Query head `h` uses key/value head `h / group`.
    public let kvHeads: Int

    /// Elements of a query or key head.
    public let headDimQK: Int

    /// Elements of a value or output head.
    public let headDimVO: Int

    /// Query heads that share one key/value head (GQA).
    public var group: Int { queryHeads / kvHeads }

    /// Checked head counts and dimensions; `headDimVO` is `headDimQK` where not given.
    ///
    /// - Throws: ``FlashInferError`` for counts that do not divide and for dimensions below 1 or above 65,536.
    public init(queryHeads: Int, kvHeads: Int, headDimQK: Int, headDimVO: Int? = nil) throws(FlashInferError) {
        guard queryHeads > 0, kvHeads > 0, queryHeads % kvHeads == 0, queryHeads <= 65_536 else {
            throw .headsNotDivisible(queryHeads: queryHeads, kvHeads: kvHeads)
        }
        for (name, dim) in [("head dim (qk)", headDimQK), ("head dim (vo)", headDimVO ?? headDimQK)] {
            guard dim >= 1, dim <= 65_536 else {
                throw .invalidArgument(name, found: "\(dim)", expected: "in 1 ... 65536")
            }
        }
        self.queryHeads = queryHeads
        self.kvHeads = kvHeads
        self.headDimQK = headDimQK
        self.headDimVO = headDimVO ?? headDimQK
    }
}
