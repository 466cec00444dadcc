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
                var queue = WorkQueue(survey, traits, tile: index, workers)
                let cuts = mode == .balanced ? TailCuts(&queue, survey, traits, workers) : .none
                var single = SingleItem()
                let isWhole = cuts.isNone && mode == .balanced && !traits.tiles[index].isPaired
                for (place, entry) in queue.entries.enumerated() {
                    if isWhole, entry.steps.upperBound <= queue.heads.full {
                        let heads = queue.heads.heads(entry.steps.lowerBound)
                        sink.add(survey.queued[entry.rowTiles.lowerBound].item(heads: heads), count: entry.steps.count)
                        continue
                    }
                    func keyCuts(_ tile: RowTile) -> KeyCuts {
                        switch mode {
                        case .balanced: cuts.cuts(tile, at: place, traits)
                        case .batchInvariant(let size): KeyCuts(tile, every: size)
                        case .unsplit: KeyCuts(whole: tile)
                        }
                    }
                    // Under a causal mask the last rows are the longest.
                    let tile = survey.queued[entry.rowTiles.upperBound - 1]
                    let tileCuts = keyCuts(tile)
                    if entry.rowTiles.count == 2 {
                        let beside = survey.queued[entry.rowTiles.lowerBound]
                        let besideCuts = keyCuts(beside)
                        for step in entry.steps {
                            let heads = queue.heads.heads(step)
                            let parts = sink.parts(tile, heads, tileCuts)
                            let others = sink.parts(beside, heads, besideCuts)
                            let paired = min(parts.count, others.count)
                            for part in 0..<paired {
                                sink.add(parts[part])
                                sink.add(others[part])
                            }
                            for part in paired..<parts.count { single.add(parts[part], to: &sink) }
                            for part in paired..<others.count { single.add(others[part], to: &sink) }
                        }
                    } else if traits.tiles[index].isPaired {
                        for step in entry.steps {
                            let parts = sink.parts(tile, queue.heads.heads(step), tileCuts)
                            for part in 0..<parts.count { single.add(parts[part], to: &sink) }
                        }
                    } else {
                        for step in entry.steps {
                            sink.add(tile, heads: queue.heads.heads(step), tileCuts) { nil }
                        }
                    }
                }
                single.end(in: &sink)
            }
            didEmit(index, sink)
        }
    }
}

/// An item of a queue of pairs that has no neighbour and waits for the next such item, so that pairs stay together.
private struct SingleItem {
    private var waiting: WorkItem?

    mutating func add<Sink: WorkSink>(_ item: WorkItem, to sink: inout Sink) {
        if let first = waiting {
            sink.add(first)
            sink.add(item)
            waiting = nil
        } else {
            waiting = item
        }
    }

    mutating func end<Sink: WorkSink>(in sink: inout Sink) {
        if let item = waiting { sink.add(item) }
        waiting = nil
    }
}
