/// What a planner must know of a device's attention kernels: their tiles, where they can be cut, and what work costs.
///
/// A device's tuning table gives these for a problem; the planner holds no numbers of its own.
public struct KernelTraits: Sendable, Hashable {
    /// One kernel's tile, for requests of up to `maximumRows` packed rows (query rows × group).
    ///
    /// Which tile a request gets depends on its own rows only, never on its neighbours.
    public struct Tile: Sendable, Hashable {
        /// Who runs the items of a tile.
        public enum Schedule: Sendable, Hashable {
            /// Each worker runs a list of its own: equal shares, cut where a share ends. For work that reads memory.
            case lists
            /// Items are taken one after another by whoever is free: heads outside, longest rows first, so that neighbours
            /// in time share keys; cut only where the end would be uneven. For work that computes.
            case queue
        }

        /// The largest number of packed rows of a request that uses this tile; of no account for the last tile.
        public var maximumRows: Int

        /// Packed rows per work item.
        public var queryRows: Int

        /// Key/value heads per work item; capped by the problem's.
        public var kvHeads: Int

        /// Cost of an item however small.
        public var fixedCost: Float

        /// Cost of a key of one head, on top of its rows: reading it.
        public var keyCost: Float

        /// Cost of one (packed row, key) pair of one head.
        public var pairCost: Float

        /// Who runs its items.
        public var schedule: Schedule

        /// The time of a unit of cost, in the unit of time that all tiles share: nanoseconds on a GPU.
        public var unitTime: Float

        /// Thread blocks of the tile's queue that a processor runs at the same time; the traits'
        /// ``KernelTraits/workersPerProcessor`` where not given. Lists have the traits' number.
        public var blocksPerProcessor: Int?

        /// Whether two thread blocks take two of a queue's items at a time, the first and second, third and fourth and so on, and read
        /// once what both need: then a request's neighbouring row tiles of one head that begin at the same key come as such pairs.
        public var isPaired: Bool

        /// Keys that the tile's kernel takes at a time: what is left over at an item's end takes as long as all of them. `nil` where it goes key by
        /// key.
        public var stageKeys: Int?

        /// A tile.
        public init(
            maximumRows: Int, queryRows: Int, kvHeads: Int, fixedCost: Float, keyCost: Float, pairCost: Float,
            schedule: Schedule = .lists, blocksPerProcessor: Int? = nil, isPaired: Bool = false, stageKeys: Int? = nil,
            unitTime: Float = 1
        ) {
            precondition(maximumRows > 0 && queryRows > 0 && kvHeads > 0, "a tile has rows and heads")
            precondition((1...1 << 16).contains(stageKeys ?? 1), "a stage has keys")
            precondition(blocksPerProcessor ?? 1 > 0, "a processor runs at least one block")
            precondition(
                fixedCost >= 0 && keyCost >= 0 && pairCost >= 0 && keyCost + pairCost > 0, "work costs something")
            precondition(max(fixedCost, keyCost, pairCost) < 1e12, "sums of costs are finite")
            self.maximumRows = maximumRows
            self.queryRows = queryRows
            self.kvHeads = kvHeads
            self.fixedCost = fixedCost
            self.keyCost = keyCost
            self.pairCost = pairCost
            self.schedule = schedule
            self.blocksPerProcessor = blocksPerProcessor
            self.isPaired = isPaired
            self.stageKeys = stageKeys
            self.unitTime = unitTime
        }
    }

    /// The tiles, by increasing `maximumRows`; the last takes all that is longer.
    public var tiles: [Tile]

    /// KV ranges are cut at multiples of this many keys.
    public var kvGranularity: Int

    /// No cut leaves a part of fewer keys than this.
    public var minimumSplit: Int

    /// Workers, each with a list of its own, for each of the device's processors: resident thread blocks on a GPU.
    public var workersPerProcessor: Int

    /// Workers that run one list side by side, each a key/value head of its items, which have this many heads: neighbours then
    /// read the same keys' heads at the same time, which lie side by side in memory.
    public var concurrentHeads: Int

    /// Keys of one head, with their values, that the processors' common cache can be counted on to hold: queued items that run
    /// at the same time share about so many where they can.
    public var cachedKeys: Int

    /// Time from one tile's launch to the next one's, in the tiles' unit of time.
    public var launchTime: Float

    /// Time that a worker takes to write, read and merge a partial state of a row of one head.
    public var stateTime: Float

    /// Time that the worker whose part is a tile's last takes for each part and row, of one head, to merge them.
    public var mergeTime: Float

    /// By how much of the time that equal work takes the fastest worker of a queue is done before the slowest.
    public var paceSpread: Float

    /// What reading keys takes where neighbours read the same ones at about the same time, of what it takes else: the common cache
    /// has them.
    public var rereadShare: Float

    /// Traits. `cachedKeys` is by default 16 MiB of keys and values of 128 dims and 2 bytes: a third of an H100's L2, each half of
    /// which keeps a copy of what its processors read.
    public init(
        tiles: [Tile], kvGranularity: Int, minimumSplit: Int, workersPerProcessor: Int = 1, concurrentHeads: Int = 1,
        cachedKeys: Int = 32_768, launchTime: Float = 0, stateTime: Float = 0, mergeTime: Float = 0,
        paceSpread: Float = 0, rereadShare: Float = 1
    ) {
        precondition(
            (1...32).contains(tiles.count) && kvGranularity > 0 && minimumSplit > 0 && workersPerProcessor > 0
                && concurrentHeads > 0
                && cachedKeys >= 0,
            "traits name 1 to 32 tiles")
        // The planner adds these without overflow checks.
        precondition(
            max(kvGranularity, minimumSplit, workersPerProcessor) <= Int(Int32.max), "traits fit in 32 bits")
        self.tiles = tiles
        self.kvGranularity = kvGranularity
        self.minimumSplit = minimumSplit
        self.workersPerProcessor = workersPerProcessor
        self.concurrentHeads = concurrentHeads
        self.cachedKeys = cachedKeys
        self.launchTime = launchTime
        self.stateTime = stateTime
        self.mergeTime = mergeTime
        self.paceSpread = paceSpread
        self.rereadShare = rereadShare
    }

    /// Thread blocks of a tile's queue that run at the same time.
    func queueWorkers(tile: Int, _ processors: Int) -> Int {
        processors * (tiles[tile].blocksPerProcessor ?? workersPerProcessor)
    }

    /// Bits of the tiles that have items.
    func tileMask(_ hasItems: (_ tile: Int) -> Bool) -> UInt32 {
        var mask: UInt32 = 0
        for index in tiles.indices where hasItems(index) { mask |= 1 << UInt32(index) }
        return mask
    }

    /// How many lists there are.
    func listCount(_ processors: Int) -> Int { max(processors * workersPerProcessor / concurrentHeads, 1) }

    /// The tile for a request of `rows` packed rows.
    func tileIndex(rows: Int) -> Int {
        for index in tiles.indices.dropLast() where rows <= tiles[index].maximumRows { return index }
        return tiles.count - 1
    }
}
