import ArgumentParser
import FlashInfer
import Foundation

struct CUDALeaksBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cuda-leaks",
        abstract: "Memory before and after many cycles of plan, run and replay, and of making and freeing everything.",
        discussion: "Fails where device memory grows by more than 4 MiB, or the process by more than 16 MiB.")

    @OptionGroup var common: CUDAOptions

    @Option(help: "Cycles of plan, run and replay.")
    var cycles = 10_000

    struct Row: Codable {
        var work: String
        var cycles: Int
        /// Bytes of device memory taken, and of the process that are resident, before and after.
        var deviceGrowth: Int
        var hostGrowth: Int
        var hostByteCount: Int
        var seconds: Double
    }

    struct Report: Codable {
        var device: String
        var rows: [Row]
    }

    func validate() throws {
        if cycles < 1 { throw ValidationError("--cycles must be 1 or more, not \(cycles)") }
    }

    func run() throws {
        let gpu = try Devices.make(named: common.device)
        let problems = try (0..<8).map { step in
            try CUDACase.decode("leaks", (0..<16).map { 1 + ($0 * 7919 + step * 1311) % 2048 }).problem()
        }
        var rows = [try steadyCycles(problems, on: gpu)]
        rows.append(try ownershipCycles(problems, on: gpu))
        var table = Table(
            headings: ["work", "cycles", "device memory grew", "process grew", "process", "us a cycle"])
        for row in rows {
            table.rows.append([
                row.work, "\(row.cycles)", "\(row.deviceGrowth >> 10) KiB", "\(row.hostGrowth >> 10) KiB",
                "\(row.hostByteCount >> 20) MiB", (row.seconds / Double(row.cycles) * 1e6).fixed(1),
            ])
        }
        print(gpu.name)
        table.print()
        try writeJSON(Report(device: gpu.name, rows: rows), to: common.json)
        if rows.contains(where: { $0.deviceGrowth > 4 << 20 || $0.hostGrowth > 16 << 20 }) {
            print("memory grew")
            throw ExitCode.failure
        }
    }

    /// A server's steps: one plan, workspace and graph for all.
    private func steadyCycles(_ problems: [AttentionProblem], on gpu: any Device) throws -> Row {
        let tensors = try DecodeTensors(problems, requests: 16, on: gpu)
        let capacity = try Planner.capacity(
            maximumRequests: 16, maximumQueries: 16, maximumRequestQueries: 1, maximumKeys: 2048,
            maximumBlocks: 16 * 128,
            shape: problems[0].shape, traits: gpu.kernelTraits(for: problems[0]), processors: gpu.limits.processors)
        var attention = try PlannedAttention(problems[0], on: gpu, capacity: capacity)
        try tensors.run(attention)
        try gpu.synchronize()
        let graph = try gpu.capture { () throws(FlashInferError) in try tensors.run(attention) }
        return try grown("plan, run, replay", cycles, on: gpu) { step in
            try attention.replan(problems[step % 8])
            try tensors.run(attention)
            try graph?.replay()
        }
    }

    /// Everything made and freed again, as a server's requests and models come and go.
    private func ownershipCycles(_ problems: [AttentionProblem], on gpu: any Device) throws -> Row {
        try grown("make and free all of it", max(cycles / 20, 1), on: gpu) { step in
            let own = try Devices.make(named: common.device)
            let tensors = try DecodeTensors([problems[step % 8]], requests: 16, on: own)
            let attention = try PlannedAttention(problems[step % 8], on: own)
            try tensors.run(attention)
            try own.synchronize()
            let graph = try own.capture { () throws(FlashInferError) in try tensors.run(attention) }
            try graph?.replay()
            try own.synchronize()
        }
    }

    private func grown(_ work: String, _ cycles: Int, on gpu: any Device, _ body: (Int) throws -> Void) throws -> Row {
        // Pools, rings and caches reach their size first.
        let warmUp = max(cycles / 10, 8)
        for step in 0..<warmUp {
            try body(step)
            if step % 8 == 7 { try gpu.synchronize() }
        }
        try gpu.synchronize()
        let (free, host) = (try GPUStatus.look().freeByteCount, try Self.residentByteCount())
        let seconds = try time {
            for step in 0..<cycles {
                try body(step)
                if step % 64 == 63 { try gpu.synchronize() }
            }
            try gpu.synchronize()
        }
        let after = try Self.residentByteCount()
        return Row(
            work: work, cycles: cycles, deviceGrowth: free - (try GPUStatus.look().freeByteCount),
            hostGrowth: after - host, hostByteCount: after, seconds: seconds)
    }

    /// Bytes of this process in memory.
    private static func residentByteCount() throws -> Int {
        let fields = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8).split(separator: " ")
        return (fields.count > 1 ? Int(fields[1]) ?? 0 : 0) * Int(sysconf(Int32(_SC_PAGESIZE)))
    }
}
