import ArgumentParser
import FlashInfer
import Foundation

struct CUDAColdBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cuda-cold",
        abstract: "Process start to the first attention result: with empty caches, with a disk cache, with a bundle.",
        discussion: """
            Starts itself anew for every figure. 'total' is from before the process starts until its first result is read; \
            'context' is the driver's own start in it (loading the driver, initialising, making the context), 'ours' the rest.
            """)

    @OptionGroup var common: CUDAOptions

    @Option(help: "Processes started for each figure; the median is reported.")
    var runs = 5

    @Option(help: "A bundle of kernels; FLASHINFER_BUNDLE where not given.")
    var bundle: String?

    @Option(help: .hidden)
    var child: Work?

    enum Work: String, CaseIterable, Codable, ExpressibleByArgument {
        case decode, prefill
    }

    /// What a started process says of itself, in milliseconds.
    struct Child: Codable {
        var context: Double
        var device: Double
        var result: Double
    }

    struct Row: Codable {
        var work: Work
        var kernels: String
        var total: Double
        var context: Double
        var ours: Double
        var device: Double
        var result: Double
    }

    func validate() throws {
        if runs < 1 { throw ValidationError("--runs must be 1 or more, not \(runs)") }
    }

    func run() throws {
        if let child { return try runChild(child) }
        _ = try GPUStatus.look()
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("flashinfer-cold-\(getpid())")
        defer { try? FileManager.default.removeItem(at: folder) }
        let bundle = self.bundle ?? ProcessInfo.processInfo.environment["FLASHINFER_BUNDLE"] ?? ""
        var rows: [Row] = []
        for work in Work.allCases {
            let kept = folder.appendingPathComponent("kept-\(work)")
            rows.append(
                try median(work, "compiled (empty cache)") { run in
                    ["FLASHINFER_CACHE": folder.appendingPathComponent("\(work)-\(run)").path, "FLASHINFER_BUNDLE": ""]
                })
            let cached = ["FLASHINFER_CACHE": kept.path, "FLASHINFER_BUNDLE": ""]
            _ = try start(work, cached)
            rows.append(try median(work, "disk cache") { _ in cached })
            if bundle.isEmpty { continue }
            rows.append(
                try median(work, "bundle, no compiler") { run in
                    [
                        "FLASHINFER_CACHE": folder.appendingPathComponent("bundle-\(work)-\(run)").path,
                        "FLASHINFER_BUNDLE": bundle, "FLASHINFER_NVRTC": "/nonexistent",
                    ]
                })
        }
        var table = Table(headings: ["first", "kernels", "total ms", "context ms", "ours ms", "device ms", "result ms"])
        for row in rows {
            table.rows.append(
                [row.work.rawValue, row.kernels]
                    + [row.total, row.context, row.ours, row.device, row.result].map { $0.fixed(0) })
        }
        table.print()
        try writeJSON(rows, to: common.json)
    }

    private func median(_ work: Work, _ kernels: String, _ environment: (Int) -> [String: String]) throws -> Row {
        let all = try (0..<runs).map { try start(work, environment($0)) }
        return Row(
            work: work, kernels: kernels, total: all.map(\.total).median, context: all.map(\.child.context).median,
            ours: all.map { $0.total - $0.child.context }.median, device: all.map(\.child.device).median,
            result: all.map(\.child.result).median)
    }

    /// One process: milliseconds until it has said its first result, and what it said.
    private func start(_ work: Work, _ environment: [String: String]) throws -> (total: Double, child: Child) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        process.arguments = ["cuda-cold", "--device", common.device, "--child", work.rawValue]
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        let output = Pipe()
        process.standardOutput = output
        let clock = ContinuousClock()
        let begin = clock.now
        try process.run()
        // The line comes with the result, before the process takes its driver down.
        let line = output.fileHandleForReading.availableData
        let duration = clock.now - begin
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw FlashInferError.deviceFailure(
                call: "cuda-cold --child \(work)", message: "ended with status \(process.terminationStatus)")
        }
        return (duration.milliseconds, try JSONDecoder().decode(Child.self, from: line))
    }

    private func runChild(_ work: Work) throws {
        let clock = ContinuousClock()
        let begin = clock.now
        _ = try GPUStatus.look()
        let hasContext = clock.now
        let gpu = try Devices.make(named: common.device)
        let hasDevice = clock.now
        let test: CUDACase =
            work == .decode
            ? .decode(4, 1024) : .prefill(512, 1, dim: 128, heads: (32, 8), causal: true, pageSize: 16)
        let sizes = (pages: test.rowCount / 16, tokens: test.queryLengths.reduce(0, +))
        let cache = try DeviceBuffer(on: gpu, dtype: .bfloat16, shape: [sizes.pages, 2, 16, 8, 128])
        let queries = try DeviceBuffer(on: gpu, dtype: .bfloat16, shape: [sizes.tokens, 32, 128])
        let output = try DeviceBuffer(on: gpu, dtype: .bfloat16, shape: [sizes.tokens, 32, 128])
        try gpu.fill(cache.region, with: 0x3C)
        try gpu.fill(queries.region, with: 0x3C)
        let attention = try PlannedAttention(test.problem(), on: gpu)
        try attention.run(queries.view, .paged(combined: cache.view), into: output.view)
        let first: [BFloat16] = try output.read()
        let hasResult = clock.now
        // All values are alike, so their weighted mean is too.
        guard first.allSatisfy({ $0 == BFloat16(bitPattern: 0x3C3C) }) else {
            throw FlashInferError.deviceFailure(call: "attention", message: "the first result is wrong")
        }
        let said = try JSONEncoder().encode(
            Child(
                context: (hasContext - begin).milliseconds, device: (hasDevice - hasContext).milliseconds,
                result: (hasResult - hasDevice).milliseconds))
        try FileHandle.standardOutput.write(contentsOf: said)
    }
}

extension Duration {
    fileprivate var milliseconds: Double { 1e3 * inSeconds }
}
