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
        var parts = Placement.Parts()
        var (partials, added) = (0, 0)
        var runs = ListedRuns(survey)
        while let run = runs.next() {
            let tile = run.tile
            let cuts = cuts(tile, heads: run.heads)
            let count = run.count * cuts.count
            if cuts.count > 1 { partials += count }
            added += count - run.count
            parts.add(Placement.Row(tile, heads: run.heads, cuts), count: count)
        }
        // What the capacity of plans promises, and what is allocated for one.
        if partials > Planner.cutPartsOfLists(workers) || added > workers - 1 { return nil }
        let placement = Placement(parts, workers: workers)
        let isLevel =
            if let most = placement.mostItems {
                most <= 1 || Float64(most) * parts.most <= allowed
            } else {
                isLevel(survey, placement)
            }
        return isLevel ? placement : nil
    }

    private func isLevel(_ survey: Survey, _ placement: Placement) -> Bool {
        var placement = placement
        var (worker, load) = (-1, Float64(0))
        var runs = ListedRuns(survey)
        while let run = runs.next() {
            let cuts = cuts(run.tile, heads: run.heads)
            let row = Placement.Row(run.tile, heads: run.heads, cuts)
            var left = run.count * cuts.count
            while left > 0 {
                let (next, count) = placement.next(row, upTo: left)
                let added = Float64(count) * row.cost
                load = next == worker ? load + added : added
                worker = next
                left -= count
                // A single item that cannot be cut is no reason against.
                if load > allowed, load > row.cost { return false }
            }
        }
        return true
    }
}
