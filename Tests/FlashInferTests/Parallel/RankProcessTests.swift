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

    @Test func aMissingVariableIsNamed() throws {
        let result = try RankProcess.run(rank: 0, of: 2, port: nil, timeout: 1)
        #expect(result.status != 0)
        #expect(result.error.hasPrefix("error: MASTER_PORT is not set"), "\(result.error)")
    }
}

private enum RankProcess {
    /// The command, which is built into the same folder as the tests.
    static var command: URL? {
        let folder = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
        let file = folder.appendingPathComponent("flashinfer")
        return FileManager.default.isExecutableFile(atPath: file.path) ? file : nil
    }

    struct Result: Sendable {
        var status: Int32
        var output: String
        var error: String
    }

    static func run(rank: Int, of worldSize: Int, port: Int?, timeout: Int) throws -> Result {
        let process = Process()
        process.executableURL = command
        process.arguments = ["ranks", "--device", "cpu", "--length", "300", "--timeout", "\(timeout)"]
        var environment = ProcessInfo.processInfo.environment
        for name in ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"] { environment[name] = nil }
        environment["RANK"] = "\(rank)"
        environment["WORLD_SIZE"] = "\(worldSize)"
        environment["MASTER_ADDR"] = "127.0.0.1"
        environment["MASTER_PORT"] = port.map { "\($0)" }
        process.environment = environment
        let (output, error) = (Pipe(), Pipe())
        process.standardOutput = output
        process.standardError = error
        try process.run()
        // A few lines, which fit into the pipes.
        process.waitUntilExit()
        func text(_ pipe: Pipe) -> String {
            String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        }
        return Result(status: process.terminationStatus, output: text(output), error: text(error))
    }
}
