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

    /// Elements at the end of a key that are no part of its value, where values are the keys' other elements: latent attention (MLA,
    /// arXiv 2405.04434), whose keys are `[latent ‖ rotated]` and whose values are the latent. 0 for keys and values of their own.
    public let latentRopeDim: Int

    /// Whether values are the first `headDimVO` elements of the keys; see ``latent(queryHeads:latentDim:ropeDim:)``.
    public var isLatent: Bool { latentRopeDim > 0 }

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
        latentRopeDim = 0
    }

    /// The heads of multi-head latent attention with the projections absorbed into queries and outputs (DeepSeek): all query heads
    /// share one key of `latentDim + ropeDim` elements, the first `latentDim` of which are the value.
    ///
    /// - Throws: ``FlashInferError`` for a number of heads or elements that is not positive.
    public static func latent(
        queryHeads: Int, latentDim: Int = 512, ropeDim: Int = 64
    ) throws(FlashInferError) -> AttentionShape {
        guard ropeDim >= 1, ropeDim <= 65_536 else {
            throw .invalidArgument("rope dim", found: "\(ropeDim)", expected: "in 1 ... 65536")
        }
        let whole = try AttentionShape(
            queryHeads: queryHeads, kvHeads: 1, headDimQK: latentDim + ropeDim, headDimVO: latentDim)
        return AttentionShape(latent: whole, ropeDim: ropeDim)
    }

    private init(latent whole: AttentionShape, ropeDim: Int) {
        (queryHeads, kvHeads, headDimQK, headDimVO) = (whole.queryHeads, 1, whole.headDimQK, whole.headDimVO)
        latentRopeDim = ropeDim
    }
}
