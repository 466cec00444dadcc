internal import FlashInferCore

/// The blocks that work on one row together, and the memory in which they hold it.
///
/// | team | for | reason |
/// | --- | --- | --- |
/// | 8 blocks of 512, 64 KiB each | rows of 16,384 ... 131,072 entries | the row is read once, and two blocks fit on a processor (three, of softmax, which has no histograms), so that one loads while the other counts |
/// | 8 blocks of 512, 100 KiB each | rows of up to 204,800 entries | as above, one block on a processor (two of softmax) |
/// | 8 blocks of 512 that hold nothing | up to 95 rows of 16,384 entries and more that are passed over once | a small batch has work for more processors; a large one is quicker without barriers |
/// | 1 block of 512, two on a processor | draws, few of the greatest and filters of many rows | no block waits for others, and what is read once or twice need not be held |
/// | the same with lists of some 100 KiB | draws and filters of many rows, on GPUs with 228 KiB a processor | what top-p may keep is listed where it is read first, so a row is read once |
/// | 1 block of 1,024 (512 of kernels that filter) | other rows, and GPUs before 9.0 | short rows are not worth a cluster; a row that cannot be held is read again each pass |
package struct RowTeam: Hashable, Sendable {
    /// Blocks of a row.
    package let blocks: Int
    /// Threads of a block.
    package let threads: Int
    /// Entries that a block holds.
    package let heldCount: Int
    /// Whether a block lists what top-p may keep, in memory of a size that the kernel's text has (`FI_LIST_BYTES`).
    package let isListing: Bool

    private init(blocks: Int, threads: Int, heldCount: Int = 0, isListing: Bool = false) {
        self.blocks = blocks
        self.threads = threads
        self.heldCount = heldCount
        self.isListing = isListing
    }

    /// One block, which holds nothing.
    package static let alone = RowTeam(blocks: 1, threads: 1024)
    /// A cluster that holds rows of up to 131,072 entries.
    package static let eight = RowTeam(blocks: 8, threads: 512, heldCount: 16_384)
    /// A cluster that holds rows of up to 204,800 entries.
    package static let wideEight = RowTeam(blocks: 8, threads: 512, heldCount: 25_600)

    /// A block that lists what top-p may keep.
    package static let listing = RowTeam(blocks: 1, threads: aloneThreads, isListing: true)
    /// A cluster that passes over a row once, of any length.
    package static let passing = RowTeam(blocks: 8, threads: 512)

    /// Those of kernels that pass over a row more than once, in the order of their numbers.
    package static let holding = [alone, eight, wideEight]
    /// Those of kernels that filter, likewise.
    package static let filtering = holding + [listing]
    /// Rows of this width and more are worth a cluster.
    private static let leastWidth = 16_384

    /// So many rows have a block for each of most processors by themselves.
    package static let manyRows = 96
    /// So many are enough for top-k of more than ``fewTopK``, of which a cluster's first block does most alone: 30 us against 34 at 32
    /// rows, and 31 against 46 at 64.
    package static let manyListedRows = 32

    /// The team for rows of a width that are passed over more than once.
    ///
    /// - Parameters:
    ///   - streamedRows: how many rows there are, of kernels that are as quick with a block a row that holds nothing; else 0.
    ///   - manyRows: from how many of those on they are.
    package static func choose(
        width: Int, streamedRows: Int = 0, manyRows: Int = RowTeam.manyRows, hasClusters: Bool
    ) -> RowTeam {
        guard hasClusters, width >= leastWidth, streamedRows < manyRows else { return .alone }
        return [eight, wideEight].first { width <= $0.blocks * $0.heldCount } ?? .alone
    }

    /// The team for rows of a width that are drawn from or filtered, as of ``choose(width:streamedRows:manyRows:hasClusters:)``.
    package static func chooseFiltering(width: Int, streamedRows: Int, hasClusters: Bool) -> RowTeam {
        let team = choose(width: width, streamedRows: streamedRows, hasClusters: hasClusters)
        return team == .alone && hasClusters && width >= leastWidth ? .listing : team
    }

    /// The team for rows of a width that are passed over once.
    package static func choosePassing(width: Int, rows: Int, hasClusters: Bool) -> RowTeam {
        hasClusters && width >= leastWidth && rows < manyRows ? .passing : .alone
    }

    /// Its place in ``filtering``; of ``passing``, 1.
    var number: Int { isListing ? 3 : blocks == 1 ? 0 : self == .wideEight ? 2 : 1 }

    /// Dynamic shared memory: what is held, and alignment.
    var sharedByteCount: Int { heldCount == 0 ? 0 : 4 * heldCount + 16 }

    /// Threads of a cluster's blocks that filter a row: three blocks of them, as many as fit with what they hold, have 56 registers a
    /// thread, and 36 warps hide each other's waits.
    static let filteringThreads = 384
    /// Threads of a block alone that filters a row, two on a processor.
    static let aloneThreads = 512
    /// The greatest k that is surely found among the threads' own greatest, and that a block alone looks for in one pass, as in
    /// `primitives/filter.cuh`.
    package static let fewTopK = 128
    package static let manyTopK = 2048

    /// A specialisation for this team.
    ///
    /// - Parameters:
    ///   - clusterThreads: threads of a cluster's blocks, where they are others than ``threads``.
    ///   - aloneThreads: those of a block alone; as many blocks are on a processor as have 1,024 together.
    ///   - blocksPerProcessor: of the clusters; as many as fit with what they hold, where it is not given.
    ///   - listingByteCount: the memory of a block that lists, which is all dynamic.
    func spec(
        _ file: String, _ entry: String, _ defines: [KernelSpec.Define], clusterThreads: Int? = nil,
        aloneThreads: Int? = nil, blocksPerProcessor: Int? = nil, listingByteCount: Int = 0, label: String
    ) -> KernelSpec {
        let threads = (blocks == 1 ? aloneThreads : clusterThreads) ?? self.threads
        return KernelSpec(
            file: "portable/\(file).cuh", entry: entry,
            defines: defines + [.init("FI_TEAM", blocks)] + (isListing ? [.init("FI_LISTS", true)] : []),
            threads: threads, sharedByteCount: isListing ? listingByteCount : sharedByteCount,
            blocksPerProcessor: blocks == 1 ? 1024 / threads : blocksPerProcessor ?? (self == .eight ? 3 : 2),
            label: label + (blocks == 1 ? "" : " x\(blocks)")
                + (self == .wideEight ? " wide" : isListing ? " listing" : ""))
    }

    /// Masses are integers, 2^(23 + this) for a weight of 1: the sum of a row's, whose weights are at most 1, stays below 2^62, and
    /// 2^45 is as fine as float32 steps allow.
    static func lowBits(width: Int) -> Int32 {
        let widthBits = width <= 1 ? 0 : Int.bitWidth - (width - 1).leadingZeroBitCount
        return Int32(min(45, 62 - widthBits) - 23)
    }

    /// The blocks of so many rows.
    func blockCount(rows: UInt32, _ name: StaticString) throws(FlashInferError) -> Int {
        let count = Int(rows) * blocks
        guard count <= Int(Int32.max) else { throw .overflow("rows of \(name)") }
        return count
    }
}

extension KernelSpec {
    /// Whether its blocks work in clusters, or need as much memory as GPUs with clusters have.
    var needsLargeProcessors: Bool {
        defines.contains { ($0.name == "FI_TEAM" && $0.value != "1") || $0.name == "FI_LISTS" }
    }
}

extension CUDADevice {
    /// The team for rows of a width that are passed over more than once.
    func team(width: Int, streamedRows: Int = 0, manyRows: Int = RowTeam.manyRows) -> RowTeam {
        RowTeam.choose(
            width: width, streamedRows: streamedRows, manyRows: manyRows, hasClusters: hasLargeClusters)
    }

    /// The team for rows of a width that are drawn from or filtered.
    ///
    /// - Parameter streamedRows: see ``RowTeam/choose(width:streamedRows:manyRows:hasClusters:)``.
    func filteringTeam(width: Int, streamedRows: Int) -> RowTeam {
        RowTeam.chooseFiltering(width: width, streamedRows: streamedRows, hasClusters: hasLargeClusters)
    }

    /// The team for so many rows of a width that are passed over once.
    func passingTeam(width: Int, rows: Int) -> RowTeam {
        RowTeam.choosePassing(width: width, rows: rows, hasClusters: hasLargeClusters)
    }

    /// GPUs with clusters and 228 KiB of shared memory are of 9.0 and 10.0.
    private var hasLargeClusters: Bool {
        [9, 10].contains(properties.computeCapability.major) && properties.hasClusters
    }
}
