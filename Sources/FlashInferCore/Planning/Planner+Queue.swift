extension Planner {
    /// Puts the queued items of each tile, in the order in which thread blocks take them, and returns where each tile's begin:
    /// one entry more than there are tiles.
    static func emitQueues<Sink: WorkSink>(
        _ survey: Survey, _ traits: KernelTraits, _ processors: Int, _ mode: Mode, into sink: inout Sink,
        _ didEmit: (_ tile: Int, _ sink: Sink) -> Void
    ) {
        for index in traits.tiles.indices {
            if traits.tiles[index].schedule == .queue, !survey.queued.isEmpty {
                let workers = traits.queueWorkers(tile: index, processors)
                let queue = WorkQueue(survey, traits, tile: index, workers)
                let cuts = mode == .balanced ? TailCuts(queue, survey, traits, workers) : .none
                for (place, entry) in queue.entries.enumerated() {
                    let tile = survey.queued[entry.rowTile]
                    let keyCuts =
                        switch mode {
                        case .balanced: cuts.cuts(tile, at: place, traits)
                        case .batchInvariant(let size): KeyCuts(tile, every: size)
                        case .unsplit: KeyCuts(whole: tile)
                        }
                    for step in entry.steps {
                        let heads = queue.heads.heads(step)
                        if keyCuts.count == 1 {
                            sink.add(tile.item(heads: heads))
                        } else {
                            sink.add(tile, heads: heads, keyCuts) { nil }
                        }
                    }
                }
            }
            didEmit(index, sink)
        }
    }
}
