import ArgumentParser
import FlashInfer
import Foundation

struct SamplingBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sampling",
        abstract: "Sampling, filters, the greatest entries and speculative sampling, on a GPU or on the CPU.",
        discussion: """
            A batch of rows of one kind and vocabulary, float32. On a GPU each case is captured as a graph of several launches, \
            parameters lying in device memory, and the median of several replays counts; the batch is the same each time, so \
            that small ones stay in the L2 cache, as in the peer's figures. GB/s counts one read of the rows, and one write where they are written; the share of the ceiling is of what a \
            read reaches, and of a copy where rows are written. The peer's column \
            is FlashInfer 0.6 on an H200 (normal rows of 128,256), in graphs.
            """)

    @Option(help: "The device: cpu, cuda, or cuda:N.")
    var device = "cuda"

    @Option(help: "Write the figures to this file as JSON.")
    var json: String?

    @Option(help: "Timed runs of each case.")
    var samples = 7

    @Option(help: "Tokens of the vocabulary.")
    var vocabulary = 128_256

    @Option(help: "Rows of the batch, several with commas.")
    var batches = "1,16,64,256,512"

    @Option(help: "Kinds of rows, several with commas: normal, peaked, flat, zipf, ties.")
    var kinds = "normal,peaked,flat,zipf,ties"

    @Option(help: "Only operations whose name contains this.")
    var filter = ""

    struct Row: Codable {
        var operation: String
        var kind: String
        var batch: Int
        var vocabulary: Int
        var microseconds: Double
        var gigabytesPerSecond: Double
        /// Of the read ceiling, or the copy's where rows are written; on a GPU only.
        var fractionOfCeiling: Double?
        /// The peer's time over ours.
        var peerRatio: Double?
    }

    struct Report: Codable {
        var device: String
        var date: String
        var ceilings: CUDACeilings?
        var rows: [Row] = []
    }

    /// Microseconds of FlashInfer 0.6 on an H200 at 1, 64 and 256 rows.
    static let peer: [String: [Int: Double]] = [
        "softmax": [1: 16.1, 64: 41, 256: 111.5], "probabilities plain": [1: 18.5, 64: 29.2, 256: 64.8],
        "logits plain": [1: 45.4, 64: 45.8, 256: 92.1], "probabilities top-p 0.9": [1: 28.9, 64: 67.6, 256: 110.9],
        "probabilities top-k 50": [1: 74.7, 64: 134.5, 256: 266.8],
        "probabilities min-p 0.05": [1: 28, 64: 39.4, 256: 103.8],
        "probabilities k50 p0.9": [1: 68.9, 64: 152.5, 256: 374.9],
        "probabilities k50 p0.9 joint": [1: 62.8, 64: 140.4, 256: 249.3],
        "logits k50 p0.9": [1: 115.2, 64: 214.3, 256: 485.3],
        "logits k50 p0.9 joint": [1: 99.8, 64: 194.3, 256: 372.9],
        "renorm top-p 0.9": [1: 69.5, 64: 164.1, 256: 368.8], "renorm top-k 50": [1: 36.7, 64: 84, 256: 254.4],
        "mask top-k 50": [1: 32, 64: 74.9, 256: 228.4], "top-k 50": [1: 34.8, 64: 40.3, 256: 104.5],
        "top-k 50 sorted": [1: 44.6, 64: 55.7, 256: 122.3], "top-k 2048": [1: 40, 64: 52.1, 256: 131.1],
        "chain n 4": [1: 48.9, 64: 80, 256: 166.3],
    ]

    func run() throws {
        let target = try Devices.make(named: device)
        var report = Report(device: target.name, date: ISO8601DateFormatter().string(from: Date()))
        if target.recordsGraphs { report.ceilings = .measure() }
        for batch in batches.split(separator: ",").compactMap({ Int($0) }) {
            for kind in kinds.split(separator: ",").map(String.init) {
                let cases = try SamplingCases(on: target, batch: batch, vocabulary: vocabulary, kind: kind)
                for (name, operation, passes, writes) in try cases.operations() {
                    guard filter.isEmpty || name.contains(filter) else { continue }
                    try operation.validate()
                    let seconds =
                        target.recordsGraphs
                        ? try CUDATiming.measure(on: target, sets: 1, samples: samples) { _ throws(FlashInferError) in
                            try target.execute(operation)
                        }.seconds
                        : try time(runs: samples) { try target.execute(operation) }.median
                    let bytes = Double(4 * batch * vocabulary) * passes
                    let isPeers = kind == "normal" && vocabulary == 128_256 && target.recordsGraphs
                    report.rows.append(
                        Row(
                            operation: name, kind: kind, batch: batch, vocabulary: vocabulary,
                            microseconds: seconds * 1e6, gigabytesPerSecond: bytes / seconds / 1e9,
                            fractionOfCeiling: report.ceilings.map {
                                bytes / seconds / 1e9 / (writes ? $0.copy : $0.read)
                            },
                            peerRatio: isPeers ? Self.peer[name]?[batch].map { $0 / (seconds * 1e6) } : nil))
                }
            }
        }
        var table = Table(headings: ["operation", "rows", "batch", "us", "GB/s", "of ceiling", "peer/ours"])
        for row in report.rows {
            table.rows.append([
                row.operation, row.kind, "\(row.batch)", row.microseconds.fixed(1), row.gigabytesPerSecond.fixed(0),
                row.fractionOfCeiling.map { $0.percent(of: 1) } ?? "-", row.peerRatio.map { $0.fixed(2) } ?? "-",
            ])
        }
        print(report.device)
        table.print()
        try writeJSON(report, to: json)
    }
}

/// Device memory that is freed with the last reference to it.
private final class KeptTensor {
    private let buffer: DeviceBuffer
    var view: TensorView { buffer.view }
    var region: MemoryRegion { buffer.region }

    init(on device: any Device, dtype: DType, shape: Shape) throws {
        buffer = try DeviceBuffer(on: device, dtype: dtype, shape: shape)
    }
}

/// The tensors of one batch, and the operations on them.
struct SamplingCases {
    private let batch: Int
    private let vocabulary: Int
    private let logits: KeptTensor
    private let probabilities: KeptTensor
    private let output: KeptTensor
    private let tokens: KeptTensor
    private let status: KeptTensor
    private let packed: [String: KeptTensor]
    private let places: KeptTensor
    private let draws: KeptTensor
    private let drafts: KeptTensor
    private let drafted: KeptTensor

    /// Filters, by name.
    private static let filters: [(name: String, row: SampleOperation.Row)] = [
        ("plain", .init(seed: 1, step: 0)), ("top-p 0.9", .init(topP: 0.9, seed: 1, step: 0)),
        ("top-k 50", .init(topK: 50, seed: 1, step: 0)), ("min-p 0.05", .init(minP: 0.05, seed: 1, step: 0)),
        ("k50 p0.9", .init(topK: 50, topP: 0.9, seed: 1, step: 0)),
    ]

    init(on device: any Device, batch: Int, vocabulary: Int, kind: String) throws {
        (self.batch, self.vocabulary) = (batch, vocabulary)
        // A few rows, over and over: hosts are slow at making random numbers.
        let different = min(batch, 4)
        var logits: [Float] = [], probabilities: [Float] = []
        var random = Random(state: 7)
        // One more, so that a draft's differs from its target's.
        for _ in 0...different {
            let row = try (0..<vocabulary).map { place in try Self.logit(kind, place, &random) }
            let top = row.max() ?? 0
            let weights = row.map { Float(($0 - top).exponential) }
            let sum = Float(weights.reduce(0.0) { $0 + Double($1) })
            logits += row
            probabilities += weights.map { $0 / sum }
        }
        func repeated(_ values: [Float], from first: Int = 0) -> [Float] {
            var all: [Float] = []
            all.reserveCapacity(batch * vocabulary)
            for row in 0..<batch {
                let start = (row % different + first) * vocabulary
                all += values[start..<start + vocabulary]
            }
            return all
        }
        func buffer<Element: BitwiseCopyable>(
            _ dtype: DType, _ shape: Shape, _ values: [Element]
        ) throws -> KeptTensor {
            let buffer = try KeptTensor(on: device, dtype: dtype, shape: shape)
            try values.withUnsafeBytes { try device.upload($0, to: buffer.region) }
            return buffer
        }
        self.logits = try buffer(.float32, [batch, vocabulary], repeated(logits))
        self.probabilities = try buffer(.float32, [batch, vocabulary], repeated(probabilities))
        drafted = try buffer(.float32, [batch, vocabulary], repeated(probabilities, from: 1))
        output = try KeptTensor(on: device, dtype: .float32, shape: [batch, vocabulary])
        tokens = try KeptTensor(on: device, dtype: .int32, shape: [batch, 5])
        status = try KeptTensor(on: device, dtype: .uint8, shape: [batch])
        places = try KeptTensor(on: device, dtype: .int32, shape: [batch, 2048])
        var packed: [String: KeptTensor] = [:]
        for (name, row) in Self.filters {
            let rows = (0..<batch).map { index in
                var row = row
                row.step = UInt64(index)
                return row
            }
            packed[name] = try buffer(.uint8, [batch, 32], SampleOperation.Row.packed(rows))
        }
        self.packed = packed
        draws = try buffer(
            .uint8, [batch, 16],
            VerifyDraftsOperation.Draw.packed((0..<batch).map { .init(seed: 1, step: UInt64($0)) }))
        drafts = try buffer(.int32, [batch, 4], (0..<4 * batch).map { Int32($0 * 7_919 % vocabulary) })
    }

    private static func logit(_ kind: String, _ place: Int, _ random: inout Random) throws -> Float {
        switch kind {
        case "normal": 3 * random.normal()
        case "peaked": place == 1_000 ? 25 : random.normal()
        case "flat": 0.01 * random.normal()
        // Shuffled by a prime, so that rank and place have nothing in common.
        case "zipf": -Float(log(Double((place * 7_919) % 1_000_003 % 200_000 + 1)))
        case "ties": Float(random.next() % 4)
        default: throw ValidationError("--kinds has \(kind); there are normal, peaked, flat, zipf, ties")
        }
    }

    /// Names, operations, how often they must pass over the rows at least, and whether one of these passes writes them.
    func operations() throws -> [(name: String, operation: FlashInfer.Operation, passes: Double, writes: Bool)] {
        let (logits, probabilities, output) = (logits.view, probabilities.view, output.view)
        let status = status.view
        let drawn = try TensorView(tokens.region, dtype: .int32, shape: [batch])
        var all: [(String, FlashInfer.Operation, Double, Bool)] = [
            ("softmax", .softmax(SoftmaxOperation(input: logits, output: output, status: status)), 2, true),
            (
                "greedy", .argmax(ArgmaxOperation(input: logits, output: drawn, status: status)), 1, false
            ),
            (
                "log-probability",
                .logProbability(
                    LogProbabilityOperation(
                        logits: logits, ids: try TensorView(drafts.region, dtype: .int32, shape: [batch]),
                        output: try TensorView(output.region, dtype: .float32, shape: [batch]), status: status)), 1,
                false
            ),
        ]
        for (form, input) in [(DistributionForm.probabilities, probabilities), (.logits, logits)] {
            for (name, _) in Self.filters {
                for order in name == "k50 p0.9" ? [SampleOperation.FilterOrder.topKFirst, .joint] : [.topKFirst] {
                    var operation = SampleOperation(
                        input, as: form, tokens: drawn, status: status, rows: [], order: order)
                    operation.packedRows = packed[name]?.view
                    all.append(
                        ("\(form.name) \(name)" + (order == .joint ? " joint" : ""), .sample(operation), 1, false))
                }
            }
        }
        for (name, form, filter) in [
            ("renorm top-p 0.9", DistributionForm.probabilities, "top-p 0.9"),
            ("renorm top-k 50", .probabilities, "top-k 50"), ("mask top-k 50", .logits, "top-k 50"),
        ] {
            var operation = FilterOperation(
                form == .logits ? logits : probabilities, as: form, output: output, status: status, rows: [])
            operation.packedRows = packed[filter]?.view
            all.append((name, .filter(operation), 2, true))
        }
        for (k, isSorted) in [(50, false), (50, true), (2_048, false), (2_048, true)] where k <= vocabulary {
            let values = try TensorView(output.region, dtype: .float32, shape: [batch, k])
            let places = try TensorView(places.region, dtype: .int32, shape: [batch, k])
            all.append(
                (
                    "top-k \(k)" + (isSorted ? " sorted" : ""),
                    .topK(TopKOperation(input: logits, values: values, places: places, isSorted: isSorted)), 1, false
                ))
        }
        // Four drafted tokens, each of which stands about every other time: most chains end with a draw from what a rejection has left, for
        // which both rows are read. All nodes have one distribution.
        let target = try TensorView(
            probabilities.region, dtype: .float32, shape: [batch, 5, vocabulary], strides: [vocabulary, 0, 1])
        let draft = try TensorView(
            drafted.region, dtype: .float32, shape: [batch, 4, vocabulary], strides: [vocabulary, 0, 1])
        let chain = try TensorView(tokens.region, dtype: .int32, shape: [batch, 5])
        let emitted = try TensorView(places.region, dtype: .int32, shape: [batch])
        var operation = VerifyDraftsOperation(
            target: target, draft: draft, tokens: drafts.view, draws: [], output: chain, emitted: emitted,
            status: status)
        operation.packedDraws = draws.view
        all.append(("chain n 4", .verifyDrafts(operation), 2, false))
        return all
    }
}
