import ArgumentParser
import FlashInfer
import Foundation

struct CUDAVariantBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cuda-variants",
        abstract: "GPU prefill: compiled variants against the kernels' own forms, and what a new one takes to compile.",
        discussion: """
            One request, heads of 128, bfloat16, by graph replay. "kernel" is the form that was written by \
            hand, "variant" the same written so that it is not recognised, "ratio" the kernel's time over the variant's. Documents are \
            compared with a batch of as many requests, streaming with its window alone. TFLOP/s count 4 · D · Hq operations for each pair \
            that is shown. "new" is the time from a variant that was never compiled to its first result. \
            Peers/flex_peer.py times the same with torch's FlexAttention, and puts the two beside each other.
            """)

    @Option(help: "Queries and keys.")
    var length = 8192

    @Option(help: "Query heads, and key/value heads.")
    var heads = 32

    @OptionGroup var common: CUDAOptions
    @OptionGroup var replays: ReplayOptions

    struct Row: Codable {
        var key: String
        /// The hand-written form's.
        var kernelMicroseconds: Double?
        var microseconds: Double
        var teraflops: Double
        /// Of the pairs.
        var shown: Double
        var planMicroseconds: Double
        var spread: Double
    }

    struct Report: Codable {
        var device: String
        var length: Int
        var rows: [Row] = []
        /// From a variant that was never compiled to its first result.
        var newVariantSeconds: [Double] = []
    }

    /// A variant, and what it is compared with.
    struct Case {
        var key: String
        var variant: AttentionVariant
        var parameters: [String: ParameterValue] = [:]
        /// The same by hand; requests that share the tokens evenly.
        var kernel: (variant: AttentionVariant, requests: Int)?
        /// Pairs that are shown, for one head.
        var pairs: Double
    }

    private static let dim = 128
    private static let window = 1023, documentLength = 1024, cap: Float = 50

    func validate() throws {
        guard length >= Self.documentLength, length % Self.documentLength == 0 else {
            throw ValidationError("--length must be a multiple of \(Self.documentLength), not \(length)")
        }
        if heads < 1 { throw ValidationError("--heads must be 1 or more, not \(heads)") }
    }

    private func cases() -> [Case] {
        let (n, width) = (Double(length), Double(Self.window + 1))
        let (triangle, band) = (n * (n + 1) / 2, width * (width + 1) / 2 + (n - width) * width)
        // A condition that always holds, which the analysis sees and the forms do not.
        let always = Mask { at in at.keyLength * at.keyLength >= 0 }
        let ids = Parameter<Int32>("ids", .perPosition), gate = Parameter<Float>("gate", .perPosition)
        let documents = ["ids": ParameterValue((0..<Int32(length)).map { $0 / Int32(Self.documentLength) })]
        let (count, own) = (length / Self.documentLength, Double(Self.documentLength))
        return [
            Case(
                key: "causal", variant: AttentionVariant("causal", mask: .causal && always), kernel: (.causal, 1),
                pairs: triangle),
            Case(
                key: "soft cap",
                variant: AttentionVariant("soft cap", mask: .causal) { score, _ in
                    Expr(Self.cap) * tanh(score * Expr(1 / Self.cap))
                }, kernel: (AttentionVariant(mask: .causal, logitsSoftCap: Self.cap), 1), pairs: triangle),
            Case(
                key: "alibi",
                variant: AttentionVariant("alibi", mask: .causal) { score, at in
                    score - Parameter<Float>.alibiSlopes[at.head] * (at.queryIndex - at.keyPosition).float
                }, kernel: (AttentionVariant(mask: .causal, positionEncoding: .alibi), 1), pairs: triangle),
            Case(
                key: "window \(Self.window)",
                variant: AttentionVariant("window", mask: .causal && .window(left: Self.window) && always),
                kernel: (AttentionVariant(mask: .causal, windowLeft: Self.window), 1), pairs: band),
            Case(
                key: "documents of \(Self.documentLength)",
                variant: AttentionVariant("documents", mask: .causal && .documents(ids)), parameters: documents,
                kernel: (.causal, count), pairs: Double(count) * own * (own + 1) / 2),
            Case(
                key: "streaming \(Self.window) + 4",
                variant: AttentionVariant("streaming", mask: .causal && (.window(left: Self.window) || .prefix(4))),
                kernel: (AttentionVariant(mask: .causal, windowLeft: Self.window), 1), pairs: band + 4 * (n - width - 2)
            ),
            Case(
                key: "sigmoid",
                variant: AttentionVariant(
                    "sigmoid", mask: .causal, weights: Weights { logit, _ in sigmoid(logit - 9) }), pairs: triangle),
            Case(
                key: "t5", variant: Self.t5,
                parameters: ["bias": ParameterValue((0..<heads * 32).map { Float($0 % 7) / 7 })], pairs: triangle),
            Case(
                key: "gated values",
                variant: AttentionVariant(
                    "gated values", mask: .causal,
                    value: Values { value, at in value * sigmoid(gate[at.keyPosition]) }),
                parameters: ["gate": ParameterValue((0..<length).map { Float($0 % 11) / 4 - 1 })],
                kernel: (.causal, 1), pairs: triangle),
            Case(
                key: "sink and floor",
                variant: AttentionVariant(
                    "sink and floor", mask: .causal, sink: .computed { at in -0.1 * at.head.float },
                    normalizer: Normalizer { sum, _ in max(sum, 2) }), kernel: (.causal, 1), pairs: triangle),
        ]
    }

    /// T5's buckets of distances (arXiv 1910.10683).
    private static var t5: AttentionVariant {
        let bias = Parameter<Float>("bias", .perHeadTable(count: 32))
        return AttentionVariant("t5", mask: .causal) { score, at in
            let distance = at.queryPosition - at.keyPosition
            let far = 16 + (log(max(distance, 1).float / 16) * (16 / log(Expr<Float>(8)))).int
            return score + bias[at.head, select(distance < 16, distance, min(far, 31))]
        }
    }

    func run() throws {
        let gpu = try Devices.make(named: common.device)
        var report = Report(device: gpu.name, length: length)
        let shape: Shape = [length, heads, Self.dim]
        let byteCount = length * heads * Self.dim * 2
        let sets = CUDATiming.setCount(4 * byteCount)
        var arena = try CUDAArena(on: gpu, dtype: .bfloat16, byteCount: 3 * sets * byteCount)
        let outputs = try DeviceBuffer(on: gpu, dtype: .uint8, shape: [sets * byteCount])
        let inputs = try (0..<sets).map { index in
            CUDATensors.Set(
                queries: try arena.take(shape),
                cache: try .ragged(keys: arena.take(shape), values: arena.take(shape)),
                output: try TensorView(
                    outputs.region, byteOffset: index * byteCount, dtype: .bfloat16, shape: shape))
        }
        for test in replays.chosen(cases(), \.key) {
            let kernel = try test.kernel.map {
                try measure(self.problem($0.variant, requests: $0.requests), inputs, gpu)
            }
            let problem = try self.problem(test.variant, parameters: test.parameters)
            let found = try measure(problem, inputs, gpu)
            let traits = try gpu.kernelTraits(for: problem)
            let planning = try time(runs: 9) {
                _ = try Planner.plan(problem, traits: traits, processors: gpu.limits.processors)
            }.median
            report.rows.append(
                Row(
                    key: test.key, kernelMicroseconds: kernel.map { $0.seconds * 1e6 },
                    microseconds: found.seconds * 1e6,
                    teraflops: 4 * Double(Self.dim * heads) * test.pairs / found.seconds / 1e12,
                    shown: test.pairs / Double(length * length), planMicroseconds: planning * 1e6,
                    spread: found.spread))
        }
        if replays.filter.isEmpty { report.newVariantSeconds = try (0..<3).map { try newVariant($0, inputs[0], gpu) } }
        printTable(report)
        try writeJSON(report, to: common.json)
    }

    private func problem(
        _ variant: AttentionVariant, requests: Int = 1, parameters: [String: ParameterValue] = [:]
    ) throws -> AttentionProblem {
        let indptr = (0...requests).map { Int32($0 * length / requests) }
        return try AttentionProblem(
            geometry: .ragged(queryIndptr: indptr, kvIndptr: indptr),
            shape: AttentionShape(queryHeads: heads, kvHeads: heads, headDimQK: Self.dim), variant: variant,
            queryType: .bfloat16, kvType: .bfloat16, parameters: parameters)
    }

    private func measure(
        _ problem: AttentionProblem, _ inputs: [CUDATensors.Set], _ gpu: any Device
    ) throws -> CUDATiming.Result {
        let attention = try PlannedAttention(problem, on: gpu)
        let result = try CUDATiming.measure(on: gpu, sets: inputs.count, samples: replays.samples) {
            (index) throws(FlashInferError) in
            try attention.run(inputs[index].queries, inputs[index].cache, into: inputs[index].output)
        }
        try gpu.requireFinite(inputs[0].output, of: problem.variant.name)
        return result
    }

    /// Seconds of a variant that no cache has.
    private func newVariant(_ number: Int, _ inputs: CUDATensors.Set, _ gpu: any Device) throws -> Double {
        let unique = Float(Date().timeIntervalSince1970.truncatingRemainder(dividingBy: 1000)) + Float(number)
        let variant = AttentionVariant("new", mask: .causal) { score, at in
            score + Expr(1e-9 * unique) * (at.keyPosition - at.queryPosition).float
        }
        return try time {
            let attention = try PlannedAttention(problem(variant), on: gpu)
            try attention.run(inputs.queries, inputs.cache, into: inputs.output)
            try gpu.synchronize()
        }
    }

    private func printTable(_ report: Report) {
        print("\(report.device), \(report.length) queries and keys")
        var table = Table(headings: ["variant", "kernel us", "variant us", "ratio", "TF", "shown", "plan us", "spread"])
        for row in report.rows {
            table.rows.append([
                row.key, row.kernelMicroseconds.map { $0.fixed(1) } ?? "", row.microseconds.fixed(1),
                row.kernelMicroseconds.map { ($0 / row.microseconds).fixed(3) } ?? "", row.teraflops.fixed(0),
                row.shown.fixed(3), row.planMicroseconds.fixed(0), row.spread.fixed(3),
            ])
        }
        table.print()
        let seconds = report.newVariantSeconds.map { $0.fixed(2) }.joined(separator: ", ")
        if !seconds.isEmpty { print("a new variant's first result, seconds: \(seconds)") }
    }
}
