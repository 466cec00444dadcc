internal import FlashInferCore
internal import Synchronization

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#elseif canImport(Darwin)
    internal import Darwin
#endif

/// Jobs that take long, on threads of their own.
package enum ParallelWork {
    /// Processors this process may run on.
    package static var processors: Int { max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))) }

    /// The compiler recurses deeply in large kernels; threads of a library need not have a main thread's stack.
    private static let stackByteCount = 64 << 20

    private final class Jobs: Sendable {
        let next = Atomic(0)
        let count: Int
        let body: @Sendable (Int) -> Void

        init(count: Int, body: @escaping @Sendable (Int) -> Void) {
            self.count = count
            self.body = body
        }

        func run() {
            while true {
                let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
                guard index < count else { return }
                body(index)
            }
        }
    }

    /// Calls `body` with each of `0 ..< count`, on up to `threads` threads at a time; returns when all have ended.
    package static func forEach(
        _ count: Int, threads: Int = ParallelWork.processors, _ body: @escaping @Sendable (Int) -> Void
    ) {
        let jobs = Jobs(count: count, body: body)
        let running = (0..<min(threads, count)).compactMap { _ in
            SystemThread(stackByteCount: stackByteCount) { jobs.run() }
        }
        // Where no thread can be had, this one does it all.
        if running.isEmpty { jobs.run() }
        for thread in running { thread.join() }
    }
}
