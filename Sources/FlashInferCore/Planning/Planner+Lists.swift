extension Planner {
    /// Puts the listed items, in order, on the workers: each worker gets neighbours.
    ///
    /// - Returns: the plan's ``Plan/meetingWorkers``.
    static func emitLists<Sink: WorkSink>(
        _ survey: Survey, _ traits: KernelTraits, _ workers: Int, _ mode: Mode, into sink: inout Sink
    ) -> Int {
        var meetingWorkers = 1
        if !survey.lists.isEmpty {
            switch mode {
            case .balanced:
                let cutter = LevelCutter(survey, traits, workers)
                if let meeting = MeetingCutter(survey, traits, workers) {
                    meetingWorkers = meeting.group
                    emit(survey, meeting, into: &sink)
                } else if let placement = cutter.placement(survey, workers) {
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
        return meetingWorkers
    }

    private static func emit<Sink: WorkSink>(_ survey: Survey, _ meeting: MeetingCutter, into sink: inout Sink) {
        var first = 0
        var runs = ListedRuns(survey)
        while let run = runs.next() {
            let cuts = meeting.cuts(run.tile)
            for index in 0..<run.count {
                var worker = first
                if cuts.count == 1 {
                    sink.advance(to: worker)
                    sink.add(run.tile.item(heads: run.heads(index)))
                } else {
                    sink.add(run.tile, heads: run.heads(index), cuts) {
                        defer { worker += 1 }
                        return worker
                    }
                }
                first += meeting.group
            }
        }
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
