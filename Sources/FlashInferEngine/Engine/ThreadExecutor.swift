internal import DequeModule

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
/// Unchecked: `jobs` and `isStopped` are only touched with `mutex` locked, and the two pointers never change.
private final class JobQueue: @unchecked Sendable {
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var jobs: Deque<Job> = []
    private var isStopped = false

    init() {
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    func append(_ job: Job) {
        pthread_mutex_lock(mutex)
        jobs.append(job)
        pthread_cond_signal(condition)
        pthread_mutex_unlock(mutex)
    }

    func stop() {
        pthread_mutex_lock(mutex)
        isStopped = true
        pthread_cond_signal(condition)
        pthread_mutex_unlock(mutex)
    }

    /// The thread's life. Jobs keep their executor alive, so when the executor is gone there are none left.
    func runJobs() {
        while let job = next() { job.run() }
    }

    private func next() -> Job? {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while jobs.isEmpty, !isStopped { pthread_cond_wait(condition, mutex) }
        return jobs.popFirst()
    }
}

/// The closure a new thread runs, boxed to pass through a C pointer.
private final class ThreadBody {
    let run: () -> Void

    init(run: @escaping () -> Void) { self.run = run }
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

/// Starts a detached thread that runs `body` once.
private func startThread(_ body: @escaping @Sendable () -> Void) {
    let boxed = Unmanaged.passRetained(ThreadBody(run: body))
    #if canImport(Darwin)
        var thread: pthread_t?
        let status = pthread_create(&thread, nil, { runThread(Unmanaged.fromOpaque($0)) }, boxed.toOpaque())
        guard status == 0, let thread else { preconditionFailure("cannot start a thread: error \(status)") }
    #else
        var thread = pthread_t()
        let status = pthread_create(&thread, nil, { runThread(Unmanaged.fromOpaque($0!)) }, boxed.toOpaque())
        guard status == 0 else { preconditionFailure("cannot start a thread: error \(status)") }
    #endif
    pthread_detach(thread)
}

private func runThread(_ boxed: Unmanaged<ThreadBody>) -> UnsafeMutableRawPointer? {
    boxed.takeRetainedValue().run()
    return nil
}
