/// Cuts only what is longer than a worker's share, into equal parts; for where that alone is balanced.
///
/// A uniform batch comes out whole, with the same number of items for each worker; a few long requests come out in equal parts,
/// one a worker. Either way there are no more cuts, so no more partial states to merge, than balance asks for.
struct LevelCutter {
    /// Cost of keys that a worker may have: 1/32 over its share.
    private let limit: Float64
    /// As `limit`, with the start of one item on top, which is what a worker pays for a cut.
    private let allowed: Float64
    private let traits: KernelTraits

    init(_ survey: Survey, _ traits: KernelTraits, _ workers: Int) {
        self.traits = traits
        limit = survey.listCost / Float64(workers) * (33 / 32)
        var fixed: Float = 0
        for tile in traits.tiles where tile.schedule == .lists { fixed = max(fixed, tile.fixedCost) }
        allowed = limit + Float64(fixed)
    }

    /// How `tile` is cut.
    @inline(__always)
    func cuts(_ tile: RowTile, heads: Int) -> KeyCuts {
        if Float64(tile.cost(heads: heads)) <= allowed { return KeyCuts(whole: tile) }
        return cutting(tile, heads: heads)
    }

    @inline(never)
    private func cutting(_ tile: RowTile, heads: Int) -> KeyCuts {
        let keys = Float64(tile.cost(heads: heads) - tile.fixedCost)
        let parts = min((keys / max(limit, 1e-30)).rounded(.up), Float64(tile.keyCount))
        return KeyCuts(tile, parts: Int(parts), traits)
    }

    /// Where the items go, or `nil` where that is not balanced.
    func placement(_ survey: Survey, _ workers: Int) -> Placement? {
        var (parts, partials) = (0, 0)
        var cost: Float64 = 0
        for tile in survey.lists {
            let steps = survey.heads[Int(tile.tile)]
            // All steps have the same heads, but for the last.
            for (count, heads) in [(steps.count - 1, steps.step), (1, steps.heads(steps.count - 1).count)] {
                if count == 0 { continue }
                let cuts = cuts(tile, heads: heads)
                parts += count * cuts.count
                if cuts.count > 1 { partials += count * cuts.count }
                cost += Float64(count * cuts.count) * Float64(Placement.partCost(tile, heads: heads, cuts))
            }
        }
        // What the capacity of plans promises.
        if partials > 2 * (workers - 1) { return nil }
        let placement = Placement(parts: parts, cost: cost, workers: workers)
        return parts <= workers || isLevel(survey, placement) ? placement : nil
    }

    private func isLevel(_ survey: Survey, _ placement: Placement) -> Bool {
        var placement = placement
        var (worker, load) = (-1, Float64(0))
        let tiles = survey.lists.span
        var first = 0
        while first < tiles.count {
            var end = first + 1
            while end < tiles.count, tiles[end].request == tiles[first].request { end += 1 }
            let steps = survey.heads[Int(tiles[first].tile)]
            for step in 0..<steps.count {
                let heads = steps.heads(step).count
                for index in first..<end {
                    let cuts = cuts(tiles[index], heads: heads)
                    let cost = Placement.partCost(tiles[index], heads: heads, cuts)
                    for _ in 0..<cuts.count {
                        let next = placement.next(cost)
                        load = next == worker ? load + Float64(cost) : Float64(cost)
                        worker = next
                        if load > allowed, load > Float64(cost) { return false }
                    }
                }
            }
            first = end
        }
        return true
    }
}
