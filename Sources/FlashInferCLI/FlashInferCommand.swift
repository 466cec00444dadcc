import ArgumentParser

/// The `flashinfer` command.
@main
struct FlashInferCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "flashinfer",
        abstract: "Run large language models on this machine: paged cache, continuous batching, no setup.",
        discussion: "Start with 'flashinfer demo'.",
        version: "0.1.0",
        subcommands: [
            DemoCommand.self, GenerateCommand.self, ChatCommand.self, InspectCommand.self, TokenizeCommand.self,
            CompileCommand.self, DoctorCommand.self, RanksCommand.self,
        ])

    /// Runs the command line; errors are one line on standard error.
    static func main() async {
        do {
            var command = try parseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch {
            finish(error)
        }
    }

    private static func finish(_ error: any Error) -> Never {
        let code = exitCode(for: error)
        // Help, version, completions and plain exit codes are the library's to print.
        if code == .success || error is ExitCode { exit(withError: error) }
        if code == .validationFailure {
            let text = fullMessage(for: error)
            Terminal.writeError((text.hasPrefix("Error: ") ? "error: " + text.dropFirst(7) : text) + "\n")
        } else {
            Terminal.writeError("error: \(describe(error))\n")
        }
        exit(withError: code)
    }

    /// The error in words; further lines are indented.
    static func describe(_ error: any Error) -> String {
        message(for: error).split(separator: "\n", omittingEmptySubsequences: true).joined(separator: "\n  ")
    }
}

/// Something the user has to change, in one sentence.
struct CommandError: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}
