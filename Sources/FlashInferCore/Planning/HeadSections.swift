/// A queue of the same row tiles for some heads, then for the next ones, and so on: what block rows of a matrix come to, as all heads read
/// the same columns. Its items follow from this, so a plan need not have them one by one.
package struct HeadSections: Sendable {
    /// The row tiles, in the order in which every section takes them.
    let rowTiles: [RowTile]
    /// All heads.
    package let headCount: Int
    /// Heads of a section; those before the last section may have fewer.
    package let headsOfSection: Int
    /// The first head of the last section.
    package let lastSection: Int

    /// The number of row tiles.
    package var rowTileCount: Int { rowTiles.count }

    /// The number of items.
    package var itemCount: Int { rowTiles.count * headCount }

    /// The item of a row tile for the first head.
    package func item(_ rowTile: Int) -> WorkItem { rowTiles[rowTile].item(heads: 0..<1) }

    /// The heads of the section that starts with head `first`.
    func heads(from first: Int) -> Range<Int> {
        first..<(first < lastSection ? min(first + headsOfSection, lastSection) : headCount)
    }

    /// All items, in order.
    func items() -> [WorkItem] {
        [WorkItem](unsafeUninitializedCapacity: itemCount) { items, count in
            var first = 0
            while first < headCount {
                let heads = heads(from: first)
                for rowTile in rowTiles {
                    for head in heads {
                        items.initializeElement(at: count, to: rowTile.item(heads: head..<head + 1))
                        count += 1
                    }
                }
                first = heads.upperBound
            }
        }
    }
}

extension Planner {
    /// A whole plan's items as sections of heads, where they are that: one queue of block rows, none of which is cut, in single items.
    static func headSections(
        _ survey: Survey, _ problem: AttentionProblem, _ traits: KernelTraits, _ processors: Int, _ mode: Mode
    ) -> HeadSections? {
        guard survey.sharedColumns != nil, survey.lists.isEmpty, problem.geometry.levelCount == 1,
            let first = survey.queued.first, survey.queued.allSatisfy({ $0.tile == first.tile })
        else { return nil }
        let tile = Int(first.tile)
        let (heads, workers) = (survey.heads[tile], traits.queueWorkers(tile: tile, processors))
        guard heads.step == 1, !traits.tiles[tile].isPaired, traits.tiles[tile].schedule == .queue else { return nil }
        switch mode {
        case .balanced: guard TailCuts.isLongEnough(survey.queuedItems, workers) else { return nil }
        case .batchInvariant: return nil
        case .unsplit: break
        }
        let queue = WorkQueue(survey, traits, tile: tile, workers, hasFirstSectionOnly: true)
        return HeadSections(
            rowTiles: queue.entries.map { survey.queued[$0.rowTiles.lowerBound] }, headCount: heads.count,
            headsOfSection: queue.entries[0].steps.count, lastSection: queue.lastSection)
    }
}
