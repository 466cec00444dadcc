/// Cuts a batch of few tiles so that each part has a worker of its own, and a tile's workers are a group of neighbours that merge without a way
/// through memory.
///
/// All groups have the same size, a power of two: workers `g · k ..< g · (k + 1)` have the parts of tile `k`. A tile has fewer parts where
/// they would be too short.
struct MeetingCutter {
    /// Workers of a group.
    let group: Int
    private let traits: KernelTraits

    /// `nil` where there are too many tiles, or where cutting for balance alone saves more than the merges take.
    init?(_ survey: Survey, _ traits: KernelTraits, _ workers: Int) {
        let tiles = survey.listItems
        guard traits.meetingParts > 1, tiles > 0, tiles <= workers / 2 else { return nil }
        var group = 2
        while group * 2 <= min(traits.meetingParts, workers / tiles) { group *= 2 }
        self.group = group
        self.traits = traits
        var longest: Float64 = 0
        var isCut = false
        var runs = ListedRuns(survey)
        while let run = runs.next() {
            let parts = cuts(run.tile).count
            isCut = isCut || parts > 1
            let keys = Float64(run.tile.cost(heads: run.heads) - run.tile.fixedCost)
            longest = max(longest, keys / Float64(parts))
        }
        guard isCut else { return nil }
        // The starts of all items are in the batch's cost, and each worker has one start here.
        let share = survey.listCost / Float64(workers)
        if longest > share + Float64(traits.meetingGain) { return nil }
    }

    /// How `tile` is cut.
    @inline(__always)
    func cuts(_ tile: RowTile) -> KeyCuts { KeyCuts(tile, parts: group, traits) }
}
