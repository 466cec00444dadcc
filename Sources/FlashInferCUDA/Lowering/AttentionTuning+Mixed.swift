internal import FlashInferCore

extension AttentionTuning {
    /// The kernel that runs a plan's lists beside its longest requests' queue, in one launch: a warpgroup of its own reads the lists' keys while
    /// two compute. `nil` where there is none: then lists and queue are launches side by side.
    ///
    /// Of 65,536 registers and 227 KiB the lists take a fifth and 64 KiB. What is left holds the scores of 128 keys, their weights and outputs of 128
    /// elements, and two stages, but neither a third stage nor queries in registers, nor what caps and masks of the caller's need; and lists' keys
    /// are multiplied as 16-bit heads of 128 elements only.
    static func mixed(_ heads: AttentionHeads, _ tiles: [AttentionTile], _ limits: Limits) -> AttentionTile? {
        guard let longest = tiles.last, longest.isHopper, longest.rows == 128, longest.queryRegisters > 0,
            tiles.count > 1, !heads.isNarrow, heads.hasPlainScores, heads.isFused, heads.dimQK == 128,
            heads.dimVO == 128, !heads.gathersRows, !heads.cutsSixteens, !heads.hasLongShortTiles,
            !heads.sharesColumns
        else { return nil }
        var tile = longest
        (tile.stages, tile.queryRegisters, tile.runsLists, tile.isPaired) = (2, 0, true, false)
        return limits.fits(tile, heads) ? tile : nil
    }

    /// The least of either, of lists and the last tile's queue, that is worth mixing, as a share of the other.
    ///
    /// Queued items take a tenth longer in the kernel that has less room for them, and lists that are alone in it do too. Chunks of 512 rows and
    /// decodes over 4,096 keys (H200): 8 and 8, lists 0.07 of the queue, 412 us either way; 8 and 24, 0.21, 440 for 473; 1 and 56, the queue 0.26 of the
    /// lists, 268 for 271.
    private static let leastShare: Float = 1 / 8

    /// Whether a plan's lists and its last tile's queue are worth one launch: both take long enough for what is saved by running one beside
    /// the other to be more than what either loses. Never where a request's result must be the same next to any neighbours: sums are added in
    /// another order.
    static func isWorthMixing(_ plan: Plan) -> Bool {
        let (traits, last) = (plan.traits, plan.traits.tiles.count - 1)
        guard plan.isBalanced, let tile = traits.tiles.last, tile.schedule == .queue, plan.listItemCount > 0 else {
            return false
        }
        var lists: Float = 0
        var queued: Float = 0
        for item in plan.items {
            let keys = Float(item.keyCount) * Float(item.headCount)
            if item.tile == last {
                queued += keys * (tile.keyCost + tile.pairCost * Float(tile.queryRows)) * tile.unitTime
            } else if traits.tiles[Int(item.tile)].schedule == .lists {
                let own = traits.tiles[Int(item.tile)]
                lists += keys * own.keyCost * own.unitTime
            }
        }
        lists /= Float(plan.workerCount)
        queued /= Float(plan.processorCount)
        return lists > 0 && queued > 0 && min(lists, queued) >= leastShare * max(lists, queued)
    }
}
