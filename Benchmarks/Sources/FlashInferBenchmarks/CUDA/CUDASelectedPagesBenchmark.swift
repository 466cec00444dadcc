import ArgumentParser
import FlashInfer
import Foundation

struct CUDASelectedPagesBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cuda-selected-pages",
        abstract: "GPU decode over pages chosen by their bounds: each operation, a step of all, and plain decode.",
        discussion: """
            Sequences of one query each: 32 query heads, 8 key/value heads, D 128, bfloat16, pages of 16, one table of k pages for each \
            head. Timed as in cuda-attention. GB/s of scores are of the bounds that they read. Places are read where a window asks for \
            positions.
            """)

    @OptionGroup var options: CaseOptions

    struct Case: Codable {
        var key: String
        var keys: Int
        var k: Int
        var batch: Int
        var queryHeads = 32
        var kvHeads = 8
        var headDim = 128
        var pageSize = 16

        init(keys: Int, k: Int, batch: Int) {
            key = "\(keys) keys, \(k) pages, batch \(batch)"
            (self.keys, self.k, self.batch) = (keys, k, batch)
        }

        static var all: [Case] {
            [1, 8, 32].flatMap { batch in [(32_768, 64), (32_768, 128)].map { Case(keys: $0.0, k: $0.1, batch: batch) }
            }
        }

        /// Of a sequence, and of the cache.
        var width: Int { keys / pageSize }
        var pages: Int { width * batch }
        var cacheByteCount: Int { 4 * pages * pageSize * kvHeads * headDim }
        var boundsByteCount: Int { 4 * pages * kvHeads * headDim }

        func problem(_ geometry: BatchGeometry, _ variant: AttentionVariant = .causal) throws -> AttentionProblem {
            try AttentionProblem(
                geometry: geometry,
                shape: AttentionShape(queryHeads: queryHeads, kvHeads: kvHeads, headDimQK: headDim), variant: variant,
                queryType: .bfloat16, kvType: .bfloat16)
        }

        func selected(_ positions: KVBlockTable.KeyPositions) throws -> BatchGeometry {
            try .selectedPages(
                kvLengths: [Int32](repeating: Int32(keys), count: batch), pagesPerRequest: k, pageSize: pageSize,
                pageCount: pages, keyPositions: positions, tableHeads: kvHeads)
        }
    }

    struct Row: Codable {
        var key: String
        var plainMicroseconds: Double
        var boundsMicroseconds: Double
        var scoreMicroseconds: Double
        var scoreGigabytesPerSecond: Double
        var selectMicroseconds: Double
        var attentionMicroseconds: Double
        /// With a window, and so with places.
        var placesMicroseconds: Double
        var stepMicroseconds: Double
    }

    func run() throws {
        try options.run(
            Case.all, \.key,
            headings: ["case", "plain us", "bounds", "score", "GB/s", "select", "attention", "with places", "step"],
            measure: measure
        ) {
            [
                $0.key, $0.plainMicroseconds.fixed(1), $0.boundsMicroseconds.fixed(1),
                $0.scoreMicroseconds.fixed(1),
                $0.scoreGigabytesPerSecond.fixed(0), $0.selectMicroseconds.fixed(1),
                $0.attentionMicroseconds.fixed(1), $0.placesMicroseconds.fixed(1), $0.stepMicroseconds.fixed(1),
            ]
        }
    }

    private func measure(_ test: Case, on gpu: any Device) throws -> Row {
        let (batch, heads, width) = (test.batch, test.kvHeads, test.width)
        let queryShape: Shape = [batch, test.queryHeads, test.headDim]
        let sets = min(CUDATiming.setCount(test.boundsByteCount), CUDATiming.setCount(test.cacheByteCount) + 7)
        // One cache: what is read of it by chosen pages differs from set to set.
        var arena = try CUDAArena(
            on: gpu, dtype: .bfloat16,
            byteCount: test.cacheByteCount + sets
                * (test.boundsByteCount + 2 * batch * test.queryHeads * test.headDim + 1024))
        let cache = try KVCacheView.paged(
            combined: arena.take([test.pages, 2, test.pageSize, heads, test.headDim]))
        let inputs = try (0..<sets).map { _ in
            (queries: try arena.take(queryShape), bounds: try arena.take([test.pages, 2, heads, test.headDim]))
        }
        func tensor(_ dtype: DType, _ shape: Shape) throws -> DeviceBuffer {
            try DeviceBuffer(on: gpu, dtype: dtype, shape: shape)
        }
        var random = Random(state: 1)
        let ids = (0..<Int32(test.pages)).shuffled(using: &random)
        let table = try tensor(.int32, [batch, width])
        try gpu.write(ids, to: table.view)
        let lengths = try tensor(.int32, [batch])
        let counts = try tensor(.int32, [batch])
        let new = try tensor(.int32, [batch])
        try gpu.write([Int32](repeating: Int32(test.keys), count: batch), to: lengths.view)
        try gpu.write([Int32](repeating: Int32(width), count: batch), to: counts.view)
        try gpu.write([Int32](repeating: 1, count: batch), to: new.view)
        let scores = try tensor(.float32, [batch, heads, width])
        let pages = try tensor(.int32, [batch, heads, test.k])
        let positions = try tensor(.int32, [batch, heads, test.k])
        let flat: Shape = [batch * heads * test.k]
        let pageIndices = try TensorView(pages.region, dtype: .int32, shape: flat)
        let pagePositions = try TensorView(positions.region, dtype: .int32, shape: flat)
        let output = try tensor(.bfloat16, queryShape)
        // Views, which the closures below can have: buffers are not copied.
        let (tableView, countsView, scoresView, outputView) = (table.view, counts.view, scores.view, output.view)
        let update = UpdatePageBoundsOperation(
            keys: cache.keys, bounds: inputs[0].bounds, table: tableView, lengths: lengths.view, appended: new.view,
            maximumAppended: 1)
        func score(_ set: Int) -> ScorePagesOperation {
            ScorePagesOperation(
                queries: inputs[set].queries, bounds: inputs[set].bounds, table: tableView, lengths: countsView,
                scores: scoresView)
        }
        let select = SelectPagesOperation(
            scores: scoresView, lengths: countsView, transform: .table(tableView), pages: pages.view,
            positions: positions.view)
        let plain = try PlannedAttention(
            test.problem(
                .paged(
                    pageIndptr: (0...batch).map { Int32($0 * width) }, pageIndices: ids,
                    lastPageLengths: [Int32](repeating: Int32(test.pageSize), count: batch), pageSize: test.pageSize,
                    pageCount: test.pages)), on: gpu)
        let chosen = try PlannedAttention(test.problem(test.selected(.sequential)), on: gpu)
        let window = AttentionVariant(mask: .causal, windowLeft: test.keys)
        let placed = try PlannedAttention(test.problem(test.selected(.places), window), on: gpu)
        func microseconds(_ body: (Int) throws(FlashInferError) -> Void) throws -> Double {
            try CUDATiming.measure(on: gpu, sets: sets, samples: options.replays.samples, body).seconds * 1e6
        }
        try score(0).validate()
        let scoring = try microseconds { (set) throws(FlashInferError) in try gpu.execute(.scorePages(score(set))) }
        return Row(
            key: test.key,
            plainMicroseconds: try microseconds { (set) throws(FlashInferError) in
                try plain.run(inputs[set].queries, cache, into: outputView)
            },
            boundsMicroseconds: try microseconds { (_) throws(FlashInferError) in
                try gpu.execute(.updatePageBounds(update))
            },
            scoreMicroseconds: scoring,
            scoreGigabytesPerSecond: Double(test.boundsByteCount) / scoring / 1e3,
            selectMicroseconds: try microseconds { (_) throws(FlashInferError) in
                try gpu.execute(.selectPages(select))
            },
            attentionMicroseconds: try microseconds { (set) throws(FlashInferError) in
                try chosen.run(inputs[set].queries, cache, into: outputView, pageIndices: pageIndices)
            },
            placesMicroseconds: try microseconds { (set) throws(FlashInferError) in
                try placed.run(
                    inputs[set].queries, cache, into: outputView, pageIndices: pageIndices,
                    pagePositions: pagePositions)
            },
            stepMicroseconds: try microseconds { (set) throws(FlashInferError) in
                try gpu.execute(.updatePageBounds(update))
                try gpu.execute(.scorePages(score(set)))
                try gpu.execute(.selectPages(select))
                try chosen.run(inputs[set].queries, cache, into: outputView, pageIndices: pageIndices)
            })
    }
}
