import ArgumentParser
import Dispatch
import Foundation
import Synchronization

/// Ctrl-C, turned into an orderly end.
///
/// Until an action is set, the first Ctrl-C cancels the command's task (a download stops, a load is given up). With an
/// action, it runs the action instead, and the command winds up by itself. The second one ends the process at once.
final class Interrupt: Sendable {
    /// The exit status of a command that ended by Ctrl-C: 128 and the number of the signal.
    static let exitStatus: Int32 = 130

    private struct State {
        var isSet = false
        var action: (@Sendable () -> Void)?
    }

    private let state = Mutex(State())

    /// Whether Ctrl-C was pressed since the start, or since ``reset()``.
    var isSet: Bool { state.withLock { $0.isSet } }

    /// What Ctrl-C does from now on; nil for cancelling the task.
    func setAction(_ action: (@Sendable () -> Void)?) { state.withLock { $0.action = action } }

    /// Forgets a Ctrl-C that was dealt with.
    func reset() { state.withLock { $0.isSet = false } }

    /// Runs `body` with Ctrl-C watched; it may look at the interrupt it is given.
    static func watching<Result: Sendable>(
        _ body: @escaping @Sendable (Interrupt) async throws -> Result
    ) async throws -> Result {
        let interrupt = Interrupt()
        let task = Task { try await body(interrupt) }
        signal(SIGINT, SIG_IGN)
        let source = DispatchSource.makeSignalSource(
            signal: SIGINT, queue: DispatchQueue(label: "flashinfer.interrupt"))
        source.setEventHandler {
            let (again, action) = interrupt.state.withLock { state in
                defer { state.isSet = true }
                return (state.isSet, state.action)
            }
            if again { _exit(exitStatus) }
            if let action { action() } else { task.cancel() }
        }
        source.resume()
        defer { source.cancel() }
        do {
            return try await task.value
        } catch  where interrupt.isSet {
            // Whatever broke off did so because it was told to.
            throw ExitCode(exitStatus)
        }
    }
}
