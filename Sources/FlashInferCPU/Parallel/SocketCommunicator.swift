internal import CRanks
public import FlashInferCore

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#elseif canImport(Darwin)
    internal import Darwin
#endif

/// Ranks that are processes, on one machine or several, joined by TCP: collectives on host memory.
///
/// Every pair of ranks has a connection, so a rank that ends is noticed by all at once. Nothing is encrypted and nobody is asked who he
/// is: for networks that the ranks have to themselves. What fails leaves the communicator of no use: later calls throw the same.
///
/// ```swift
/// let ranks = try SocketCommunicator(.current)   // in each of the processes that torchrun, or another launcher, has started
/// let greetings = try ranks.gatherMessages(Array("hello".utf8))
/// ```
public final class SocketCommunicator: Communicator {
    /// This rank.
    public let rank: Int
    /// The number of ranks.
    public let worldSize: Int
    /// The CPU.
    public var device: DeviceID { .cpu }
    /// How long a collective waits for the other ranks.
    public let timeout: Duration

    private struct State {
        /// A connection to every other rank, -1 for this one; empty once something failed.
        var sockets: [Int32]
        /// The number of collectives so far, which all ranks count alike.
        var sequence: UInt64 = 0
        var failure: FlashInferError?
    }

    private let state: Locked<State>

    /// What a collective says before its data, so that ranks that disagree find out.
    private enum Collective: UInt64 {
        case allGather = 1
        case passOn, messages

        var text: String {
            switch self {
            case .allGather: "all-gather"
            case .passOn: "a step round the ring"
            case .messages: "gathering messages"
            }
        }
    }

    /// How long a failure is looked into before it is thrown.
    private static let settlingMicroseconds: UInt32 = 100_000

    /// Collective, sequence, bytes sent, bytes wanted.
    private static let headerByteCount = 32

    /// Meets the other ranks at the environment's address; returns when all are connected.
    ///
    /// - Parameter timeout: how long to wait for the others, here and in each collective.
    /// - Throws: ``FlashInferError/invalidArgument(_:found:expected:)`` for an address or port that is of no use,
    ///   ``FlashInferError/rankMismatch(_:rank:found:expected:)`` where processes disagree, and
    ///   ``FlashInferError/rankFailure(rank:call:message:)`` for a rank that does not come.
    public init(_ environment: RankEnvironment, timeout: Duration = .seconds(60)) throws(FlashInferError) {
        (rank, worldSize, self.timeout) = (environment.rank, environment.worldSize, timeout)
        // A wait is on every rank's socket, of which C takes 1,024.
        guard worldSize <= 1000 else {
            throw .invalidArgument("WORLD_SIZE", found: "\(worldSize)", expected: "1000 or fewer over sockets")
        }
        let sockets = worldSize == 1 ? [-1] : try Rendezvous.meet(environment, Deadline(after: timeout))
        state = Locked(State(sockets: sockets))
    }

    deinit { state.withLock { Self.close(&$0) } }

    private static func close(_ state: inout State) {
        for socket in state.sockets where socket >= 0 { fi_socket_close(socket) }
        state.sockets = []
    }

    /// Gathers every rank's part; returns when it is there.
    public func allGather(_ source: MemoryRegion, into destination: MemoryRegion) throws(FlashInferError) {
        try checkAllGather(source, destination)
        let size = source.byteCount
        let own = UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: source.address), count: size)
        func place(_ rank: Int) -> UnsafeMutableRawBufferPointer {
            UnsafeMutableRawBufferPointer(
                start: UnsafeMutableRawPointer(bitPattern: destination.address + UInt(rank * size)), count: size)
        }
        try perform(.allGather) { (state, deadline) throws(FlashInferError) in
            let others = self.others
            try greet(state, .allGather, others, sent: { _ in size }, wanted: { _ in size }, deadline)
            if size > 0, let from = own.baseAddress, let to = place(rank).baseAddress, from != UnsafeRawPointer(to) {
                memmove(to, from, size)
            }
            try SocketExchange.run(
                others.map {
                    SocketJob(rank: $0, socket: state.sockets[$0], outgoing: own, incoming: place($0))
                }, call: Collective.allGather.text, deadline)
        }
    }

    /// Sends to the next rank and receives from the one before; returns when both are done.
    public func passOn(_ source: MemoryRegion, receiving destination: MemoryRegion) throws(FlashInferError) {
        try checkPassOn(source, destination)
        guard worldSize > 1 else {
            throw .unsupported("a ring of one rank", device: "\(device)", nearest: "two ranks or more")
        }
        let outgoing = UnsafeRawBufferPointer(
            start: UnsafeRawPointer(bitPattern: source.address), count: source.byteCount)
        let incoming = UnsafeMutableRawBufferPointer(
            start: UnsafeMutableRawPointer(bitPattern: destination.address), count: destination.byteCount)
        let (next, previous) = (nextRank, previousRank)
        try perform(.passOn) { (state, deadline) throws(FlashInferError) in
            try greet(
                state, .passOn, next == previous ? [next] : [next, previous],
                sent: { $0 == next ? outgoing.count : 0 }, wanted: { $0 == previous ? incoming.count : 0 }, deadline)
            let nothing = UnsafeMutableRawBufferPointer(start: nil, count: 0)
            var jobs = [
                SocketJob(
                    rank: next, socket: state.sockets[next], outgoing: outgoing,
                    incoming: next == previous ? incoming : nothing)
            ]
            if next != previous {
                jobs.append(
                    SocketJob(
                        rank: previous, socket: state.sockets[previous], outgoing: UnsafeRawBufferPointer(nothing),
                        incoming: incoming))
            }
            try SocketExchange.run(jobs, call: Collective.passOn.text, deadline)
        }
    }

    /// Gathers a message of every rank.
    public func gatherMessages(_ message: [UInt8]) throws(FlashInferError) -> [[UInt8]] {
        var messages = [[UInt8]](repeating: [], count: worldSize)
        messages[rank] = message
        try perform(.messages) { (state, deadline) throws(FlashInferError) in
            let others = self.others
            let sizes = try greet(
                state, .messages, others, sent: { _ in message.count }, wanted: { _ in nil }, deadline)
            for other in others { messages[other] = [UInt8](repeating: 0, count: sizes[other]) }
            let received = UnsafeMutablePointer<UnsafeMutableRawBufferPointer>.allocate(capacity: worldSize)
            defer { received.deallocate() }
            for other in 0..<worldSize {
                received[other] = .allocate(byteCount: max(sizes[other], 1), alignment: 8)
            }
            defer { for other in 0..<worldSize { received[other].deallocate() } }
            let result: Result<Void, FlashInferError> = message.withUnsafeBytes { bytes in
                Result { () throws(FlashInferError) in
                    try SocketExchange.run(
                        others.map {
                            SocketJob(
                                rank: $0, socket: state.sockets[$0], outgoing: bytes,
                                incoming: UnsafeMutableRawBufferPointer(rebasing: received[$0][..<sizes[$0]]))
                        }, call: Collective.messages.text, deadline)
                }
            }
            try result.get()
            for other in others { messages[other] = Array(received[other][..<sizes[other]]) }
        }
        return messages
    }

    /// A rank whose connection is closed; `nil` also while a collective is on its way, which notices it itself.
    public var departedRank: Int? {
        state.withLockIfAvailable { state -> Int? in
            state.sockets.firstIndex { $0 >= 0 && fi_socket_is_closed($0) != 0 }
        } ?? nil
    }

    /// Closes the connections, once a collective that is on its way has ended.
    public func leave() {
        state.withLock { state in
            let left = FlashInferError.rankFailure(rank: rank, call: "a collective", message: "it has left the others")
            state.failure = state.failure ?? left
            Self.close(&state)
        }
    }

    private var others: [Int] { (0..<worldSize).filter { $0 != rank } }

    /// Runs a collective; what it throws is kept, and the connections are closed, so that the other ranks notice.
    private func perform(
        _ collective: Collective, _ body: (inout State, Deadline) throws(FlashInferError) -> Void
    ) throws(FlashInferError) {
        try state.withLock { (state) throws(FlashInferError) in
            if let failure = state.failure { throw failure }
            state.sequence += 1
            do throws(FlashInferError) {
                try body(&state, Deadline(after: timeout))
            } catch {
                let failure = Self.naming(everyRankGoneIn: state, error)
                state.failure = failure
                Self.close(&state)
                throw failure
            }
        }
    }

    /// A failure that names all ranks that are gone: where one ends, the others close their connections because of it, and which
    /// of them is noticed first is chance.
    private static func naming(everyRankGoneIn state: State, _ error: FlashInferError) -> FlashInferError {
        guard case .rankFailure(let rank, let call, let message) = error else { return error }
        // The system closes the connections of a process that ends one by one, and others may have failed because of the first.
        usleep(settlingMicroseconds)
        let others = state.sockets.indices.filter {
            $0 != rank && state.sockets[$0] >= 0 && SocketExchange.isGone(state.sockets[$0])
        }
        guard !others.isEmpty else { return error }
        let names = others.map(String.init).joined(separator: ", ")
        return .rankFailure(
            rank: rank, call: call,
            message: "\(message); rank\(others.count == 1 ? " \(names) is" : "s \(names) are") gone, too")
    }

    /// Tells some ranks what comes, and checks that it is what they wait for.
    ///
    /// - Returns: `[worldSize]`: the bytes that each will send.
    @discardableResult
    private func greet(
        _ state: State, _ collective: Collective, _ ranks: [Int], sent: (Int) -> Int, wanted: (Int) -> Int?,
        _ deadline: Deadline
    ) throws(FlashInferError) -> [Int] {
        let size = Self.headerByteCount
        let any = UInt64.max
        let outgoing = ranks.flatMap { other in
            Wire([
                collective.rawValue, state.sequence, UInt64(sent(other)), wanted(other).map { UInt64($0) } ?? any,
            ]).bytes
        }
        var incoming = [UInt8](repeating: 0, count: outgoing.count)
        let result: Result<Void, FlashInferError> = outgoing.withUnsafeBytes { outgoing in
            incoming.withUnsafeMutableBytes { incoming in
                Result { () throws(FlashInferError) in
                    try SocketExchange.run(
                        ranks.enumerated().map { index, other in
                            let range = index * size..<(index + 1) * size
                            return SocketJob(
                                rank: other, socket: state.sockets[other],
                                outgoing: UnsafeRawBufferPointer(rebasing: outgoing[range]),
                                incoming: UnsafeMutableRawBufferPointer(rebasing: incoming[range]))
                        }, call: collective.text, deadline)
                }
            }
        }
        try result.get()
        var sizes = [Int](repeating: 0, count: worldSize)
        for (index, other) in ranks.enumerated() {
            let header = Array(incoming[index * size..<(index + 1) * size])
            let words = (0..<4).map { Wire.word($0, of: header) }
            guard words[0] == collective.rawValue, words[1] == state.sequence, words[2] < UInt64(Int64.max) else {
                let found = Collective(rawValue: words[0])?.text ?? "something unknown"
                throw .rankMismatch(
                    "collective \(state.sequence)", rank: other, found: found,
                    expected: "\(collective.text), as on rank \(rank)")
            }
            if let expected = wanted(other), Int(words[2]) != expected {
                throw .rankMismatch(
                    "bytes of \(collective.text)", rank: other, found: "\(words[2])",
                    expected: "\(expected), as rank \(rank) waits for")
            }
            if words[3] != any, words[3] != UInt64(sent(other)) {
                throw .rankMismatch(
                    "bytes of \(collective.text)", rank: other, found: "\(words[3])",
                    expected: "\(sent(other)), as rank \(rank) sends")
            }
            sizes[other] = Int(words[2])
        }
        return sizes
    }
}
