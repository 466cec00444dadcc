import ArgumentParser
import FlashInfer
import FlashInferCUDA
import Foundation

/// `flashinfer compile`
struct CompileCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compile",
        abstract: "Compile the GPU kernels ahead, on any machine: into a bundle, or to check what they take.",
        discussion: """
            A bundle lets a program start on a GPU machine that has no NVRTC: name it in FLASHINFER_BUNDLE, or put it beside the \
            program as \(KernelBundle.usualName). No GPU is needed here, only NVRTC ('pip install nvidia-cuda-nvrtc').
            """)

    @Option(
        name: .customLong("arch"), parsing: .upToNextOption,
        help: """
            Architectures: sm_80, sm_90a, sm_100, sm_120 and others that NVRTC knows. With --check, those four if absent.
            """,
        transform: { name in
            guard let architecture = Architecture(name) else {
                throw ValidationError("'\(name)' is no architecture; sm_90a is one.")
            }
            return architecture
        })
    var architectures: [Architecture] = []

    @Option(help: "With --output: which kernels; all if absent.")
    var preset: KernelPreset?

    @Option(help: "The bundle to write.")
    var output: String?

    @Flag(
        help: """
            Compile every shipped kernel, compare what it takes with the committed table, and look for machine code that no GPU \
            executes.
            """)
    var check = false

    @Flag(help: "With --check: rewrite the table with what was found.")
    var update = false

    @Option(help: "With --check: the table's file; \(ResourceTable.usualPath) if absent.")
    var table: String?

    @Option(help: "With --check: only kernels whose label contains this.")
    var filter: String?

    @Option(parsing: .unconditional, help: "Compilations side by side; by default one a processor.")
    var jobs = ParallelWork.processors

    func validate() throws {
        guard check != (output != nil) else { throw ValidationError("Give either --output FILE or --check.") }
        guard check || (!update && filter == nil && table == nil) else {
            throw ValidationError("--update, --filter and --table belong to --check.")
        }
        guard output != nil || preset == nil else { throw ValidationError("--preset belongs to --output.") }
        guard check || !architectures.isEmpty else {
            throw ValidationError("Give the architectures to compile for: --arch sm_90a.")
        }
        try require("--jobs", jobs, atLeast: 1, atMost: Most.threads)
    }

    func run() async throws {
        // Found out before minutes of compiling.
        if let output { try requireWritable(output) }
        let nvrtc = try NVRTC()
        if let output { try writeBundle(output, nvrtc) } else { try runCheck(nvrtc) }
    }

    private func requireWritable(_ path: String) throws {
        let file = URL(fileURLWithPath: path)
        let folder = file.deletingLastPathComponent().path
        guard !path.isEmpty, !file.hasDirectoryPath else {
            throw CommandError("cannot write '\(path)': it is a folder, but must be a file's name")
        }
        guard FileManager.default.isWritableFile(atPath: folder) else {
            throw CommandError("cannot write \(path): there is no folder \(folder) that can be written to")
        }
    }

    private func writeBundle(_ path: String, _ nvrtc: NVRTC) throws {
        let start = Date()
        let progress = CompileProgress()
        let items = try KernelBundle.compile(
            (preset ?? .all).specs, frames: AttentionKernel.shippedFrames(for:), architectures: architectures,
            with: nvrtc, threads: jobs
        ) { done, count, label in progress.show(done, of: count, label) }
        progress.clear()
        try KernelBundle.write(items, to: path)
        let bytes = items.reduce(0) { $0 + $1.cubin.count }
        Terminal.write(
            "\(path): \(items.count) kernels, \(bytes >> 10) KiB, NVRTC \(nvrtc.version), \(seconds(since: start)) s\n")
    }

    private func runCheck(_ nvrtc: NVRTC) throws {
        let start = Date()
        let specs = KernelCatalogue.shipped.filter { filter.map($0.label.contains) ?? true }
        if let filter, specs.isEmpty { throw CommandError("no shipped kernel's label contains '\(filter)'") }
        let isPartial = filter != nil || !architectures.isEmpty
        let check = try KernelCheck(
            specs, architectures: architectures.isEmpty ? KernelCatalogue.architectures : architectures, nvrtc: nvrtc)
        let path = table ?? ResourceTable.usualPath
        let committed = try readTable(path)
        Terminal.write("\(check.jobs.count) compilations by NVRTC \(nvrtc.version), \(jobs) at a time\n")

        let progress = CompileProgress()
        let count = check.jobs.count
        let outcomes = check.run(threads: jobs) { done, outcome in
            progress.show(done, of: count, "\(outcome.job.spec.label) \(outcome.job.architecture)")
        }
        progress.clear()

        var found: [ResourceTable.Key: KernelResources] = [:]
        var failures: [String] = []
        for outcome in outcomes {
            switch outcome.result {
            case .success(let resources): found[outcome.job.key] = resources
            case .failure(let error):
                failures.append("\(outcome.job.spec.label) \(outcome.job.architecture): \(error)")
            }
        }
        for failure in failures { Terminal.write("\(failure)\n") }
        if nvrtc.version != committed.version {
            Terminal.write("the table is by NVRTC \(committed.version), so only spills are compared\n")
        }
        var differences: [String] = []
        if update {
            guard failures.isEmpty else {
                throw CommandError("\(failures.count) kernels cannot ship; the table stays")
            }
            let next = committed.updated(with: found, by: nvrtc.version, isPartial: isPartial)
            try next.text.write(toFile: path, atomically: true, encoding: .utf8)
            differences = next.differences(from: found, by: nvrtc.version, isPartial: isPartial)
        } else {
            differences = committed.differences(from: found, by: nvrtc.version, isPartial: isPartial)
        }
        for difference in differences { Terminal.write("\(difference)\n") }
        Terminal.write("\(found.count) kernels compiled in \(seconds(since: start)) s\n")
        guard failures.isEmpty, differences.isEmpty else {
            throw CommandError("\(failures.count) failures, \(differences.count) differences from \(path)")
        }
    }

    /// The table of the checkout, or the one built in where this is run elsewhere.
    private func readTable(_ path: String) throws -> ResourceTable {
        if FileManager.default.fileExists(atPath: path) {
            return try ResourceTable(text: String(contentsOfFile: path, encoding: .utf8))
        }
        guard table == nil, !update else { throw CommandError("there is no table at \(path)") }
        return try ResourceTable(text: ResourceTable.committedText)
    }

    private func seconds(since start: Date) -> String { StatisticsTable.decimal(-start.timeIntervalSinceNow) }
}

extension KernelPreset: ExpressibleByArgument {}

/// How far a long compilation is: one line that changes on a terminal, a line for every tenth elsewhere.
private struct CompileProgress: Sendable {
    func show(_ done: Int, of count: Int, _ name: String) {
        if Terminal.errorIsTerminal {
            Terminal.writeError("\r\u{1B}[K\(done)/\(count) \(name)")
        } else if done * 10 / count > (done - 1) * 10 / count {
            Terminal.writeError("\(done)/\(count)\n")
        }
    }

    func clear() {
        if Terminal.errorIsTerminal { Terminal.writeError("\r\u{1B}[K") }
    }
}
