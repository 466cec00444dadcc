internal import FlashInferCore

extension AttentionTuning {
    /// The tiles of latent attention by increasing rows, as `tiles` gives those of others.
    static func latent(_ heads: AttentionHeads, _ limits: Limits) -> [(maximumRows: Int, tile: AttentionTile)]? {
        if limits.isHopper, let tile = hopperLatent(heads), limits.fits(tile, heads) {
            guard let short = shortHopperLatent(heads), limits.fits(short, heads) else { return [(.max, tile)] }
            return [(short.rows, short), (.max, tile)]
        }
        let kinds = [(16, shortLatent(heads, rows: 16)), (32, shortLatent(heads, rows: 32)), (.max, longLatent(heads))]
        let tiles = kinds.compactMap { maximumRows, candidates in
            candidates.first { limits.fits($0, heads) }.map { (maximumRows, $0) }
        }
        return tiles.count == kinds.count ? tiles : nil
    }

    /// Hopper's kernel: two stages of 64 keys are what memory holds beside the queries. A key of more than 64 heads is read by two
    /// blocks, so that it is asked for once for both.
    private static func hopperLatent(_ heads: AttentionHeads) -> AttentionTile? {
        guard heads.allowsHopper, heads.dimVO == 512, heads.latentRope == 64 else { return nil }
        return AttentionTile(
            rows: 64, keys: 64, warpsM: 4, warpsN: 1, stages: 2, blocksPerProcessor: 1, queryRegisters: 0,
            isHopper: true, cluster: heads.latentGroup > 64 ? 2 : 1)
    }

    /// The same for up to 16 rows, where the copy engine brings the keys: products are of 16 rows then, and not of 64.
    private static func shortHopperLatent(_ heads: AttentionHeads) -> AttentionTile? {
        guard heads.latentGroup <= 16, !heads.isNarrow, !heads.gathersRows else { return nil }
        return AttentionTile(
            rows: 16, keys: 64, warpsM: 1, warpsN: 1, stages: 2, blocksPerProcessor: 1, queryRegisters: 0,
            isHopper: true, cluster: 1)
    }

    /// Rows of one token's heads, few of them: warps share a stage's keys. 8-bit keys are loaded 32 at a time.
    private static func shortLatent(_ heads: AttentionHeads, rows: Int) -> [AttentionTile] {
        let step = heads.isNarrow ? 32 : 16
        return [4, 2, 1].map { warps in
            AttentionTile(
                rows: rows, keys: warps * step, warpsM: rows / 16, warpsN: warps, stages: 2, blocksPerProcessor: 1,
                queryRegisters: 0)
        }
    }

    /// More: 16 rows a warp, whose outputs of 256 columns take half of its registers, so that scores of 64 keys would not fit beside
    /// them. Processors with little memory take 32 rows.
    static func longLatent(_ heads: AttentionHeads) -> [AttentionTile] {
        [(64, 32), (64, 16), (32, 32), (32, 16), (16, 32), (16, 16)].filter { !heads.isNarrow || $0.1 >= 32 }
            .map { rows, keys in
                AttentionTile(
                    rows: rows, keys: keys, warpsM: rows / 16, warpsN: 1, stages: 2, blocksPerProcessor: 1,
                    queryRegisters: 0)
            }
    }

    /// What the planner is told, in units of a key of a tile: 25 ns by the tensor cores' work. To start and end an item takes as long as
    /// some 160 keys: queries, the first keys' way, and outputs of 128 KiB.
    static func latentTraits(_ tiles: [(maximumRows: Int, tile: AttentionTile)]) -> KernelTraits {
        let cluster = max(tiles[0].tile.cluster, 1)
        return KernelTraits(
            tiles: tiles.map { maximumRows, tile in
                .init(
                    maximumRows: maximumRows, queryRows: tile.rows * cluster, kvHeads: 1, fixedCost: 160, keyCost: 1,
                    pairCost: 0, schedule: .lists)
            },
            kvGranularity: 64, minimumSplit: 128, workersPerProcessor: tiles[0].tile.blocksPerProcessor,
            concurrentHeads: cluster)
    }
}
