import ArgumentParser
import FlashInfer
import Foundation

struct VariantBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "variants",
        abstract:
            "CPU attention: forms with kernels of their own against the same as programs, and masks by what they show.",
        discussion: """
            32 query heads, 8 key/value heads, head dim 128, prefill. "program" is the same variant written so that it is not \
            recognised; "ratio" is its speed over the kernel's. "cost" of a mask is its time over full attention's, and "shown" the \
            part of the pairs that it shows.
            """)

    @OptionGroup var common: CommonOptions

    @Option(help: "Queries and keys.")
    var length = 2048

    struct Row: Codable {
        var variant: String
        var dtype: String
        var kernelMilliseconds: Double
        var programMilliseconds: Double
    }

    struct MaskRow: Codable {
        var mask: String
        var milliseconds: Double
        /// Of full attention's time, and of its pairs.
        var cost: Double
        var shown: Double
        var planMicroseconds: Double
    }

    struct Report: Codable {
        var device: String
        var rows: [Row]
        var masks: [MaskRow]
    }

    func run() throws {
        let device = CPUDevice(threads: common.threads)
        print("device: \(device.name)")
        // A condition that always holds and that no simplification sees.
        let always = Mask { at in at.head * at.head >= 0 }
        let forms: [(String, AttentionVariant, AttentionVariant)] = [
            ("causal", .causal, AttentionVariant("program", mask: .causal && always)),
            (
                "soft cap", AttentionVariant(mask: .causal, logitsSoftCap: 50),
                AttentionVariant("program", mask: .causal) { score, _ in tanh(score / 50) * 50 + 0 * score }
            ),
            (
                "alibi", AttentionVariant(mask: .causal, positionEncoding: .alibi),
                AttentionVariant("program", mask: .causal) { score, at in
                    score - Parameter<Float>.alibiSlopes[at.head] * (at.queryIndex - at.keyPosition).float
                }
            ),
        ]
        var rows: [Row] = []
        for dtype in [DType.bfloat16, .float32] {
            for (name, kernel, program) in forms {
                rows.append(
                    Row(
                        variant: name, dtype: "\(dtype)", kernelMilliseconds: try seconds(kernel, dtype, device) * 1e3,
                        programMilliseconds: try seconds(program, dtype, device) * 1e3))
            }
        }
        var table = Table(headings: ["variant", "dtype", "kernel ms", "program ms", "ratio"])
        for row in rows {
            table.rows.append([
                row.variant, row.dtype, row.kernelMilliseconds.fixed(1), row.programMilliseconds.fixed(1),
                (row.kernelMilliseconds / row.programMilliseconds).fixed(2),
            ])
        }
        table.print()
        let masks = try maskRows(device)
        table = Table(headings: ["mask", "ms", "cost", "shown", "plan us"])
        for row in masks {
            table.rows.append([
                row.mask, row.milliseconds.fixed(1), row.cost.fixed(2), row.shown.fixed(2),
                row.planMicroseconds.fixed(1),
            ])
        }
        table.print()
        try writeJSON(Report(device: device.name, rows: rows, masks: masks), to: common.json)
    }

    private func maskRows(_ device: CPUDevice) throws -> [MaskRow] {
        let ids = Parameter<Int32>("ids", .perPosition)
        let values = ["ids": ParameterValue((0..<Int32(length)).map { $0 / 256 })]
        let masks: [(String, AttentionVariant)] = [
            ("causal", .causal), ("window 255", AttentionVariant(mask: .causal, windowLeft: 255)),
            ("documents of 256", AttentionVariant("documents", mask: .causal && .documents(ids))),
            ("streaming", AttentionVariant("streaming", mask: .causal && (.window(left: 255) || .prefix(4)))),
        ]
        let full = try seconds(.full, .bfloat16, device)
        return try masks.map { name, variant in
            let parameters = name.hasPrefix("documents") ? values : [:]
            let time = try seconds(variant, .bfloat16, device, parameters)
            let picture = try variant.explain(
                .contiguous(queryLength: length, kvLength: length), parameters: parameters, block: (16, 16))
            let problem = try self.problem(variant, .bfloat16, parameters)
            let traits = try device.kernelTraits(for: problem)
            let planning = try FlashInferBenchmarks.time(runs: 30) {
                _ = try Planner.plan(problem, traits: traits, processors: device.limits.processors)
            }.median
            return MaskRow(
                mask: name, milliseconds: time * 1e3, cost: time / full, shown: 1 - picture.skippedFraction,
                planMicroseconds: planning * 1e6)
        }
    }

    private func problem(
        _ variant: AttentionVariant, _ dtype: DType, _ parameters: [String: ParameterValue]
    ) throws -> AttentionProblem {
        try AttentionProblem(
            geometry: .contiguous(queryLength: length, kvLength: length),
            shape: AttentionShape(queryHeads: 32, kvHeads: 8, headDimQK: 128), variant: variant, queryType: dtype,
            kvType: dtype, parameters: parameters)
    }

    private func seconds(
        _ variant: AttentionVariant, _ dtype: DType, _ device: CPUDevice, _ parameters: [String: ParameterValue] = [:]
    ) throws -> Double {
        let queries = try randomTensor([length, 32, 128], dtype, on: device)
        let keys = try randomTensor([length, 8, 128], dtype, on: device)
        let values = try randomTensor([length, 8, 128], dtype, on: device)
        let output = try DeviceBuffer(on: device, dtype: dtype, shape: [length, 32, 128])
        let attention = try PlannedAttention(problem(variant, dtype, parameters), on: device)
        let cache = try KVCacheView.ragged(keys: keys.view, values: values.view)
        return try time(runs: common.runs) { try attention.run(queries.view, cache, into: output.view) }.median
    }
}
