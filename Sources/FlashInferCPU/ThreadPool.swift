internal import CFlashInferCPU
internal import FlashInferCore
internal import Synchronization

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#elseif canImport(Darwin)
    internal import Darwin
#endif

/// Persistent threads that run one closure side by side.
///
/// A decode step of a small model is hundreds of parallel regions of tens of microseconds each, so waiting threads first spin
/// for about the length of such a gap, and only then sleep.
public final class ThreadPool: Sendable {
    /// The number of workers, the calling thread included.
    public let threads: Int

    private let shared: Shared

    /// Starts `threads − 1` threads, or fewer where the system does not give so many; the caller of ``run(_:)`` is worker 0.
    ///
    /// - Precondition: `threads` is at least 1.
    public init(threads: Int) {
        precondition(threads >= 1, "a pool has at least one worker")
        // Fewer threads give the same results, later: a container's limit on threads is no reason to end the process. Half as many at a
        // time, as the rest of the process needs threads too.
        var wanted = threads
        var shared = Shared()
        while !shared.start(workers: wanted - 1) {
            shared.stop()
            wanted /= 2
            shared = Shared()
        }
        self.shared = shared
        self.threads = wanted
    }

    deinit { shared.stop() }

    /// Calls `body` once for each worker number `0 ..< threads`, side by side, and returns when all calls have.
    ///
    /// Runs one region at a time: concurrent callers take turns. `body` must not call `run` of the same pool.
    public func run(_ body: (_ worker: Int) -> Void) {
        if threads == 1 { return body(0) }
        withoutActuallyEscaping(body) { shared.run($0) }
    }
}

/// What the workers share. They hold it, not the pool, so that the pool's end can stop them.
private final class Shared: @unchecked Sendable {
    // Unchecked because `body` is a plain variable: it is written only while no worker runs, before `generation` is
    // released, and read only after `generation` was acquired.
    private var body: ((Int) -> Void)?
    private let generation = Atomic<Int>(0)
    private let running = Atomic<Int>(0)
    private let sleepers = Atomic<Int>(0)
    private let isStopping = Atomic<Bool>(false)
    /// Threads started; set before the first region.
    private(set) var workers = 0
    private let turn = Locked<Void>(())
    private let sleep = Monitor()

    func run(_ body: @escaping (Int) -> Void) {
        turn.withLock { _ in
            self.body = body
            running.store(workers, ordering: .relaxed)
            advance()
            body(0)
            // Workers are at most one region behind, so this wait is short; it never sleeps.
            var spins = 0
            while running.load(ordering: .acquiring) != 0 { pause(&spins) }
            self.body = nil
        }
    }

    func stop() {
        isStopping.store(true, ordering: .releasing)
        advance()
    }

    /// Starts the workers; false where the system gives no thread.
    func start(workers: Int) -> Bool {
        for worker in 0..<workers {
            guard let thread = SystemThread({ self.work(worker + 1) }) else { return false }
            thread.detach()
        }
        self.workers = workers
        return true
    }

    /// Opens the next region, and wakes those who sleep.
    private func advance() {
        // Sequentially consistent with `sleepers`: either this sees the sleeper, or the sleeper sees the new generation.
        generation.wrappingAdd(1, ordering: .sequentiallyConsistent)
        if sleepers.load(ordering: .sequentiallyConsistent) > 0 {
            sleep.withLock { sleep.wakeAll() }
        }
    }

    private func work(_ worker: Int) {
        var seen = 0
        while true {
            wait(after: seen)
            if isStopping.load(ordering: .acquiring) { return }
            seen += 1
            body?(worker)
            running.wrappingSubtract(1, ordering: .releasing)
        }
    }

    /// Returns once the generation is past `seen`.
    private func wait(after seen: Int) {
        var spins = 0
        while spins < Self.spinLimit {
            if generation.load(ordering: .acquiring) != seen { return }
            pause(&spins)
        }
        sleep.withLock {
            sleepers.wrappingAdd(1, ordering: .sequentiallyConsistent)
            while generation.load(ordering: .sequentiallyConsistent) == seen { sleep.wait() }
            sleepers.wrappingSubtract(1, ordering: .sequentiallyConsistent)
        }
    }

    /// About 50 µs of spinning, the longest serial gap inside a decode step, before a thread sleeps.
    private static let spinLimit = 4_000

    /// One turn of a spin loop; gives the processor away now and then, for machines with fewer cores than threads.
    private func pause(_ spins: inout Int) {
        spins += 1
        if spins % 1_024 == 0 { sched_yield() } else { fi_spin_hint() }
    }
}
