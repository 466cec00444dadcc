import ArgumentParser
import FlashInfer

struct PlannerBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "planner",
        abstract: "Time from lengths and page table to a plan, part by part, on one thread, with no device.",
        discussion: """
            Decode batches of 32/8 heads over pages of 16 keys. "geometry" is the validation of the page table, "problem" that of \
            the variant and types, "plan" the planning, "all" the three in one. The peer, FlashInfer 0.6 on an H200, takes 113 to \
            1,136 us for "plan" alone.
            """)

    @OptionGroup var common: CommonOptions

    struct Row: Codable {
        var kernel: String
        var batch: String
        var requests: Int
        var workers: Int
        var items: Int
        var merges: Int
        /// Microseconds, medians.
        var geometry: Double
        var problem: Double
        var plan: Double
        var all: Double
    }

    /// A page table, as an engine has it.
    struct Tables {
        var indptr: [Int32] = [0]
        var last: [Int32] = []
        var pages: [Int32]
        static let pageSize = 16

        init(_ lengths: [Int]) {
            for length in lengths {
                let count = (length + Self.pageSize - 1) / Self.pageSize
                indptr.append(indptr[indptr.count - 1] + Int32(count))
                last.append(Int32((length - 1) % Self.pageSize + 1))
            }
            let count = Int(indptr[indptr.count - 1])
            pages = (0..<count).map { Int32(($0 * 7919) % count) }
        }
    }

    func run() throws {
        // One head an item over many workers, as on a GPU, and prefill from a queue; all heads an item over two, as on this CPU.
        let gpu = KernelTraits.likeGPU
        let cpu = KernelTraits(
            tiles: [.init(maximumRows: .max, queryRows: 16, kvHeads: 8, fixedCost: 128, keyCost: 1, pairCost: 0)],
            kvGranularity: 64, minimumSplit: 128)
        var rows: [Row] = []
        for requests in [1, 16, 64, 256] {
            for workers in [132, 264, 528] {
                for batch in ["uniform", "mixed"] {
                    rows.append(
                        try measure("lists", gpu, batch, decode: batch == "uniform", requests, workers: workers))
                }
            }
            rows.append(try measure("cpu", cpu, "mixed", decode: false, requests, workers: 2))
        }
        for (name, lengths) in [
            ("1 x 16k", [16_384]), ("4 x 4k", .init(repeating: 4096, count: 4)), ("1 x 2k", [2048]),
        ] {
            rows.append(try measure("queue", gpu, name, lengths: lengths, queries: lengths, workers: 264))
        }
        let headings = [
            "kernel", "batch", "requests", "workers", "items", "merges", "geometry us", "problem us", "plan us",
            "all us",
        ]
        var table = Table(headings: headings)
        for row in rows {
            table.rows.append(
                [row.kernel, row.batch, "\(row.requests)", "\(row.workers)", "\(row.items)", "\(row.merges)"]
                    + [row.geometry, row.problem, row.plan, row.all].map { $0.fixed(2) })
        }
        table.print()
        try writeJSON(rows, to: common.json)
    }

    private func measure(
        _ kernel: String, _ traits: KernelTraits, _ batch: String, decode isUniform: Bool, _ requests: Int, workers: Int
    ) throws -> Row {
        let lengths = (0..<requests).map { isUniform ? 2048 : 500 + ($0 * 7919) % 3000 }
        return try measure(
            kernel, traits, batch, lengths: lengths, queries: .init(repeating: 1, count: requests), workers: workers)
    }

    private func measure(
        _ kernel: String, _ traits: KernelTraits, _ batch: String, lengths: [Int], queries: [Int], workers: Int
    ) throws -> Row {
        let tables = Tables(lengths)
        let queryIndptr = queries.reduce(into: [Int32(0)]) { $0.append($0[$0.count - 1] + Int32($1)) }
        func problem(_ blocks: BatchGeometry) throws -> AttentionProblem {
            try AttentionProblem(
                geometry: blocks, shape: AttentionShape(queryHeads: 32, kvHeads: 8, headDimQK: 128), variant: .causal,
                queryType: .bfloat16, kvType: .bfloat16)
        }
        func geometry() throws -> BatchGeometry {
            try .paged(
                queryIndptr: queries.allSatisfy { $0 == 1 } ? nil : queryIndptr, pageIndptr: tables.indptr,
                pageIndices: tables.pages, lastPageLengths: tables.last, pageSize: Tables.pageSize,
                pageCount: tables.pages.count)
        }
        let runs = 30 * common.runs
        let checked = try geometry()
        let planned = try problem(checked)
        let plan = try Planner.plan(planned, traits: traits, processors: workers)
        return Row(
            kernel: kernel, batch: batch, requests: lengths.count, workers: workers, items: plan.items.count,
            merges: plan.merges.count,
            geometry: try time(runs: runs) { consume(try geometry()) }.median * 1e6,
            problem: try time(runs: runs) { consume(try problem(checked)) }.median * 1e6,
            plan: try time(runs: runs) {
                consume(try Planner.plan(planned, traits: traits, processors: workers))
            }.median * 1e6,
            all: try time(runs: runs) {
                consume(try Planner.plan(problem(geometry()), traits: traits, processors: workers))
            }.median * 1e6)
    }
}

extension KernelTraits {
    /// Traits like a GPU's, for plans that need none: lists of decodes, one head an item, and a queue of prompts.
    static let likeGPU = KernelTraits(
        tiles: [
            .init(maximumRows: 16, queryRows: 16, kvHeads: 1, fixedCost: 64, keyCost: 1, pairCost: 0),
            .init(
                maximumRows: .max, queryRows: 128, kvHeads: 1, fixedCost: 64, keyCost: 0.25, pairCost: 0.75 / 128,
                schedule: .queue),
        ], kvGranularity: 64, minimumSplit: 64)
}
