import ArgumentParser
import FlashInfer
import Foundation

struct CUDAAttentionBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cuda-attention",
        abstract: "GPU attention: decode and prefill over the shapes of FlashInfer's baselines, by graph replay.",
        discussion: """
            Each case is captured as a graph of several launches whose inputs rotate past the L2 cache; the median of \
            several replays counts. Decode counts the bytes of keys and values once, against a plain read; prefill counts \
            4 · D · Hq operations a query and key, half of them where causal. --list writes the cases, which \
            Peers/flashinfer_peer.py measures with FlashInfer, and Peers/compare.py joins the two.
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
        var kind: String
        var microseconds: Double
        var teraflops: Double
        var gigabytesPerSecond: Double
        /// Of the read ceiling; decode only.
        var fractionOfCeiling: Double?
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
        let cases = CUDACase.all.filter { filter.isEmpty || $0.key.contains(filter) }
        if let list { return try writeJSON(cases, to: list) }
        let gpu = try Devices.make(named: device)
        var report = Report(
            device: gpu.name, date: ISO8601DateFormatter().string(from: Date()), ceilings: .measure(), rows: [],
            failures: [:])
        print(
            "\(gpu.name): \(report.ceilings.copy.fixed(0)) GB/s copy, \(report.ceilings.read.fixed(0)) GB/s read, "
                + "\(cases.count) cases")
        let start = Date()
        // Arenas by types, so that memory is filled once for each.
        for kvType in Set(cases.map(\.kvType)).sorted() {
            for queryType in Set(cases.map(\.queryType)).sorted() {
                let own = cases.filter { $0.kvType == kvType && $0.queryType == queryType }
                if !own.isEmpty { try measure(own, kvType, queryType, on: gpu, start, &report) }
            }
        }
        let places = Dictionary(uniqueKeysWithValues: cases.enumerated().map { ($1.key, $0) })
        report.rows.sort { places[$0.key, default: 0] < places[$1.key, default: 0] }
        printTable(report)
        try writeJSON(report, to: json)
    }

    private func measure(
        _ cases: [CUDACase], _ kvType: String, _ queryType: String, on gpu: any Device, _ start: Date,
        _ report: inout Report
    ) throws {
        guard let kvType = DType(kvType), let queryType = DType(queryType) else { return }
        let tensors = try cases.map { try CUDATensors.Sizes($0) }
        var kv = try CUDAArena(on: gpu, dtype: kvType, byteCount: tensors.map(\.kvTotal).max() ?? 0)
        var queries = try CUDAArena(on: gpu, dtype: queryType, byteCount: tensors.map(\.queryTotal).max() ?? 0)
        let outputs = try DeviceBuffer(on: gpu, dtype: .uint8, shape: [tensors.map(\.queryTotal).max() ?? 0])
        for test in cases {
            if -start.timeIntervalSinceNow > budget {
                report.failures[test.key] = "not begun within \(budget) s"
                continue
            }
            do {
                kv.reset()
                queries.reset()
                let inputs = try CUDATensors(test, kv: &kv, queries: &queries, outputs: outputs.region)
                report.rows.append(try measure(test, inputs, on: gpu, report.ceilings))
            } catch {
                report.failures[test.key] = "\(error)"
            }
        }
    }

    private func measure(
        _ test: CUDACase, _ inputs: CUDATensors, on gpu: any Device, _ ceilings: CUDACeilings
    ) throws -> Row {
        let attention = try PlannedAttention(test.problem(), on: gpu)
        let result = try CUDATiming.measure(on: gpu, sets: inputs.sets.count, samples: samples) {
            (index) throws(FlashInferError) in
            let set = inputs.sets[index]
            try attention.run(set.queries, set.cache, into: set.output)
        }
        // A figure for wrong results is worth nothing; whether they are right is the tests' business.
        let output: [BFloat16] = try gpu.read(inputs.sets[0].output)
        guard output.allSatisfy({ Float($0).isFinite }) else {
            throw FlashInferError.deviceFailure(call: "attention", message: "the output is not finite")
        }
        let rate = Double(test.kvByteCount) / result.seconds / 1e9
        return Row(
            key: test.key, kind: test.kind, microseconds: result.seconds * 1e6,
            teraflops: test.operationCount / result.seconds / 1e12, gigabytesPerSecond: rate,
            fractionOfCeiling: test.kind == "decode" && ceilings.read > 0 ? rate / ceilings.read : nil,
            launches: result.launches, spread: result.spread, items: attention.plan.items.count,
            merges: attention.plan.merges.count)
    }

    private func printTable(_ report: Report) {
        var table = Table(headings: ["case", "us", "rate", "of read", "spread", "items", "merges"])
        for row in report.rows {
            table.rows.append([
                row.key, row.microseconds.fixed(1),
                row.kind == "decode" ? row.gigabytesPerSecond.fixed(0) + " GB/s" : row.teraflops.fixed(0) + " TF",
                row.fractionOfCeiling.map { (100 * $0).fixed(0) + "%" } ?? "", row.spread.fixed(3), "\(row.items)",
                "\(row.merges)",
            ])
        }
        table.print()
        for (key, text) in report.failures.sorted(by: { $0.key < $1.key }) { print("\(key): \(text)") }
    }
}
