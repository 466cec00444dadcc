import ArgumentParser
import FlashInfer
import Foundation

struct CUDAMLABenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cuda-mla",
        abstract: "GPU latent attention (MLA) over paged caches of 512 + 64 elements, by graph replay.",
        discussion: """
            Each case is captured as a graph of several launches whose inputs rotate past the L2 cache; the median of \
            several replays counts. Rates are 2 · 1,088 operations a head, query and key seen, and the cache's bytes once, \
            against a plain read. --list writes the cases, which Peers/mla_peer.py measures with FlashInfer.
            """)

    @OptionGroup var options: CaseOptions

    struct Row: Codable {
        var key: String
        var microseconds: Double
        var teraflops: Double
        var gigabytesPerSecond: Double
        var fractionOfRead: Double
        var launches: Int
        var spread: Double
        var items: Int
        var merges: Int
    }

    func run() throws {
        let cases = options.replays.chosen(MLABenchmarkCase.all, \.key)
        if let list = options.list { return try writeJSON(cases, to: list) }
        let gpu = try Devices.make(named: options.common.device)
        let ceilings = CUDACeilings.measure()
        var report = CaseReport<Row>(gpu, ceilings: ceilings)
        print("\(gpu.name): \(ceilings.read.fixed(0)) GB/s read, \(cases.count) cases")
        let start = Date()
        for type in Set(cases.map(\.kvType)).sorted() {
            guard let dtype = DType(type) else { continue }
            let own = cases.filter { $0.kvType == type }
            var kv = try CUDAArena(
                on: gpu, dtype: dtype, byteCount: own.map { $0.setCount * $0.kvSetByteCount }.max() ?? 0)
            var queries = try CUDAArena(
                on: gpu, dtype: .bfloat16, byteCount: own.map { $0.setCount * $0.querySetByteCount }.max() ?? 0)
            let outputs = try DeviceBuffer(
                on: gpu, dtype: .uint8, shape: [own.map { $0.setCount * $0.querySetByteCount }.max() ?? 0])
            for test in own {
                report.add(test.key, since: start, within: options.budget) {
                    kv.reset()
                    queries.reset()
                    let sets = try test.sets(kv: &kv, queries: &queries, outputs: outputs.region)
                    return try measure(test, sets, on: gpu, ceilings)
                }
            }
        }
        report.sort(by: cases.map(\.key), \.key)
        report.printTable(["case", "us", "TFLOP/s", "GB/s", "of read", "spread", "items", "merges"]) { row in
            [
                row.key, row.microseconds.fixed(1), row.teraflops.fixed(0), row.gigabytesPerSecond.fixed(0),
                (100 * row.fractionOfRead).fixed(0) + "%", row.spread.fixed(3), "\(row.items)", "\(row.merges)",
            ]
        }
        try writeJSON(report, to: options.common.json)
    }

    private func measure(
        _ test: MLABenchmarkCase, _ sets: [MLABenchmarkCase.Tensors], on gpu: any Device, _ ceilings: CUDACeilings
    ) throws -> Row {
        let attention = try PlannedAttention(test.problem(), on: gpu)
        let result = try CUDATiming.measure(on: gpu, sets: sets.count, samples: options.replays.samples) {
            (index) throws(FlashInferError) in
            let set = sets[index]
            try attention.run(
                nopeQueries: set.nopeQueries, ropeQueries: set.ropeQueries, set.cache, into: set.output)
        }
        try gpu.requireFinite(sets[0].output, of: "attention")
        let rate = Double(test.keyByteCount) / result.seconds / 1e9
        return Row(
            key: test.key, microseconds: result.seconds * 1e6,
            teraflops: test.operationCount / result.seconds / 1e12, gigabytesPerSecond: rate,
            fractionOfRead: ceilings.read > 0 ? rate / ceilings.read : 0, launches: result.launches,
            spread: result.spread, items: attention.plan.items.count, merges: attention.plan.merges.count)
    }
}
