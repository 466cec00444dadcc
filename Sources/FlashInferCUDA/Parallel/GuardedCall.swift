internal import FlashInferCore
internal import Synchronization

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#elseif canImport(Darwin)
    internal import Darwin
#endif

/// Calls that may never return, as a collective does whose other ranks are gone.
enum GuardedCall {
    private final class Call<Result: Sendable>: Sendable {
        let body: @Sendable () -> Result
        let result = Locked<Result?>(nil)
        let isDone = Atomic(false)

        init(_ body: @escaping @Sendable () -> Result) { self.body = body }

        func run() {
            let value = body()
            result.withLock { $0 = value }
            isDone.store(true, ordering: .releasing)
        }
    }

    /// Runs `body` on a thread of its own and waits for it.
    ///
    /// - Returns: `nil` where it has not returned after `timeout`; its thread then goes on by itself, and keeps what it uses.
    static func run<Result: Sendable>(
        timeout: Duration, _ body: @escaping @Sendable () -> Result
    ) -> Result? {
        let call = Call(body)
        guard let thread = SystemThread({ call.run() }) else { return body() }
        let clock = ContinuousClock()
        let end = clock.now + timeout
        while !call.isDone.load(ordering: .acquiring) {
            if clock.now > end {
                thread.detach()
                return nil
            }
            usleep(200)
        }
        // What libraries keep for a thread goes with it: not while the process is already ending.
        thread.join()
        return call.result.withLock { $0 }
    }
}
