import ArgumentParser
import FlashInfer

struct MaskPlanBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "planner-masks",
        abstract:
            "Time of a plan over masks that leave blocks out, against causal attention's, on one thread, with no device.",
        discussion: """
            32/8 heads over ragged keys. "window" is a form that kernels have, "streaming" a window and four tokens of prefix, \
            "documents" of 256 tokens or, in decode, the last of them, "prefix" a prompt that is seen both ways. "problem" is what making \
            the problem takes with the mask's tensors, "ratio" the plan's time over causal attention's.
            """)

    @OptionGroup var common: CommonOptions

    struct Row: Codable {
        var batch: String
        var mask: String
        var items: Int
        /// Microseconds, medians.
        var problem: Double
        var plan: Double
        var causal: Double
    }

    /// Requests of queries over keys.
    private struct Batch {
        var name: String
        var queries: [Int]
        var keys: [Int]
    }

    func run() throws {
        let traits = KernelTraits.likeGPU
        var rows: [Row] = []
        for requests in [64, 256] {
            let lengths = (0..<requests).map { 500 + ($0 * 7919) % 3000 }
            let batches = [
                Batch(name: "\(requests) decodes", queries: .init(repeating: 1, count: requests), keys: lengths),
                Batch(
                    name: "\(requests) x 256 of their last rows", queries: .init(repeating: 256, count: requests),
                    keys: lengths),
                Batch(name: "\(requests) prompts", queries: lengths, keys: lengths),
            ]
            for batch in batches { rows += try measure(batch, traits) }
        }
        var table = Table(headings: ["batch", "mask", "items", "problem us", "plan us", "causal us", "ratio"])
        for row in rows {
            table.rows.append(
                [row.batch, row.mask, "\(row.items)"] + [row.problem, row.plan, row.causal].map { $0.fixed(1) } + [
                    (row.plan / row.causal).fixed(2)
                ])
        }
        table.print()
        try writeJSON(rows, to: common.json)
    }

    private func measure(_ batch: Batch, _ traits: KernelTraits) throws -> [Row] {
        func indptr(_ lengths: [Int]) -> [Int32] {
            lengths.reduce(into: [0]) { $0.append($0[$0.count - 1] + Int32($1)) }
        }
        let geometry = try BatchGeometry.ragged(queryIndptr: indptr(batch.queries), kvIndptr: indptr(batch.keys))
        let shape = try AttentionShape(queryHeads: 32, kvHeads: 8, headDimQK: 128)
        let ids = Parameter<Int32>("ids", .perPosition), prompt = Parameter<Int32>("prompt", .perRequest)
        let documents = ParameterValue(positions: batch.keys.map { keys in (0..<Int32(keys)).map { $0 / 256 } })
        let prompts = ParameterValue(batch.keys.map { Int32($0 / 3) })
        let masks: [(String, Mask, [String: ParameterValue])] = [
            ("window", .causal && .window(left: 1023), [:]),
            ("streaming", .causal && (.window(left: 1023) || .prefix(4)), [:]),
            ("documents", .causal && .documents(ids), ["ids": documents]),
            ("prefix", .causal || .prefix(prompt), ["prompt": prompts]),
        ]
        func problem(_ mask: Mask, _ values: [String: ParameterValue]) throws -> AttentionProblem {
            try AttentionProblem(
                geometry: geometry, shape: shape, variant: AttentionVariant("masked", mask: mask),
                queryType: .bfloat16, kvType: .bfloat16, parameters: values)
        }
        let causal = try problem(.causal, [:])
        let runs = 10 * common.runs
        return try masks.map { name, mask, values in
            let masked = try problem(mask, values)
            let plan = try Planner.plan(masked, traits: traits, processors: 264)
            return Row(
                batch: batch.name, mask: name, items: plan.items.count,
                problem: try time(runs: runs) { consume(try problem(mask, values)) }.median * 1e6,
                plan: try time(runs: runs) {
                    consume(try Planner.plan(masked, traits: traits, processors: 264))
                }.median * 1e6,
                causal: try time(runs: runs) {
                    consume(try Planner.plan(causal, traits: traits, processors: 264))
                }.median * 1e6)
        }
    }
}
