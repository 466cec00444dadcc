internal import DequeModule
internal import FlashInferCore

#if canImport(Darwin)
    internal import Darwin
#elseif canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#endif

/// Runs the jobs of tasks that prefer it on one thread of its own, in order.
///
/// Model steps block for milliseconds to seconds. On Swift's cooperative pool, which has one thread per core, they
/// would hold up every other task of the program; on this thread they hold up nothing. The thread starts with the
/// executor and ends with it.
public final class ThreadExecutor: TaskExecutor {
    private let queue = JobQueue()

    /// Starts the thread.
    public init() {
        let queue = self.queue
        startThread { queue.runJobs() }
    }

    deinit { queue.stop() }

    /// Puts a job at the end of the thread's queue.
    public func enqueue(_ job: consuming ExecutorJob) {
        queue.append(Job(unowned: UnownedJob(job), executor: self))
    }
}

/// A job, and the executor it must be run on, kept alive until then.
private struct Job {
    let unowned: UnownedJob
    let executor: ThreadExecutor

    func run() { unowned.runSynchronously(on: executor.asUnownedTaskExecutor()) }
}

/// The queue between the tasks and the thread.
///
/// Unchecked: `jobs` and `isStopped` are only touched within the monitor.
private final class JobQueue: @unchecked Sendable {
    private let monitor = Monitor()
    private var jobs: Deque<Job> = []
    private var isStopped = false

    func append(_ job: Job) {
        monitor.withLock {
            jobs.append(job)
            monitor.wakeOne()
        }
    }

    func stop() {
        monitor.withLock {
            isStopped = true
            monitor.wakeOne()
        }
    }

    /// The thread's life. Jobs keep their executor alive, so when the executor is gone there are none left.
    func runJobs() {
        while let job = next() { job.run() }
    }

    private func next() -> Job? {
        monitor.withLock {
            while jobs.isEmpty, !isStopped { monitor.wait() }
            return jobs.popFirst()
        }
    }
}

/// Runs `body` on a thread of its own after every `interval` until it says that there is no point in another time.
///
/// For what must happen even while every thread of Swift's pool is busy.
func repeatOnThread(every interval: Duration, _ body: @escaping @Sendable () -> Bool) {
    let (seconds, attoseconds) = interval.components
    startThread {
        repeat {
            var time = timespec(tv_sec: Int(seconds), tv_nsec: Int(attoseconds / 1_000_000_000))
            var rest = timespec()
            while nanosleep(&time, &rest) != 0, errno == EINTR { time = rest }
        } while body()
    }
}

/// Starts a thread that runs `body` once, and that nothing waits for.
private func startThread(_ body: @escaping @Sendable () -> Void) {
    guard let thread = SystemThread(body) else { preconditionFailure("the system gives no thread") }
    thread.detach()
}
