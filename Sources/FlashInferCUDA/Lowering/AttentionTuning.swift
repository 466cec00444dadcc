internal import FlashInferCore

/// Which tiles the attention kernels use: the tuning table, each row with its reason.
enum AttentionTuning {
    /// Shared memory that tiles must fit in.
    struct Limits: Hashable {
        /// The most of one block, in bytes.
        var perBlock: Int
        /// Of a processor, in bytes.
        var perProcessor: Int
        /// Whether there are wgmma and the tensor memory accelerator as 9.0 has them.
        var isHopper: Bool

        init(_ properties: CUDAProperties) {
            perBlock = properties.sharedMemoryPerBlockOptIn
            perProcessor = properties.sharedMemoryPerProcessor
            isHopper = properties.computeCapability == (9, 0)
        }

        /// Those of an architecture, for compiling without a GPU (CUDA C++ Programming Guide, technical specifications).
        init(_ architecture: Architecture) {
            let kibibytes =
                switch (architecture.major, architecture.minor) {
                case (8, 0), (8, 7): 163
                case (8, _), (12, _): 99
                default: 227
                }
            perBlock = kibibytes * 1024
            perProcessor = (kibibytes + 1) * 1024
            isHopper = (architecture.major, architecture.minor) == (9, 0) && architecture.isSpecific
        }

        /// Whether `tile` and its neighbours on the processor fit; the system takes 1 KiB of each block.
        func fits(_ tile: AttentionTile, _ heads: AttentionHeads) -> Bool {
            // 256 bytes: the kernel's own variables.
            let bytes = tile.sharedByteCount(heads) + 256
            return bytes <= perBlock && tile.blocksPerProcessor * (bytes + 1024) <= perProcessor
        }
    }

    /// The tiles of a problem's kernels by increasing rows, with the largest number of packed rows of a request that each takes;
    /// `nil` where heads are too wide for the processor's shared memory.
    static func tiles(
        _ heads: AttentionHeads, _ limits: Limits
    ) -> [(maximumRows: Int, tile: AttentionTile)]? {
        if heads.latentRope > 0 { return latent(heads, limits) }
        let hopper = limits.isHopper && heads.allowsHopper ? hopper(heads).map { paired($0, heads) } : []
        let shortHopper = !hopper.isEmpty && heads.hasLongShortTiles ? self.shortHopper(heads) : []
        let kinds = [(16, decode(heads)), (64, shortHopper + short(heads)), (.max, hopper + long(heads))]
        let tiles = kinds.compactMap { maximumRows, candidates in
            candidates.first { limits.fits($0, heads) }.map { (maximumRows, $0) }
        }
        return tiles.count == kinds.count ? tiles : nil
    }

    /// Few rows: reading keys is all there is to do. Four warps share a stage's keys; two blocks a processor, so that one reads
    /// while the other ends its item; as many stages as fit, for bytes in flight.
    private static func decode(_ heads: AttentionHeads) -> [AttentionTile] {
        let width = max(heads.paddedQK, heads.paddedVO)
        // A stage of about 32 KiB; 8-bit elements are loaded for 32 keys of each warp at a time.
        let keys = heads.isNarrow || width <= 64 ? 128 : 64
        // Above 192 elements the output alone takes a hundred registers.
        let queryRegisters = width <= 192 ? 64 : 0
        let roomy = [(2, 3), (2, 2), (1, 3), (1, 2)].map { blocks, stages in
            AttentionTile(
                rows: 16, keys: keys, warpsM: 1, warpsN: 4, stages: stages, blocksPerProcessor: blocks,
                queryRegisters: queryRegisters)
        }
        // Wide heads on small processors: fewer warps, each with the fewest keys there can be.
        let tight = [2, 1].map { warps in
            AttentionTile(
                rows: 16, keys: warps * (heads.isNarrow ? 32 : 16), warpsM: 1, warpsN: warps, stages: 2,
                blocksPerProcessor: 1, queryRegisters: 0)
        }
        return roomy + tight
    }

    /// Up to 64 rows: 16 a warp.
    private static func short(_ heads: AttentionHeads) -> [AttentionTile] {
        let blocks = heads.paddedVO > 128 ? [1] : [2, 1]
        return [64, 32].flatMap { keys in
            blocks.map { blocks in
                AttentionTile(
                    rows: 64, keys: keys, warpsM: 4, warpsN: 1, stages: 2, blocksPerProcessor: blocks,
                    queryRegisters: heads.paddedVO > 128 ? 0 : 32)
            }
        } + smallest(heads)
    }

    /// Up to 64 rows with many keys, on Hopper: one warpgroup computes, and beside it another block's, so that one's exponentials run beside
    /// the other's products. Stages of 64 keys, as the memory is for two.
    ///
    /// Queries in registers are not read again for each stage's scores, which with them takes all that shared memory gives; they
    /// leave memory for a third stage of keys; and the next item's scores are under way while one ends: 7 to 11 % of the time (H200, 64 × 64
    /// blocks, D 128, density 0.05 to 1). A third stage of values beside that is worth nothing. Scores of 64 keys leave registers for caps and masks,
    /// not for whatever a variant computes.
    private static func shortHopper(_ heads: AttentionHeads) -> [AttentionTile] {
        guard !heads.isFloat8, !heads.isNarrow, heads.boxedQK <= 128, heads.boxedVO <= 128 else { return [] }
        let holding: [Int?] = heads.isFused ? [nil, 2] : []
        return holding.map { stagesOfValues in
            AttentionTile(
                rows: 64, keys: 64, warpsM: 4, warpsN: 1, stages: 3, stagesOfValues: stagesOfValues,
                blocksPerProcessor: 2, queryRegisters: 32, isHopper: true)
        }
            + [3, 2].map { stages in
                AttentionTile(
                    rows: 64, keys: 64, warpsM: 4, warpsN: 1, stages: stages, blocksPerProcessor: 2, queryRegisters: 0,
                    isHopper: true)
            }
    }

    /// More, on Hopper: two warpgroups of 64 rows compute by turns, or three. Scores of 128 keys and outputs of 128 elements fit in their
    /// registers, and two stages of both in memory beside two items' queries; with outputs of 256 elements, scores of 80 keys and
    /// one item's queries do.
    private static func hopper(_ heads: AttentionHeads) -> [AttentionTile] {
        if heads.isFloat8 { return hopperFloat8(heads) }
        // Rows of the cache are copied in chunks of 16 bytes.
        guard heads.boxedVO <= 256, heads.slices == 1, heads.boxedQK <= 256,
            heads.dimQK % (16 / heads.elementBytes) == 0,
            heads.dimVO % 16 == 0
        else { return [] }
        // Outputs of 64 elements leave registers for a third group, whose exponentials and products run beside what the others wait for: with
        // two, the tensor cores and the exponentials were both idle half of the time (H200, 4,096 keys: 457 TFLOP/s with two, 570 with
        // three). Threads that copy rows need registers of a third group.
        if max(heads.boxedQK, heads.boxedVO) == 64, heads.hasPlainScores, !heads.isNarrow, !heads.gathersRows {
            return [
                AttentionTile(
                    rows: 192, keys: 128, warpsM: 12, warpsN: 1, stages: 3, blocksPerProcessor: 1, queryRegisters: 0,
                    isHopper: true)
            ]
        }
        // Queries of up to 128 elements fit in registers beside them, which leaves memory for a third stage (H200, 4,096 keys, D 128:
        // 640 TFLOP/s, and 595 with the queries in memory). Threads that widen need those registers, and so does what
        // becomes of scores that are not only scaled.
        let holding =
            max(heads.boxedQK, heads.boxedVO) <= 128 && heads.hasPlainScores && !heads.isNarrow
            ? [
                AttentionTile(
                    rows: 128, keys: 128, warpsM: 8, warpsN: 1, stages: 3, blocksPerProcessor: 1, queryRegisters: 32,
                    isHopper: true)
            ] : []
        let kinds = heads.boxedVO <= 128 ? [128, 64] : heads.isNarrow ? [64] : [80, 64]
        return holding
            + kinds.flatMap { keys in
                // 8-bit rows are asked for as far ahead as there is memory.
                (heads.isNarrow ? [4, 3, 2] : [1]).map { rawStages in
                    AttentionTile(
                        rows: 128, keys: keys, warpsM: 8, warpsN: 1, stages: 2, blocksPerProcessor: 1,
                        queryRegisters: 0,
                        rawStages: rawStages, isHopper: true)
                }
            }
    }

    /// The tile as one of pairs, where that is worth it.
    ///
    /// Blocks that go through stages together wait for each other, which costs 1 to 3 % of their cycles; what they read once is worth 3
    /// to 5 % where the copy engine is busy all the time (H200, 1,024 to 16,384 keys: 1.015 to 1.04 times as fast with heads of 128 and
    /// 256 elements; 1.03 with a variant's soft cap, 1.00 with its ALiBi, of 128). Heads of 64 and products of 8 bits, whose stages are
    /// shorter, lost 3 %.
    private static func paired(_ tile: AttentionTile, _ heads: AttentionHeads) -> AttentionTile {
        var tile = tile
        tile.isPaired =
            heads.seesFromFirst && !heads.gathersRows && !heads.isNarrow && heads.boxedQK == heads.boxedVO
            && (heads.boxedQK == 128 && (tile.queryRegisters > 0 || !heads.hasPlainScores)
                || heads.boxedQK == 256 && heads.hasPlainScores)
        return tile
    }

    /// The same with products of 8 bits, which take half the time and half the registers: what a stage costs beside them weighs more.
    ///
    /// Of outputs of up to 128 elements three groups compute: outputs, scores of 96 keys and their weights are 124 registers of 160, of 64
    /// elements and 128 keys 112. Caps and biases need more. Outputs of 256 leave 112 of 240 to scores of 128 keys. Values wait in as many
    /// stages as there is memory to be transposed, or are, of 128 keys by 128 elements, transposed where they lie.
    private static func hopperFloat8(_ heads: AttentionHeads) -> [AttentionTile] {
        guard heads.boxedVO <= 256, heads.slices == 1, heads.boxedQK <= 256, heads.dimQK % 16 == 0,
            heads.dimVO % 16 == 0
        else { return [] }
        let widest = max(heads.boxedQK, heads.boxedVO)
        if widest <= 128, heads.hasPlainScores {
            return [
                AttentionTile(
                    rows: 192, keys: widest == 64 ? 128 : 96, warpsM: 12, warpsN: 1, stages: widest == 64 ? 3 : 4,
                    blocksPerProcessor: 1, queryRegisters: 0, rawStages: 3, isHopper: true)
            ]
        }
        let kinds =
            heads.boxedVO > 128
            ? (heads.hasPlainScores ? [128, 64] : [64]) : heads.hasPlainScores ? [192, 128, 64] : [128, 64]
        return kinds.flatMap { keys in
            [3, 2, 1].map { rawStages in
                AttentionTile(
                    rows: 128, keys: keys, warpsM: 8, warpsN: 1, stages: 2, blocksPerProcessor: 1, queryRegisters: 0,
                    rawStages: rawStages, isHopper: true)
            }
        }
    }

    /// The portable tile that takes the place of the last one, with as many rows, as a plan's items have those; `nil` where none fits into
    /// the processor's memory.
    ///
    /// Where the last tile is Hopper's, it runs what the copy engine cannot bring: tensors that are not aligned, strides of 0. Where that
    /// is portable itself, no run asks for this: it is then the tile of 128 rows, of which `AttentionKernel.spec(of:on:)` is. Latent
    /// attention's has 64 rows, as Hopper's kernel for it has.
    static func portable(_ heads: AttentionHeads, _ limits: Limits) -> AttentionTile? {
        if heads.latentRope > 0 { return longLatent(heads).first { $0.rows == 64 && limits.fits($0, heads) } }
        let longest = tiles(heads, limits)?.last?.tile
        let rows = longest.map { $0.isHopper ? $0.rows : 128 } ?? 128
        return (long(heads) + [tall(heads)]).first { $0.rows == rows && limits.fits($0, heads) }
    }

    /// More: 32 rows a warp where a thread's registers hold them, so that each key is loaded from shared memory for two products;
    /// two blocks a processor, so that one's softmax runs beside the other's products.
    private static func long(_ heads: AttentionHeads) -> [AttentionTile] {
        var candidates: [AttentionTile] = []
        if heads.paddedVO <= 128, !heads.isNarrow {
            // Outputs of 64 elements leave registers for the scores of 96 keys, and memory for a third stage: what a stage costs
            // beside its products is paid less often (H200, 4,096 keys: 340 TFLOP/s, and 318 with 64 keys). Weights by sums need
            // some of those registers, and make up for it (367 with 64 keys, 358 with 80).
            if heads.paddedVO == 64, heads.paddedQK <= 64 {
                candidates.append(
                    AttentionTile(
                        rows: 128, keys: heads.weighsBySums ? 64 : 96, warpsM: 4, warpsN: 1, stages: 3,
                        blocksPerProcessor: 2))
            }
            candidates += [(64, 2), (32, 2), (64, 1), (32, 1)].map { keys, blocks in
                AttentionTile(rows: 128, keys: keys, warpsM: 4, warpsN: 1, stages: 2, blocksPerProcessor: blocks)
            }
        }
        // 16 rows a warp: outputs of 256 elements take 128 registers, and widening 8-bit elements takes its own.
        let queryRegisters = heads.paddedVO > 128 ? 0 : 32
        candidates += [(128, 8, 64), (128, 8, 32), (64, 4, 64), (64, 4, 32)].map { rows, warps, keys in
            AttentionTile(
                rows: rows, keys: keys, warpsM: warps, warpsN: 1, stages: 2, blocksPerProcessor: 1,
                queryRegisters: queryRegisters)
        }
        return candidates + smallest(heads)
    }

    /// As many rows as three warpgroups have; 32 keys a stage, as two blocks of six warps have registers for, or one with wider heads.
    private static func tall(_ heads: AttentionHeads) -> AttentionTile {
        AttentionTile(
            rows: 192, keys: 32, warpsM: 6, warpsN: 1, stages: 3, blocksPerProcessor: heads.paddedVO > 64 ? 1 : 2,
            queryRegisters: 0)
    }

    /// For heads of hundreds of elements on processors with little shared memory.
    private static func smallest(_ heads: AttentionHeads) -> [AttentionTile] {
        [(32, 2), (16, 1)].map { rows, warps in
            AttentionTile(
                rows: rows, keys: 32, warpsM: warps, warpsN: 1, stages: 2, blocksPerProcessor: 1, queryRegisters: 0)
        }
    }

    /// What the planner is told: costs in units of one key of a whole tile.
    ///
    /// Times are for choosing between plans (``Cascade``): those of an H200 for heads of 128 elements of 16 bits, in nanoseconds,
    /// others in proportion. Listed work reads 4.4 TB/s, 8 heads side by side on 264 blocks: 31 ns a key. Queued work of 128 rows
    /// computes 600 TFLOP/s on 132 blocks, 14 ns a key, and the portable kernel 350 on 264, 49 ns; of 64 rows half as much, but the
    /// bytes alone take 31. A launch costs 5 µs with its start and its end; a state is 1 KiB written and read, 66 ns of a block. Keys that
    /// several requests read at a time come from L2 at twice the rate (plain decode over a shared prefix, H200: 9 TB/s).
    ///
    /// Without four items of a 32nd round a launch is 0.7 to 1.1 % faster, not 3 %: the fastest processors come to that round 2.1 % of the time before the
    /// slowest. A part of 128 rows takes 4.5 µs to merge, by what 2 to 8 parts of 40 to 180 µs lost. Sections of queues have as many bytes of e4m3 as
    /// of 16 bits: 0.5 to 0.7 % at 8,192 keys, causal (the same with 16 bits of 64 elements: nothing).
    static func traits(
        _ heads: AttentionHeads, _ tiles: [(maximumRows: Int, tile: AttentionTile)], kvHeads: Int, processors: Int
    ) -> KernelTraits {
        if heads.latentRope > 0 { return latentTraits(tiles) }
        let listHeads = concurrentHeads(kvHeads, workers: processors * tiles[0].tile.blocksPerProcessor)
        let width = Float(heads.dimQK + heads.dimVO) / 256
        let bytes = width * Float(heads.elementBytes) / 2
        return KernelTraits(
            tiles: tiles.enumerated().map { index, entry in
                index == 0 && !heads.sharesColumns
                    ? .init(
                        maximumRows: entry.maximumRows, queryRows: entry.tile.rows, kvHeads: listHeads,
                        // Starting and ending an item takes about 2 µs; the heads of an item are read side by side.
                        fixedCost: 64, keyCost: 1 / Float(listHeads), pairCost: 0, schedule: .lists,
                        unitTime: 31 * bytes)
                    : .init(
                        maximumRows: entry.maximumRows, queryRows: entry.tile.rows, kvHeads: 1, fixedCost: 64,
                        keyCost: 0.25, pairCost: 0.75 / Float(entry.tile.rows), schedule: .queue,
                        blocksPerProcessor: entry.tile.blocksPerProcessor, isPaired: entry.tile.isPaired,
                        stageKeys: entry.tile.keys,
                        unitTime: entry.tile.isHopper && entry.tile.rows > 64
                            ? 15 * width * Float(entry.tile.rows) / 128
                            : max((entry.tile.isHopper ? 20 : 0.38 * Float(entry.tile.rows)) * width, 34 * bytes))
            },
            kvGranularity: 64, minimumSplit: 64, workersPerProcessor: tiles[0].tile.blocksPerProcessor,
            concurrentHeads: listHeads, cachedKeys: heads.isFloat8 ? 65_536 : 32_768, launchTime: 5000,
            stateTime: 66 * Float(heads.dimVO) / 128, mergeTime: 20 + 15 * Float(heads.dimVO) / 128,
            paceSpread: 0.021, rereadShare: 0.5)
    }

    /// How many heads are read side by side: as many as leave at most one worker in twenty without a list.
    ///
    /// Heads of a token are neighbours in memory. Decode of 64 × 4,096 keys of 8 heads reads 4.40 TB/s so, and 4.01 with each
    /// worker at a head and a place of its own (H200).
    private static func concurrentHeads(_ kvHeads: Int, workers: Int) -> Int {
        for heads in stride(from: kvHeads, to: 1, by: -1) where kvHeads % heads == 0 {
            if workers / heads * heads * 20 >= workers * 19 { return heads }
        }
        return 1
    }
}
