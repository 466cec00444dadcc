#if canImport(Glibc)
    package import Glibc
#elseif canImport(Musl)
    package import Musl
#elseif canImport(Darwin)
    package import Darwin
#endif

/// A value that one thread at a time may use.
///
/// A POSIX mutex and not `Synchronization.Mutex`, whose lock is inside the standard library where ThreadSanitizer cannot see it: with
/// this one, everything guarded is checked too. Inlinable, because a launch takes several of these and each module that uses it would
/// otherwise call it unspecialised.
package final class Locked<Value: ~Copyable>: @unchecked Sendable {
    // Unchecked because the compiler cannot see that the mutex guards the value.
    @usableFromInline internal var value: Value
    @usableFromInline internal let mutex: UnsafeMutablePointer<pthread_mutex_t>

    @inlinable package init(_ value: consuming sending Value) {
        self.value = value
        mutex = .allocate(capacity: 1)
        pthread_mutex_init(mutex, nil)
    }

    @inlinable deinit {
        pthread_mutex_destroy(mutex)
        mutex.deallocate()
    }

    /// Calls `body` with the value, alone.
    @inlinable package func withLock<Result: ~Copyable, Failure: Error>(
        _ body: (inout Value) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return try body(&value)
    }

    /// Calls `body` with the value, alone, unless another thread has it just now.
    @inlinable package func withLockIfAvailable<Result, Failure: Error>(
        _ body: (inout Value) throws(Failure) -> Result
    ) throws(Failure) -> Result? {
        guard pthread_mutex_trylock(mutex) == 0 else { return nil }
        defer { pthread_mutex_unlock(mutex) }
        return try body(&value)
    }
}
