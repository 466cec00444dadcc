/// The heads that a rank of tensor parallelism has.
///
/// Query heads are cut into equal runs. Key/value heads are cut likewise; where there are fewer of them than ranks, neighbouring ranks
/// have a copy of the same one.
///
/// ```swift
/// let share = try HeadShare(queryHeads: 32, kvHeads: 8, rank: 3, worldSize: 16)
/// share.queryHeads  // 6 ..< 8
/// share.kvHeads     // 1 ..< 2, which rank 2 has too
/// ```
public struct HeadShare: Sendable, Hashable {
    /// The rank's query heads, counted over the whole model.
    public let queryHeads: Range<Int>
    /// The rank's key/value heads, counted over the whole model.
    public let kvHeads: Range<Int>
    /// How many ranks have a copy of each key/value head.
    public let kvCopies: Int

    /// A rank's heads.
    ///
    /// - Throws: ``FlashInferError`` where query heads do not divide by ranks or key/value heads, or neither of key/value heads and ranks
    ///   by the other.
    public init(queryHeads: Int, kvHeads: Int, rank: Int, worldSize: Int) throws(FlashInferError) {
        guard queryHeads > 0, kvHeads > 0, queryHeads % kvHeads == 0 else {
            throw .headsNotDivisible(queryHeads: queryHeads, kvHeads: kvHeads)
        }
        guard worldSize >= 1, queryHeads % worldSize == 0 else {
            throw .invalidArgument(
                "world size", found: "\(worldSize)", expected: "a divisor of the \(queryHeads) query heads")
        }
        guard rank >= 0, rank < worldSize else {
            throw .invalidArgument("rank", found: "\(rank)", expected: "in 0 ..< \(worldSize)")
        }
        guard kvHeads % worldSize == 0 || worldSize % kvHeads == 0 else {
            throw .invalidArgument(
                "world size", found: "\(worldSize)",
                expected: "a divisor or a multiple of the \(kvHeads) key/value heads")
        }
        let own = queryHeads / worldSize
        self.queryHeads = rank * own..<(rank + 1) * own
        kvCopies = max(1, worldSize / kvHeads)
        let ownKV = max(1, kvHeads / worldSize)
        let first = rank / kvCopies * ownKV
        self.kvHeads = first..<first + ownKV
    }
}
