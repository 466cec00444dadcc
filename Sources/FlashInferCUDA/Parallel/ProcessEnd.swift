internal import FlashInferCore

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#elseif canImport(Darwin)
    internal import Darwin
#endif

/// Keeps calls that close something of a library apart from what the library does itself when the process ends.
///
/// `exit` takes libraries down on its own thread while others go on, one of which may just be letting the last reference go: NCCL's
/// communicators must not be destroyed beside that.
package enum ProcessEnd {
    private struct State {
        var isReached = false
        var calls = 0
    }

    private static let state = Locked(State())

    /// Once, after the library was loaded: what is registered last is done first.
    private static let registration: Void = {
        atexit {
            ProcessEnd.state.withLock { $0.isReached = true }
            // A call that does not return is a collective whose other ranks are gone; it is left behind.
            for _ in 0..<50_000 where ProcessEnd.state.withLock({ $0.calls }) > 0 { usleep(200) }
        }
    }()

    /// To be called when the library is loaded.
    package static func watch() { registration }

    /// Runs `body`, for which the process's end waits; not at all once that has begun, as it closes everything.
    package static func before(_ body: () -> Void) {
        let isOpen = state.withLock { state in
            if !state.isReached { state.calls += 1 }
            return !state.isReached
        }
        guard isOpen else { return }
        body()
        state.withLock { $0.calls -= 1 }
    }
}
