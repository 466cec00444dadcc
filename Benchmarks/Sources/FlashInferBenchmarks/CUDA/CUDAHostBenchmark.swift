import ArgumentParser
import FlashInfer
import Foundation

struct CUDAHostBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cuda-host",
        abstract: "Host time of a decode step on the GPU: geometry, plan, upload, run, replay.",
        discussion: """
            32 query heads over 8, head dim 128, page 16, about 2,048 keys a request, in a fixed capacity. Medians in \
            microseconds. 'geometry' is the check of tables that a server keeps, 'replan' is what it calls each step (plan and \
            its upload); 'run' enqueues one layer; 'replay' enqueues a graph of 32 layers.
            """)

    @OptionGroup var common: CUDAOptions

    @Option(help: "Requests of a batch.")
    var requests = [1, 16, 64, 256]

    @Option(help: "Timed calls of each kind.")
    var calls = 400

    struct Row: Codable {
        var requests: Int
        var geometry: Double
        var plan: Double
        var prepare: Double
        var replan: Double
        var run: Double
        var replay32: Double
        var items: Int
    }

    struct Report: Codable {
        var device: String
        var rows: [Row]
    }

    func validate() throws {
        if calls < 1 { throw ValidationError("--calls must be 1 or more, not \(calls)") }
        if let wrong = requests.first(where: { $0 < 1 || $0 > 4096 }) {
            throw ValidationError("--requests must be in 1 ... 4096, not \(wrong)")
        }
    }

    func run() throws {
        let gpu = try Devices.make(named: common.device)
        let rows = try requests.map { try measure($0, on: gpu) }
        print(gpu.name)
        var table = Table(
            headings: ["requests", "geometry", "plan", "prepare", "replan", "run", "replay of 32", "items"])
        for row in rows {
            table.rows.append(
                ["\(row.requests)"]
                    + [row.geometry, row.plan, row.prepare, row.replan, row.run, row.replay32].map { $0.fixed(1) }
                    + ["\(row.items)"])
        }
        table.print()
        try writeJSON(Report(device: gpu.name, rows: rows), to: common.json)
    }

    private func measure(_ count: Int, on gpu: any Device) throws -> Row {
        // Lengths change from step to step as in decoding, so that no plan repeats.
        let batches = (0..<8).map { step in
            CUDACase.decode("host", (0..<count).map { 1024 + ($0 * 7919 + step * 131) % 2048 })
        }
        let tables = batches.map { $0.tables() }
        let problems = try zip(batches, tables).map { try $0.problem($1) }
        let first = problems[0]
        let traits = try gpu.kernelTraits(for: first)
        let capacity = try Planner.capacity(
            maximumRequests: count, maximumQueries: count, maximumRequestQueries: 1, maximumKeys: 4096,
            maximumBlocks: count * 4096 / 16, shape: first.shape, traits: traits, processors: gpu.limits.processors)
        let tensors = try DecodeTensors(problems, requests: count, on: gpu)
        let workspace = try DeviceBuffer(
            on: gpu, dtype: .uint8, shape: [gpu.workspaceByteCount(for: capacity)])
        var attention = try PlannedAttention(first, on: gpu, capacity: capacity)
        try tensors.run(attention)
        try gpu.synchronize()
        let graph = try gpu.capture { () throws(FlashInferError) in
            for _ in 0..<32 { try tensors.run(attention) }
        }
        guard let graph else {
            throw FlashInferError.unsupported("graphs", device: gpu.name, nearest: "a CUDA device")
        }
        var plan = attention.plan
        func plans(_ step: Int) throws {
            plan = try Planner.plan(
                problems[step % 8], traits: traits, processors: gpu.limits.processors, capacity: capacity)
        }
        return Row(
            requests: count,
            geometry: try microseconds(on: gpu) { _ = try batches[$0 % 8].problem(tables[$0 % 8]) },
            plan: try microseconds(on: gpu, plans),
            prepare: try microseconds(on: gpu) { _ in
                try gpu.prepare(plan, capacity: capacity, in: workspace.region)
            },
            replan: try microseconds(on: gpu) { try attention.replan(problems[$0 % 8]) },
            run: try microseconds(on: gpu) { _ in try tensors.run(attention) },
            // The GPU takes longer for a replay than the host, and its queue is not endless.
            replay32: try microseconds(on: gpu, between: 4) { _ in try graph.replay() },
            items: attention.plan.items.count)
    }

    /// The median time of one call; the GPU catches up after every few.
    private func microseconds(
        on gpu: any Device, between waits: Int = 16, _ body: (Int) throws -> Void
    ) throws -> Double {
        var times: [Double] = []
        for step in 0..<calls + 16 {
            let seconds = try time { try body(step) }
            if step >= 16 { times.append(seconds) }
            if step % waits == 0 { try gpu.synchronize() }
        }
        return times.median * 1e6
    }
}
