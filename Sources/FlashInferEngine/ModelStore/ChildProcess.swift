import Foundation

/// Runs one program to its end without blocking a thread, with its output in a file.
struct ChildProcess {
    let executable: URL
    let arguments: [String]
    let environment: [String: String]
    /// Where the program's output and messages go.
    let log: URL

    /// How often a running program is looked at.
    private static let interval = Duration.milliseconds(50)
    /// How long a program may take to end after it was asked to.
    private static let grace = Duration.seconds(2)

    /// What is left of a program that has ended.
    struct Result {
        let status: Int
        let output: String
    }

    /// Starts the program and waits for it; `whileRunning` is called about twenty times a second.
    ///
    /// When the task is cancelled the program is asked to end, then killed.
    func run(whileRunning: () -> Void = {}) async throws(ModelStoreError) -> Result {
        guard FileManager.default.createFile(atPath: log.path, contents: nil),
            let handle = try? FileHandle(forWritingTo: log)
        else { throw .cannotWrite(path: log.path, reason: "cannot be created") }
        defer { try? handle.close() }
        let process = Process()
        process.executableURL = executable
        process.arguments = arguments
        process.environment = environment
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = handle
        process.standardError = handle
        do {
            try process.run()
        } catch {
            throw .commandFailed(command: executable.path, status: -1, detail: "\(error)")
        }
        while process.isRunning {
            whileRunning()
            do {
                try await Task.sleep(for: Self.interval)
            } catch {
                await end(process)
                throw .cancelled
            }
        }
        let output = (try? String(decoding: Data(contentsOf: log), as: UTF8.self)) ?? ""
        return Result(status: Int(process.terminationStatus), output: output)
    }

    private func end(_ process: Process) async {
        process.terminate()
        let deadline = ContinuousClock.now + Self.grace
        while process.isRunning {
            if ContinuousClock.now > deadline { kill(process.processIdentifier, SIGKILL) }
            // A cancelled task cannot sleep, and this wait must not be cut short.
            await Task.detached { try? await Task.sleep(for: .milliseconds(10)) }.value
        }
    }
}
