#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#elseif canImport(Darwin)
    internal import Darwin
#endif

/// A thread of the operating system's, for what would hold up Swift's own: it ends when its body returns.
///
/// Either ``join()`` or ``detach()`` must be called, once.
package final class SystemThread: @unchecked Sendable {
    // Unchecked because a thread's name is a pointer on some systems; it may be joined from any thread.
    private let thread: pthread_t

    /// Starts a thread that runs `body`.
    ///
    /// - Parameter stackByteCount: The size of its stack; the system's usual one where this is `nil`.
    /// - Returns: `nil` where the system gives no more threads; `body` has not been run then.
    package init?(stackByteCount: Int? = nil, _ body: @escaping @Sendable () -> Void) {
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        defer { pthread_attr_destroy(&attributes) }
        if let stackByteCount { pthread_attr_setstacksize(&attributes, stackByteCount) }
        let boxed = Unmanaged.passRetained(ThreadBody(run: body))
        #if canImport(Darwin)
            var started: pthread_t?
            let status = pthread_create(&started, &attributes, { runBody($0) }, boxed.toOpaque())
            let thread = started
        #else
            var started = pthread_t()
            let status = pthread_create(&started, &attributes, { runBody($0) }, boxed.toOpaque())
            let thread = Optional(started)
        #endif
        guard status == 0, let thread else {
            boxed.release()
            return nil
        }
        self.thread = thread
    }

    /// Waits for the body's end.
    package func join() { pthread_join(thread, nil) }

    /// Lets the thread go on by itself.
    package func detach() { pthread_detach(thread) }
}

/// The closure that a new thread runs, boxed to pass through a C pointer.
private final class ThreadBody: Sendable {
    let run: @Sendable () -> Void

    init(run: @escaping @Sendable () -> Void) { self.run = run }
}

private func runBody(_ boxed: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    if let boxed { Unmanaged<ThreadBody>.fromOpaque(boxed).takeRetainedValue().run() }
    return nil
}
