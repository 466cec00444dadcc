/// Items of one row tile for neighbouring head steps with equally many heads: they differ in nothing but their heads.
struct ListedRun {
    let tile: RowTile
    /// The first head.
    let start: Int
    /// Heads of a step.
    let heads: Int
    /// The number of steps.
    let count: Int

    /// The heads of step `index` of the run.
    @inline(__always)
    func heads(_ index: Int) -> Range<Int> {
        let first = start &+ index &* heads
        return Range(uncheckedBounds: (first, first &+ heads))
    }
}

/// The listed items of a survey, uncut, run by run: request by request, heads outside, rows inside. A decode request is one run.
///
/// A cursor and not a function that calls a closure: what the loop over it changes then stays in registers.
struct ListedRuns {
    private let tiles: [RowTile]
    private let heads: [HeadSteps]
    /// The row tiles of the request: `first ..< end`, of which `index` is next, for step `step`.
    private var first = 0
    private var end = 0
    private var index = 0
    private var step = 0

    init(_ survey: Survey) { (tiles, heads) = (survey.lists, survey.heads) }

    @inline(__always)
    mutating func next() -> ListedRun? {
        if index == end {
            if end == tiles.count { return nil }
            first = end
            repeat { end &+= 1 } while end < tiles.count && tiles[end].request == tiles[first].request
            step = 0
        }
        let tile = tiles[index]
        let steps = heads[Int(tile.tile)]
        let range = steps.heads(step)
        var count = 1
        index &+= 1
        if end &- first == 1 {
            count = max(steps.full &- step, 1)
            step &+= count
        } else if index == end {
            step &+= 1
        }
        if index == end, step < steps.count { index = first }
        return ListedRun(tile: tile, start: range.lowerBound, heads: range.count, count: count)
    }
}
