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

    @Option(help: "Write the figures to this file as JSON.")
    var json: String?

    @Option(help: "Timed replays of each case.")
    var samples = 7

    @Option(help: "Only cases whose name contains this.")
    var filter = ""

    @Option(help: "Begin no further case after this many seconds.")
    var budget = 300.0

    @Option(help: "The device: cuda, or cuda:N.")
    var device = "cuda"

    @Option(help: "Write the cases to this file as JSON and stop; needs no GPU.")
    var list: String?

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

    struct Report: Codable {
        var device: String
        var date: String
        var ceilings: CUDACeilings
        var rows: [Row]
        var failures: [String: String]
    }

    func validate() throws {
        if samples < 1 { throw ValidationError("--samples must be 1 or more, not \(samples)") }
    }

    func run() throws {
        let cases = MLABenchmarkCase.all.filter { filter.isEmpty || $0.key.contains(filter) }
        if let list { return try writeJSON(cases, to: list) }
        let gpu = try Devices.make(named: device)
        var report = Report(
            device: gpu.name, date: ISO8601DateFormatter().string(from: Date()), ceilings: .measure(), rows: [],
            failures: [:])
        print("\(gpu.name): \(report.ceilings.read.fixed(0)) GB/s read, \(cases.count) cases")
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
                if -start.timeIntervalSinceNow > budget {
                    report.failures[test.key] = "not begun within \(budget) s"
                    continue
                }
                do {
                    kv.reset()
                    queries.reset()
                    let sets = try test.sets(kv: &kv, queries: &queries, outputs: outputs.region)
                    report.rows.append(try measure(test, sets, on: gpu, report.ceilings))
                } catch {
                    report.failures[test.key] = "\(error)"
                }
            }
        }
        let places = Dictionary(uniqueKeysWithValues: cases.enumerated().map { ($1.key, $0) })
        report.rows.sort { places[$0.key, default: 0] < places[$1.key, default: 0] }
        printTable(report)
        try writeJSON(report, to: json)
    }

    private func measure(
        _ test: MLABenchmarkCase, _ sets: [MLABenchmarkCase.Tensors], on gpu: any Device, _ ceilings: CUDACeilings
    ) throws -> Row {
        let attention = try PlannedAttention(test.problem(), on: gpu)
        let result = try CUDATiming.measure(on: gpu, sets: sets.count, samples: samples) {
            (index) throws(FlashInferError) in
            let set = sets[index]
            try attention.run(
                nopeQueries: set.nopeQueries, ropeQueries: set.ropeQueries, set.cache, into: set.output)
        }
        // A figure for wrong results is worth nothing; whether they are right is the tests' business.
        let output: [BFloat16] = try gpu.read(sets[0].output)
        guard output.allSatisfy({ Float($0).isFinite }) else {
            throw FlashInferError.deviceFailure(call: "attention", message: "the output is not finite")
        }
        let rate = Double(test.keyByteCount) / result.seconds / 1e9
        return Row(
            key: test.key, microseconds: result.seconds * 1e6,
            teraflops: test.operationCount / result.seconds / 1e12, gigabytesPerSecond: rate,
            fractionOfRead: ceilings.read > 0 ? rate / ceilings.read : 0, launches: result.launches,
            spread: result.spread, items: attention.plan.items.count, merges: attention.plan.merges.count)
    }

    private func printTable(_ report: Report) {
        var table = Table(headings: ["case", "us", "TFLOP/s", "GB/s", "of read", "spread", "items", "merges"])
        for row in report.rows {
            table.rows.append([
                row.key, row.microseconds.fixed(1), row.teraflops.fixed(0), row.gigabytesPerSecond.fixed(0),
                (100 * row.fractionOfRead).fixed(0) + "%", row.spread.fixed(3), "\(row.items)", "\(row.merges)",
            ])
        }
        table.print()
        for (key, text) in report.failures.sorted(by: { $0.key < $1.key }) { print("\(key): \(text)") }
    }
}
