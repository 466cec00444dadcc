public import FlashInferCore

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#elseif canImport(Darwin)
    internal import Darwin
#endif

/// Ranks that are threads of one process: collectives on host memory, for tests, and for one process with several devices.
///
/// ```swift
/// let ranks = ThreadCommunicator.ranks(4)   // one for each thread
/// ```
public final class ThreadCommunicator: Communicator {
    /// This rank.
    public let rank: Int
    /// The number of ranks.
    public var worldSize: Int { meeting.worldSize }
    /// The CPU.
    public var device: DeviceID { .cpu }

    private let meeting: Meeting

    private init(rank: Int, meeting: Meeting) { (self.rank, self.meeting) = (rank, meeting) }

    /// As many ranks as are wanted, each to be used by a thread of its own.
    ///
    /// - Parameter timeout: how long a collective waits for the others.
    /// - Precondition: `count` is 1 or more.
    public static func ranks(_ count: Int, timeout: Duration = .seconds(60)) -> [ThreadCommunicator] {
        precondition(count >= 1, "a world has a rank")
        let meeting = Meeting(worldSize: count, timeout: timeout)
        return (0..<count).map { ThreadCommunicator(rank: $0, meeting: meeting) }
    }

    /// A rank that goes leaves the others nobody to wait for.
    deinit { meeting.leave(rank) }

    /// Gathers every rank's part; returns when it is there.
    public func allGather(_ source: MemoryRegion, into destination: MemoryRegion) throws(FlashInferError) {
        try checkAllGather(source, destination)
        try meeting.meet(rank, Post(call: "all-gather", region: source)) { (posts) throws(FlashInferError) in
            for (other, post) in posts.enumerated() where post.region.byteCount != posts[0].region.byteCount {
                throw .rankMismatch(
                    "bytes of all-gather", rank: other, found: "\(post.region.byteCount)",
                    expected: "\(posts[0].region.byteCount), as on rank 0")
            }
            for (other, post) in posts.enumerated() {
                copy(post.region, to: destination.address + UInt(other * source.byteCount))
            }
        }
    }

    /// Sends to the next rank and receives from the one before; returns when both are done.
    public func passOn(_ source: MemoryRegion, receiving destination: MemoryRegion) throws(FlashInferError) {
        try checkPassOn(source, destination)
        guard worldSize > 1 else {
            throw .unsupported("a ring of one rank", device: "\(device)", nearest: "two ranks or more")
        }
        let post = Post(call: "a step round the ring", region: source, wanted: destination.byteCount)
        try meeting.meet(rank, post) { (posts) throws(FlashInferError) in
            for other in posts.indices {
                let (sent, wanted) = (posts[other].region.byteCount, posts[(other + 1) % posts.count].wanted)
                guard sent == wanted else {
                    throw .rankMismatch(
                        "bytes of a step round the ring", rank: other, found: "\(sent)",
                        expected: "\(wanted), as rank \((other + 1) % posts.count) waits for")
                }
            }
            copy(posts[previousRank].region, to: destination.address)
        }
    }

    /// Gathers a message of every rank.
    public func gatherMessages(_ message: [UInt8]) throws(FlashInferError) -> [[UInt8]] {
        var messages: [[UInt8]] = []
        let nothing = MemoryRegion(address: 0, byteCount: 0, device: .cpu)
        try meeting.meet(rank, Post(call: "gathering messages", region: nothing, message: message)) {
            messages = $0.map(\.message)
        }
        return messages
    }

    /// A rank whose communicator has gone, or that has left.
    public var departedRank: Int? { meeting.departedRank }

    /// Leaves the others nobody to wait for.
    public func leave() { meeting.leave(rank) }

    private func copy(_ source: MemoryRegion, to address: UInt) {
        guard source.byteCount > 0, source.address != address, let from = UnsafeRawPointer(bitPattern: source.address),
            let to = UnsafeMutableRawPointer(bitPattern: address)
        else { return }
        memmove(to, from, source.byteCount)
    }
}

/// What a rank brings to a collective.
private struct Post {
    var call: String
    var region: MemoryRegion
    /// Bytes that it waits for, of a step round the ring.
    var wanted = 0
    var message: [UInt8] = []
}

/// Where threads wait for each other.
private final class Meeting: @unchecked Sendable {
    // Unchecked because the compiler cannot see that the mutex guards the state.

    let worldSize: Int
    private let timeout: Duration
    private let monitor = Monitor()
    private var posts: [Post?]
    /// Who has used the posts.
    private var isBack: [Bool]
    private var arrived = 0
    private var round = 0
    private var failure: FlashInferError?
    private var departed: Int?

    init(worldSize: Int, timeout: Duration) {
        self.worldSize = worldSize
        self.timeout = timeout
        posts = [Post?](repeating: nil, count: worldSize)
        isBack = [Bool](repeating: false, count: worldSize)
    }

    /// Shows every rank's post to every rank; returns when all have used them.
    func meet(
        _ rank: Int, _ post: Post, _ body: ([Post]) throws(FlashInferError) -> Void
    ) throws(FlashInferError) {
        let deadline = Deadline(after: timeout)
        try arrive(rank, post, post.call, deadline)
        // Nobody changes the posts until all have arrived again.
        let posts = self.posts.map { $0! }
        var mismatch: FlashInferError?
        for (other, found) in posts.enumerated() where found.call != posts[0].call {
            mismatch =
                mismatch
                ?? .rankMismatch(
                    "collective", rank: other, found: found.call, expected: "\(posts[0].call), as on rank 0")
        }
        if mismatch == nil { do throws(FlashInferError) { try body(posts) } catch { mismatch = error } }
        try arrive(rank, nil, post.call, deadline)
        if let mismatch { throw mismatch }
    }

    /// Waits until all ranks are here.
    private func arrive(_ rank: Int, _ post: Post?, _ call: String, _ deadline: Deadline) throws(FlashInferError) {
        try monitor.withLock { () throws(FlashInferError) in try arriveLocked(rank, post, call, deadline) }
    }

    private func arriveLocked(
        _ rank: Int, _ post: Post?, _ call: String, _ deadline: Deadline
    ) throws(FlashInferError) {
        if let failure { throw failure }
        if let post { posts[rank] = post } else { isBack[rank] = true }
        arrived += 1
        if arrived == worldSize {
            arrived = 0
            round += 1
            isBack = [Bool](repeating: false, count: worldSize)
            if post == nil { posts = [Post?](repeating: nil, count: worldSize) }
            monitor.wakeAll()
            return
        }
        let own = round
        while round == own {
            if let failure { throw failure }
            let left = deadline.milliseconds
            if left == 0 {
                let late = posts.indices.first { post == nil ? !isBack[$0] : posts[$0] == nil } ?? rank
                failure = .rankFailure(
                    rank: late, call: call,
                    message: "it did not come \(deadline.text); it is slow, has stopped, or makes other calls")
                monitor.wakeAll()
                continue
            }
            monitor.wait(milliseconds: left)
        }
    }

    var departedRank: Int? { monitor.withLock { departed } }

    /// A rank will not come again.
    func leave(_ rank: Int) {
        monitor.withLock {
            departed = departed ?? rank
            failure = failure ?? .rankFailure(rank: rank, call: "a collective", message: "it has ended")
            monitor.wakeAll()
        }
    }
}
