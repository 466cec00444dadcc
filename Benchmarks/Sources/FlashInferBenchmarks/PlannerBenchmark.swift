import ArgumentParser
import FlashInfer

struct PlannerBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "planner", abstract: "Time to plan decode batches, on one thread, with no device.")

    @OptionGroup var common: CommonOptions

    struct Row: Codable {
        var requests: Int
        var processors: Int
        var items: Int
        var microseconds: Double
    }

    func run() throws {
        // One head an item over many processors, as on a GPU; all heads an item over two, as on this CPU.
        let gpu = KernelTraits(
            tiles: [.init(maximumRows: .max, queryRows: 16, kvHeads: 1, fixedCost: 128, keyCost: 1, pairCost: 0)],
            kvGranularity: 64, minimumSplit: 128)
        let cpu = KernelTraits(
            tiles: [.init(maximumRows: .max, queryRows: 16, kvHeads: 8, fixedCost: 128, keyCost: 1, pairCost: 0)],
            kvGranularity: 64, minimumSplit: 128)
        var rows: [Row] = []
        for (traits, processors) in [(cpu, 2), (gpu, 132)] {
            for requests in [1, 16, 64, 256] {
                let lengths = (0..<requests).map { 500 + ($0 * 7919) % 3000 }
                let kvIndptr = lengths.reduce(into: [Int32(0)]) { $0.append($0.last! + Int32($1)) }
                let problem = try AttentionProblem(
                    geometry: .ragged(queryIndptr: (0...Int32(requests)).map { $0 }, kvIndptr: kvIndptr),
                    shape: AttentionShape(queryHeads: 32, kvHeads: 8, headDimQK: 128), variant: .causal,
                    queryType: .bfloat16, kvType: .bfloat16)
                var items = 0
                let seconds = try time(runs: 10 * common.runs) {
                    items = try Planner.plan(problem, traits: traits, processors: processors).items.count
                }.median
                rows.append(Row(requests: requests, processors: processors, items: items, microseconds: seconds * 1e6))
            }
        }
        var table = Table(headings: ["requests", "processors", "items", "us"])
        for row in rows {
            table.rows.append(["\(row.requests)", "\(row.processors)", "\(row.items)", row.microseconds.fixed(1)])
        }
        table.print()
        try writeJSON(rows, to: common.json)
    }
}
