import FlashInfer
import Foundation
import TestSupport
import Testing

/// Real processes, started as torchrun starts them: `flashinfer ranks`, which compares what they compute together and alone.
@Suite(
    .timeLimit(.minutes(10)), .enabled(if: RankProcess.command != nil, "the flashinfer command is not beside the tests")
)
struct RankProcessTests {
    @Test func fourProcessesAreOne() throws {
        let port = freePort()
        let found = try onThreads(Array(0..<4)) { try RankProcess.run(rank: $0, of: 4, port: port, timeout: 60) }
        for (rank, result) in found.enumerated() { #expect(result.status == 0, "rank \(rank): \(result.error)") }
        #expect(found[0].output.contains("4 ranks give what one gives"))
        #expect(found[0].output.split(separator: "\n").count == 5)
    }

    @Test func aProcessThatDoesNotComeIsNamed() throws {
        let port = freePort()
        let found = try onThreads([0, 1]) { try RankProcess.run(rank: $0, of: 3, port: port, timeout: 8) }
        for result in found {
            #expect(result.status != 0)
            #expect(result.error.hasPrefix("error: rank 2: rendezvous at 127.0.0.1:\(port) failed"), "\(result.error)")
        }
    }

    /// As the system ends a process whose memory it wants: without a word, in the midst of a collective or between two.
    @Test(arguments: [0, 2]) func aProcessThatIsKilledEndsTheOthers(_ lost: Int) throws {
        let port = freePort()
        let ranks = try (0..<4).map {
            try RankProcess(rank: $0, of: 4, port: port, timeout: 60, options: ["--rounds", "100000000"])
        }
        defer { for rank in ranks { rank.kill() } }
        // Rank 0 speaks after the first round, so now all are in the midst of later ones.
        #expect(ranks[0].nextOutput().contains("rank 0 of 4"))
        let start = ContinuousClock.now
        ranks[lost].kill()
        let end = start + .seconds(20)
        for (number, rank) in ranks.enumerated() where number != lost {
            #expect(rank.ends(before: end), "rank \(number) still waits \(ContinuousClock.now - start) after the kill")
            let result = rank.result()
            #expect(result.status != 0 && !result.isKilled, "rank \(number): \(result.error)")
            #expect(result.error.hasPrefix("error: rank "), "\(result.error)")
            #expect(result.error.contains("rank \(lost)"), "rank \(number) does not name \(lost): \(result.error)")
        }
        #expect(ranks[lost].result().isKilled)
    }

    @Test func aMissingVariableIsNamed() throws {
        let result = try RankProcess.run(rank: 0, of: 2, port: nil, timeout: 1)
        #expect(result.status != 0)
        #expect(result.error.hasPrefix("error: MASTER_PORT is not set"), "\(result.error)")
    }
}

/// One rank.
private struct RankProcess {
    /// The command, which is built into the same folder as the tests.
    static var command: URL? {
        let folder = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
        let file = folder.appendingPathComponent("flashinfer")
        return FileManager.default.isExecutableFile(atPath: file.path) ? file : nil
    }

    struct Result: Sendable {
        var status: Int32
        var isKilled: Bool
        var output: String
        var error: String
    }

    private let process = Process()
    // A few lines, which fit into the pipes.
    private let output = Pipe()
    private let error = Pipe()

    init(rank: Int, of worldSize: Int, port: Int?, timeout: Int, options: [String] = []) throws {
        process.executableURL = Self.command
        process.arguments = ["ranks", "--device", "cpu", "--length", "300", "--timeout", "\(timeout)"] + options
        var environment = ProcessInfo.processInfo.environment
        for name in ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"] { environment[name] = nil }
        environment["RANK"] = "\(rank)"
        environment["WORLD_SIZE"] = "\(worldSize)"
        environment["MASTER_ADDR"] = "127.0.0.1"
        environment["MASTER_PORT"] = port.map { "\($0)" }
        process.environment = environment
        process.standardOutput = output
        process.standardError = error
        try process.run()
    }

    /// What it writes next, or nothing if it ends.
    func nextOutput() -> String { String(decoding: output.fileHandleForReading.availableData, as: UTF8.self) }

    func kill() {
        if process.isRunning { Foundation.kill(process.processIdentifier, SIGKILL) }
    }

    /// Whether it ends in time.
    func ends(before end: ContinuousClock.Instant) -> Bool {
        while process.isRunning, ContinuousClock.now < end { usleep(10_000) }
        if process.isRunning {
            kill()
            return false
        }
        return true
    }

    /// Waits for its end; the output is what was not read before.
    func result() -> Result {
        process.waitUntilExit()
        func text(_ pipe: Pipe) -> String {
            String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        }
        return Result(
            status: process.terminationStatus, isKilled: process.terminationReason == .uncaughtSignal,
            output: text(output), error: text(error))
    }

    static func run(rank: Int, of worldSize: Int, port: Int?, timeout: Int) throws -> Result {
        try RankProcess(rank: rank, of: worldSize, port: port, timeout: timeout).result()
    }
}
