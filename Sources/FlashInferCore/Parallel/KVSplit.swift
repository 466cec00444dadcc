/// How the keys and values of one request are cut into parts for the ranks: KV-sequence, or context, parallelism.
///
/// Parts are whole pages, so that each rank keeps an ordinary paged cache with its pages of the request, one after another.
public enum KVSplit: Sendable, Hashable {
    /// One run of pages a rank, in the ranks' order; the last rank also has what is appended later. For a prompt of known length.
    case chunks(pages: Int)

    /// Every `worldSize`-th run of pages: appended tokens spread over all ranks. For decode-context parallelism (DCP).
    case interleaved(pages: Int)

    /// Two runs of pages a rank, one from the front and one from the back, so that causal attention is the same work for all ranks. For
    /// ring attention over a prompt; rank 0, which has the last run, also has what is appended later.
    case zigzag(pages: Int)

    /// Equal chunks of a request of `kvLength` keys, but for the last.
    ///
    /// - Precondition: `pageSize` and `ranks` are 1 or more.
    public static func chunks(ofLength kvLength: Int, pageSize: Int, ranks: Int) -> KVSplit {
        .chunks(pages: max(1, ceilingDivide(ceilingDivide(max(kvLength, 0), pageSize), ranks)))
    }

    /// Equal zigzag runs of a request of `kvLength` keys, but for the last.
    ///
    /// - Precondition: `pageSize` and `ranks` are 1 or more.
    public static func zigzag(ofLength kvLength: Int, pageSize: Int, ranks: Int) -> KVSplit {
        .zigzag(pages: max(1, ceilingDivide(ceilingDivide(max(kvLength, 0), pageSize), 2 * ranks)))
    }

    /// Pages of a run.
    public var pages: Int {
        switch self {
        case .chunks(let pages), .interleaved(let pages), .zigzag(let pages): pages
        }
    }
}

private func ceilingDivide(_ a: Int, _ b: Int) -> Int { a / b + (a % b == 0 ? 0 : 1) }

/// The part of a request's keys that one rank has.
///
/// ```swift
/// let share = try KVShare(.interleaved(pages: 1), pageSize: 16, rank: 1, worldSize: 4)
/// share.keyCount(before: 100)   // 32: all of pages 1 and 5
/// share.localPosition(of: 17)   // 1
/// ```
public struct KVShare: Sendable, Hashable {
    /// How keys are cut.
    public let split: KVSplit
    /// Keys of a page.
    public let pageSize: Int
    /// Whose part this is.
    public let rank: Int
    /// The number of ranks.
    public let worldSize: Int

    /// Keys of a run.
    private let unit: Int

    /// A rank's part.
    ///
    /// - Throws: ``FlashInferError`` for sizes below 1 or above 2³¹ − 1 keys a run, and a rank that is none.
    public init(_ split: KVSplit, pageSize: Int, rank: Int, worldSize: Int) throws(FlashInferError) {
        guard worldSize >= 1, worldSize <= 65_536 else {
            throw .invalidArgument("world size", found: "\(worldSize)", expected: "in 1 ... 65536")
        }
        guard rank >= 0, rank < worldSize else {
            throw .invalidArgument("rank", found: "\(rank)", expected: "in 0 ..< \(worldSize)")
        }
        guard pageSize >= 1, pageSize <= Int(Int32.max) else {
            throw .invalidArgument("page size", found: "\(pageSize)", expected: "in 1 ... \(Int32.max)")
        }
        guard split.pages >= 1 else {
            throw .invalidArgument("pages of a run", found: "\(split.pages)", expected: "1 or more")
        }
        guard case (let unit, false) = split.pages.multipliedReportingOverflow(by: pageSize), unit <= Int(Int32.max)
        else { throw .overflow("keys of a run of \(split.pages) pages") }
        (self.split, self.pageSize, self.rank, self.worldSize, self.unit) = (split, pageSize, rank, worldSize, unit)
    }

    /// The same split's part of another rank.
    ///
    /// - Precondition: `rank` is in `0 ..< worldSize`.
    public func ofRank(_ rank: Int) -> KVShare {
        precondition(rank >= 0 && rank < worldSize, "a rank is in 0 ..< world size")
        return KVShare(copying: self, rank: rank)
    }

    private init(copying other: KVShare, rank: Int) {
        (split, pageSize, worldSize, unit) = (other.split, other.pageSize, other.worldSize, other.unit)
        self.rank = rank
    }

    /// The runs of positions that are this rank's, as their starts and ends; of interleaved ones, those of the period at `position`.
    private func runs(around position: Int) -> [Range<Int>] {
        switch split {
        case .chunks:
            return [rank * unit..<(rank == worldSize - 1 ? .max : (rank + 1) * unit)]
        case .zigzag:
            let back = 2 * worldSize - 1 - rank
            return [rank * unit..<(rank + 1) * unit, back * unit..<(rank == 0 ? .max : (back + 1) * unit)]
        case .interleaved:
            if worldSize == 1 { return [0..<Int.max] }
            let period = unit * worldSize
            let start = position / period * period + rank * unit
            return [start..<start + unit, start + period..<start + period + unit]
        }
    }

    /// How many of the keys before a position are this rank's: keys of a request of that length, or keys that a causal row sees.
    public func keyCount(before position: Int) -> Int {
        let position = max(position, 0)
        if case .interleaved = split {
            let period = unit * worldSize
            return position / period * unit + min(max(position % period - rank * unit, 0), unit)
        }
        return runs(around: position).reduce(0) {
            $0 + min(max(position, $1.lowerBound), $1.upperBound) - $1.lowerBound
        }
    }

    /// Pages that this rank needs for its part of a request of `kvLength` keys.
    public func pageCount(forLength kvLength: Int) -> Int { ceilingDivide(keyCount(before: kvLength), pageSize) }

    /// Which of the request's pages is this rank's page `page`.
    public func globalPage(_ page: Int) -> Int {
        let pages = split.pages
        switch split {
        case .chunks: return rank * pages + page
        case .interleaved: return (page / pages * worldSize + rank) * pages + page % pages
        case .zigzag: return page < pages ? rank * pages + page : (2 * worldSize - 1 - rank) * pages + page - pages
        }
    }

    /// The rank that has the key at a position.
    ///
    /// - Precondition: `position` is not negative.
    public func owner(of position: Int) -> Int {
        let run = position / unit
        switch split {
        case .chunks: return min(run, worldSize - 1)
        case .interleaved: return run % worldSize
        case .zigzag: return run < worldSize ? run : max(2 * worldSize - 1 - run, 0)
        }
    }

    /// Where the key at a position lies among this rank's keys; `nil` where another rank has it.
    public func localPosition(of position: Int) -> Int? {
        owner(of: position) == rank ? keyCount(before: position) : nil
    }

    /// The longest stretch of positions from `position` on that is this rank's throughout, or not at all.
    func stretch(from position: Int) -> (isOwn: Bool, end: Int) {
        if position < 0 { return (false, max(runs(around: 0)[0].lowerBound, 0)) }
        for run in runs(around: position) {
            if position < run.lowerBound { return (false, run.lowerBound) }
            if position < run.upperBound { return (true, run.upperBound) }
        }
        return (false, .max)
    }

    /// This rank's positions in a range, in order.
    public func positions(in range: Range<Int>) -> [Range<Int>] {
        var own: [Range<Int>] = []
        var position = range.lowerBound
        while position < range.upperBound {
            let (isOwn, end) = stretch(from: position)
            let last = min(end, range.upperBound)
            if isOwn { own.append(position..<last) }
            position = last
        }
        return own
    }
}
