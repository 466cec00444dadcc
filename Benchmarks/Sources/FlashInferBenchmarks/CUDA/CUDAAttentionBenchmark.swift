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

    @OptionGroup var options: CaseOptions

    struct Row: Codable {
        var key: String
        var kind: String
        var microseconds: Double
        var teraflops: Double
        var gigabytesPerSecond: Double
        /// Of the read ceiling; decode only.
        var fractionOfCeiling: Double?
        var launches: Int
        /// Kernels of one run: one for each kind of tile that the plan has, and one where levels are merged.
        var kernels: Int
        var spread: Double
        var items: Int
        var merges: Int
    }

    func run() throws {
        let cases = options.replays.chosen(CUDACase.all, \.key)
        if let list = options.list { return try writeJSON(cases, to: list) }
        let gpu = try Devices.make(named: options.common.device)
        let ceilings = CUDACeilings.measure()
        var report = CaseReport<Row>(gpu, ceilings: ceilings)
        print(
            "\(gpu.name): \(ceilings.copy.fixed(0)) GB/s copy, \(ceilings.read.fixed(0)) GB/s read, "
                + "\(cases.count) cases")
        let start = Date()
        // Arenas by types, so that memory is filled once for each.
        for kvType in Set(cases.map(\.kvType)).sorted() {
            for queryType in Set(cases.map(\.queryType)).sorted() {
                let own = cases.filter { $0.kvType == kvType && $0.queryType == queryType }
                if !own.isEmpty { try measure(own, kvType, queryType, on: gpu, ceilings, start, &report) }
            }
        }
        report.sort(by: cases.map(\.key), \.key)
        report.printTable(["case", "us", "rate", "of read", "spread", "kernels", "items", "merges"]) { row in
            [
                row.key, row.microseconds.fixed(1),
                row.kind == "decode" ? row.gigabytesPerSecond.fixed(0) + " GB/s" : row.teraflops.fixed(0) + " TF",
                row.fractionOfCeiling.map { (100 * $0).fixed(0) + "%" } ?? "", row.spread.fixed(3), "\(row.kernels)",
                "\(row.items)", "\(row.merges)",
            ]
        }
        try writeJSON(report, to: options.common.json)
    }

    private func measure(
        _ cases: [CUDACase], _ kvType: String, _ queryType: String, on gpu: any Device, _ ceilings: CUDACeilings,
        _ start: Date, _ report: inout CaseReport<Row>
    ) throws {
        guard let kvType = DType(kvType), let queryType = DType(queryType) else { return }
        let tensors = try cases.map { try CUDATensors.Sizes($0) }
        var kv = try CUDAArena(on: gpu, dtype: kvType, byteCount: tensors.map(\.kvTotal).max() ?? 0)
        var queries = try CUDAArena(on: gpu, dtype: queryType, byteCount: tensors.map(\.queryTotal).max() ?? 0)
        let outputs = try DeviceBuffer(on: gpu, dtype: .uint8, shape: [tensors.map(\.queryTotal).max() ?? 0])
        for test in cases {
            report.add(test.key, since: start, within: options.budget) {
                kv.reset()
                queries.reset()
                let inputs = try CUDATensors(test, kv: &kv, queries: &queries, outputs: outputs.region)
                return try measure(test, inputs, on: gpu, ceilings)
            }
        }
    }

    private func measure(
        _ test: CUDACase, _ inputs: CUDATensors, on gpu: any Device, _ ceilings: CUDACeilings
    ) throws -> Row {
        let attention = try PlannedAttention(test.problem(), on: gpu)
        let result = try CUDATiming.measure(on: gpu, sets: inputs.sets.count, samples: options.replays.samples) {
            (index) throws(FlashInferError) in
            let set = inputs.sets[index]
            try attention.run(set.queries, set.cache, into: set.output)
        }
        try gpu.requireFinite(inputs.sets[0].output, of: "attention")
        let rate = Double(test.kvByteCount) / result.seconds / 1e9
        return Row(
            key: test.key, kind: test.kind, microseconds: result.seconds * 1e6,
            teraflops: test.operationCount / result.seconds / 1e12, gigabytesPerSecond: rate,
            fractionOfCeiling: test.kind == "decode" && ceilings.read > 0 ? rate / ceilings.read : nil,
            launches: result.launches, kernels: Set(attention.plan.items.map(\.tile)).count, spread: result.spread,
            items: attention.plan.items.count,
            merges: attention.plan.merges.count)
    }
}
