internal import FlashInferCore

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#elseif canImport(Darwin)
    internal import Darwin
#endif

/// The graphs that are being recorded anywhere in the process, for calls that wait for the whole GPU.
///
/// Opening and closing cuBLASLt synchronises the context, and that invalidates every recording in it, those of other devices and
/// threads included (seen on an H200: `cuCtxSynchronize` fails with 900, and then the recording's next launch with 901).
package final class Recordings: Sendable {
    package static let ofProcess = Recordings()

    private struct State: ~Copyable {
        /// The thread of each recording.
        var threads: [UInt] = []
        /// What waits for the last of them to end.
        var late: [@Sendable () -> Void] = []
    }

    private let state = Locked(State())

    package init() {}

    /// Runs `body`, which records on this thread.
    package func during<Result: ~Copyable, Failure: Error>(
        _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        state.withLock { $0.threads.append(CurrentThread.id) }
        defer {
            state.withLock { state in
                state.threads.remove(at: state.threads.firstIndex(of: CurrentThread.id)!)
                guard state.threads.isEmpty else { return }
                for call in state.late { call() }
                state.late = []
            }
        }
        return try body()
    }

    /// Runs `body` while no other thread records; none begins meanwhile. `body` records nothing.
    package func whenOthersHaveEnded<Failure: Error>(_ body: () throws(Failure) -> Void) throws(Failure) {
        let own = CurrentThread.id
        while true {
            let ran = try state.withLock { (state) throws(Failure) -> Bool in
                guard state.threads.allSatisfy({ $0 == own }) else { return false }
                try body()
                return true
            }
            if ran { return }
            // A recording ends soon, but may wait for a compiler.
            usleep(100)
        }
    }

    /// Runs `body` now, or on the thread whose recording ends last. Never waits, so a deinitialiser may call it.
    package func afterAll(_ body: @escaping @Sendable () -> Void) {
        state.withLock { state in
            if state.threads.isEmpty { body() } else { state.late.append(body) }
        }
    }
}
