internal import FlashInferCore
internal import Synchronization

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#elseif canImport(Darwin)
    internal import Darwin
#endif

/// Who may use a stream: any number of threads, or the one that records a graph.
///
/// What another thread enqueued on a stream that is being recorded would become part of the graph: a copy to its memory would run at
/// every replay, long after that memory was freed. So whoever enters while a thread records waits until it has ended, and a recording
/// starts when all who were inside have left. Entering and leaving cost one atomic addition each.
///
/// Enter before any lock that a recording thread may want, and once a call: who is inside already would wait for itself.
package final class CaptureGate: Sendable {
    /// How many are inside, and ``closed``.
    private let state = Atomic(0)
    /// The thread that records, or waits to; 0 where there is none.
    private let owner = Atomic<UInt>(0)
    /// Held by the thread that records.
    private let turn = Locked(())

    private static let closed = 1 << 62

    package init() {}

    /// Whether this thread records.
    package var isMine: Bool {
        state.load(ordering: .relaxed) >= Self.closed && owner.load(ordering: .relaxed) == CurrentThread.id
    }

    /// Runs `body` when no other thread records; the thread that records comes in at any time.
    @inline(__always)
    package func inside<Result: ~Copyable, Failure: Error>(
        _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let isCounted = enter()
        defer { if isCounted { state.subtract(1, ordering: .releasing) } }
        return try body()
    }

    /// Runs `body` unless a thread records, this one included, or waits to.
    ///
    /// - Returns: whether it ran. Never waits, so it may be called from inside.
    package func insideIfOpen(_ body: () -> Void) -> Bool {
        if state.add(1, ordering: .acquiring).oldValue >= Self.closed {
            state.subtract(1, ordering: .relaxed)
            return false
        }
        body()
        state.subtract(1, ordering: .releasing)
        return true
    }

    /// Runs `body` with nobody else inside.
    ///
    /// - Precondition: this thread is not inside.
    package func alone<Result: ~Copyable, Failure: Error>(
        _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try turn.withLock { (_) throws(Failure) -> Result in
            owner.store(CurrentThread.id, ordering: .relaxed)
            state.add(Self.closed, ordering: .relaxed)
            defer {
                owner.store(0, ordering: .relaxed)
                state.subtract(Self.closed, ordering: .releasing)
            }
            // Calls of the driver end soon, but one may wait for the GPU or for a compiler.
            var pause: UInt32 = 0
            while state.load(ordering: .acquiring) != Self.closed {
                if pause == 0 { sched_yield() } else { usleep(pause) }
                pause = min(pause + 1, 100)
            }
            return try body()
        }
    }

    /// Counts this thread in; false where it records, so that nobody waits for it.
    @inline(__always)
    private func enter() -> Bool {
        if state.add(1, ordering: .acquiring).oldValue < Self.closed { return true }
        return enterLater()
    }

    @inline(never)
    private func enterLater() -> Bool {
        repeat {
            state.subtract(1, ordering: .relaxed)
            if owner.load(ordering: .relaxed) == CurrentThread.id { return false }
            // Until the recording has ended.
            turn.withLock { _ in }
        } while state.add(1, ordering: .acquiring).oldValue >= Self.closed
        return true
    }
}
