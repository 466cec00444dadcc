extension Planner {
    /// Puts the listed items, in order, on the workers: each worker gets neighbours.
    static func emitLists<Sink: WorkSink>(
        _ survey: Survey, _ traits: KernelTraits, _ workers: Int, _ mode: Mode, into sink: inout Sink
    ) {
        if !survey.lists.isEmpty {
            switch mode {
            case .balanced:
                let cutter = LevelCutter(survey, traits, workers)
                if let placement = cutter.placement(survey, workers) {
                    emit(survey, placement, into: &sink) { cutter.cuts($0, heads: $1) }
                } else {
                    emitStreamK(survey, traits, workers, into: &sink)
                }
            case .batchInvariant(let size):
                let placement = Placement(survey.parts { tile, _ in KeyCuts(tile, every: size) }, workers: workers)
                emit(survey, placement, into: &sink) { tile, _ in KeyCuts(tile, every: size) }
            case .unsplit:
                let placement = Placement(survey.parts { tile, _ in KeyCuts(whole: tile) }, workers: workers)
                emit(survey, placement, into: &sink) { tile, _ in KeyCuts(whole: tile) }
            }
        }
        sink.advance(to: workers)
    }

    @inline(__always)
    private static func emit<Sink: WorkSink>(
        _ survey: Survey, _ placement: Placement, into sink: inout Sink, cuts: (RowTile, Int) -> KeyCuts
    ) {
        var placement = placement
        var runs = ListedRuns(survey)
        while let run = runs.next() {
            let tile = run.tile
            let cuts = cuts(tile, run.heads)
            let row = Placement.Row(tile, heads: run.heads, cuts)
            if cuts.count == 1 {
                var done = 0
                while done < run.count {
                    let (worker, count) = placement.next(row, upTo: run.count - done)
                    sink.advance(to: worker)
                    sink.add(tile.item(heads: run.heads(done)), count: count)
                    done += count
                }
            } else {
                for index in 0..<run.count {
                    sink.add(tile, heads: run.heads(index), cuts) { placement.next(row, upTo: 1).worker }
                }
            }
        }
    }
}
