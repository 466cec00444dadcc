import ArgumentParser
import FlashInfer
import Foundation

struct CUDACascadeBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cuda-cascade",
        abstract: "GPU decode of sequences with a shared prefix: plain, and as found by Cascade.discover.",
        discussion: """
            Sequences of one query each share a prefix and have 256 tokens of their own: 32 query heads, 8 key/value heads, D 128, \
            bfloat16, pages of 16. Both ways are captured and timed as in cuda-attention; their outputs are compared. Plan times \
            are the host's, of geometry, discovery and replanning. --list writes the cases for Peers/formats_peer.py.
            """)

    @OptionGroup var options: CaseOptions

    struct Case: Codable {
        var key: String
        var prefix: Int
        var own: Int
        var batch: Int
        var queryHeads = 32
        var kvHeads = 8
        var headDim = 128
        var pageSize = 16

        init(prefix: Int, own: Int = 256, batch: Int) {
            key = "prefix \(prefix) + \(own) batch \(batch)"
            (self.prefix, self.own, self.batch) = (prefix, own, batch)
        }

        /// The judged ones, and prefixes down to where nothing is to be gained.
        static var all: [Case] {
            [32_768, 4096, 1024, 256, 64].flatMap { prefix in
                [16, 64, 256].map { Case(prefix: prefix, batch: $0) }
            } + [Case(prefix: 4096, batch: 2), Case(prefix: 4096, batch: 4)]
        }

        var pages: Int { (prefix + batch * own) / pageSize }

        /// Bytes of all different keys and values.
        var distinctByteCount: Int { 2 * (prefix + batch * own) * kvHeads * headDim * 2 }

        func problem() throws -> AttentionProblem {
            var random = Random(state: 1)
            let ids = (0..<Int32(pages)).shuffled(using: &random)
            let (shared, each) = (prefix / pageSize, own / pageSize)
            var tables: [Int32] = []
            for sequence in 0..<batch {
                let first = shared + sequence * each
                tables += ids[..<shared]
                tables += ids[first..<first + each]
            }
            let lastPages = [Int32](repeating: Int32(pageSize), count: batch)
            let indptr: [Int32] = (0...batch).map { Int32($0 * (shared + each)) }
            return try AttentionProblem(
                geometry: .paged(
                    pageIndptr: indptr, pageIndices: tables, lastPageLengths: lastPages, pageSize: pageSize,
                    pageCount: pages),
                shape: AttentionShape(queryHeads: queryHeads, kvHeads: kvHeads, headDimQK: headDim), variant: .causal,
                queryType: .bfloat16, kvType: .bfloat16)
        }
    }

    struct Row: Codable {
        var key: String
        var plainMicroseconds: Double
        var microseconds: Double
        var speedup: Double
        /// Of the different bytes.
        var gigabytesPerSecond: Double
        var levels: Int
        var items: Int
        /// What the model said.
        var predictedPlainMicroseconds: Double
        var predictedMicroseconds: Double
        /// Host: the problem checked; discovery; replanning what was found.
        var geometryMicroseconds: Double
        var discoverMicroseconds: Double
        var replanMicroseconds: Double
        /// The largest difference of the two outputs.
        var difference: Double
    }

    func run() throws {
        try options.run(
            Case.all, \.key,
            headings: [
                "case", "plain us", "us", "speedup", "GB/s", "levels", "items", "predicted", "geometry", "discover",
                "replan", "difference",
            ], measure: measure
        ) {
            [
                $0.key, $0.plainMicroseconds.fixed(1), $0.microseconds.fixed(1), $0.speedup.fixed(2),
                $0.gigabytesPerSecond.fixed(0), "\($0.levels)", "\($0.items)",
                "\($0.predictedPlainMicroseconds.fixed(0)) > \($0.predictedMicroseconds.fixed(0))",
                $0.geometryMicroseconds.fixed(0), $0.discoverMicroseconds.fixed(0), $0.replanMicroseconds.fixed(0),
                $0.difference.fixed(4),
            ]
        }
    }

    private func measure(_ test: Case, on gpu: any Device) throws -> Row {
        let plain = try test.problem()
        let cascade = try Cascade.discover(plain, on: gpu)
        let cacheShape: Shape = [test.pages, 2, test.pageSize, test.kvHeads, test.headDim]
        let queryShape: Shape = [test.batch, test.queryHeads, test.headDim]
        let sets = CUDATiming.setCount(test.distinctByteCount)
        var arena = try CUDAArena(
            on: gpu, dtype: .bfloat16,
            byteCount: sets * (test.distinctByteCount + test.batch * test.queryHeads * test.headDim * 2 + 512))
        let inputs = try (0..<sets).map { _ in
            (queries: try arena.take(queryShape), cache: try KVCacheView.paged(combined: arena.take(cacheShape)))
        }
        let output = try DeviceBuffer(on: gpu, dtype: .bfloat16, shape: queryShape)
        func time(_ problem: AttentionProblem) throws -> (seconds: Double, elements: [BFloat16]) {
            let attention = try PlannedAttention(problem, on: gpu)
            let result = try CUDATiming.measure(on: gpu, sets: sets, samples: options.replays.samples) {
                (index) throws(FlashInferError) in
                try attention.run(inputs[index].queries, inputs[index].cache, into: output.view)
            }
            try attention.run(inputs[0].queries, inputs[0].cache, into: output.view)
            return (result.seconds, try gpu.read(output.view))
        }
        let (before, now) = (try time(plain), try time(cascade.problem))
        let difference = zip(before.elements, now.elements).reduce(Float(0)) { most, pair in
            max(most, abs(Float(pair.0) - Float(pair.1)))
        }
        // A unit in the last place of bfloat16 numbers up to 4, and of the merge's.
        guard difference < 0.05 else {
            throw FlashInferError.deviceFailure(call: "cascade", message: "outputs differ by \(difference)")
        }
        var attention = try PlannedAttention(cascade.problem, on: gpu)
        return Row(
            key: test.key, plainMicroseconds: before.seconds * 1e6, microseconds: now.seconds * 1e6,
            speedup: before.seconds / now.seconds,
            gigabytesPerSecond: Double(test.distinctByteCount) / now.seconds / 1e9,
            levels: cascade.problem.geometry.levelCount, items: attention.plan.items.count,
            predictedPlainMicroseconds: cascade.plainTime / 1e3, predictedMicroseconds: cascade.time / 1e3,
            geometryMicroseconds: try host { _ = try test.problem() },
            discoverMicroseconds: try host { _ = try Cascade.discover(plain, on: gpu) },
            replanMicroseconds: try host { try attention.replan(cascade.problem) }, difference: Double(difference))
    }

    /// The median of some calls' microseconds.
    private func host(_ body: () throws -> Void) throws -> Double {
        try (0..<9).map { _ in try time(once: body) }.median * 1e6
    }
}
