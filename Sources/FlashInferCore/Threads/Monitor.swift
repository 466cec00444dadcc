#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#elseif canImport(Darwin)
    internal import Darwin
#endif

/// A lock, and a place to wait for what others change under it.
///
/// For state that threads wait on; what they only take turns at is ``Locked``. POSIX for the same reason.
package final class Monitor: @unchecked Sendable {
    // Unchecked because the compiler cannot see that POSIX's functions may be called on these from any thread.
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

    package init() {
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    /// Calls `body` while no other thread is in one of this monitor's bodies, but for those that wait there.
    package func withLock<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return try body()
    }

    /// Sleeps until another thread wakes it, or for no reason: ask again for what is waited for. Only within ``withLock(_:)``.
    package func wait() { pthread_cond_wait(condition, mutex) }

    /// Sleeps as ``wait()`` does, but for no longer than so many milliseconds.
    package func wait(milliseconds: Int32) {
        var end = timespec()
        clock_gettime(CLOCK_REALTIME, &end)
        let nanoseconds = Int(end.tv_nsec) + Int(milliseconds % 1000) * 1_000_000
        end.tv_sec += Int(milliseconds / 1000) + nanoseconds / 1_000_000_000
        end.tv_nsec = nanoseconds % 1_000_000_000
        pthread_cond_timedwait(condition, mutex, &end)
    }

    /// Wakes one that waits, after a change that only one can use.
    package func wakeOne() { pthread_cond_signal(condition) }

    /// Wakes all that wait.
    package func wakeAll() { pthread_cond_broadcast(condition) }
}
