/// The ranks that share a batch, as one of them sees them: how it sends its part to the others and gets theirs.
///
/// One rank is one process with one device, or one thread in tests. Every call is collective: all ranks make the same calls in the same
/// order. On a GPU, collectives on memory are enqueued in order with the device's other work and may be captured in graphs; on a CPU
/// they are done when they return, or fail at a deadline.
public protocol Communicator: Sendable {
    /// This rank, in `0 ..< worldSize`.
    var rank: Int { get }

    /// The number of ranks, 1 or more.
    var worldSize: Int { get }

    /// The device whose memory collectives read and write.
    var device: DeviceID { get }

    /// Whether collectives on memory may be captured in the device's graphs.
    var isCapturable: Bool { get }

    /// Gathers every rank's `source` on all of them.
    ///
    /// - Parameters:
    ///   - source: this rank's part, of the same size on every rank; may be its own place in `destination`.
    ///   - destination: `worldSize × source.byteCount` bytes: the parts in the ranks' order.
    /// - Throws: ``FlashInferError/rankMismatch(_:rank:found:expected:)`` where sizes differ (where it is found out: always on a CPU),
    ///   ``FlashInferError/rankFailure(rank:call:message:)`` for a rank that is gone or late.
    func allGather(_ source: MemoryRegion, into destination: MemoryRegion) throws(FlashInferError)

    /// Sends `source` to the next rank while receiving from the one before: a step round the ring.
    ///
    /// - Parameters:
    ///   - source: what this rank sends; the next rank's `destination` has as many bytes.
    ///   - destination: what the rank before sends; apart from `source`.
    func passOn(_ source: MemoryRegion, receiving destination: MemoryRegion) throws(FlashInferError)

    /// Gathers a short message of every rank, of any length, in host memory. Waits for all ranks; never while a graph is captured.
    func gatherMessages(_ message: [UInt8]) throws(FlashInferError) -> [[UInt8]]

    /// Waits until the collectives enqueued before have ended. Whoever waits for the device alone waits for ever where a rank is gone.
    ///
    /// - Throws: ``FlashInferError/rankFailure(rank:call:message:)`` where they do not end: nothing waits for them any more then, what
    ///   they should have written is not there, and the communicator is of no use.
    func finishCollectives() throws(FlashInferError)

    /// A rank that is known to have gone, or to have said that it leaves. Asks nobody and waits for nobody.
    var departedRank: Int? { get }

    /// Tells the others that this rank makes no more calls, for instance because it has failed: they need not wait for it until their
    /// deadline. Every later call throws. Not a collective.
    func leave()
}

extension Communicator {
    /// No: what goes by way of the host cannot be.
    public var isCapturable: Bool { false }

    /// Nothing: what does not wait in a device's order is done when it returns.
    public func finishCollectives() throws(FlashInferError) {}

    /// None is known.
    public var departedRank: Int? { nil }

    /// Nothing that the others would notice.
    public func leave() {}

    /// The rank that ``passOn(_:receiving:)`` sends to.
    public var nextRank: Int { (rank + 1) % worldSize }

    /// The rank that ``passOn(_:receiving:)`` receives from.
    public var previousRank: Int { (rank + worldSize - 1) % worldSize }

    /// Waits until every rank is here.
    public func barrier() throws(FlashInferError) { _ = try gatherMessages([]) }

    /// Checks that all ranks have the same values: what a collective would otherwise find out by hanging.
    ///
    /// - Parameter values: names and values, the same names on every rank.
    /// - Throws: ``FlashInferError/rankMismatch(_:rank:found:expected:)`` on every rank, naming the first rank that differs from rank 0.
    public func requireAgreement(_ values: [(name: String, value: Int)]) throws(FlashInferError) {
        guard worldSize > 1 else { return }
        var message: [UInt8] = []
        for (_, value) in values {
            let word = UInt64(bitPattern: Int64(value))
            message += (0..<8).map { UInt8(truncatingIfNeeded: word >> (8 * UInt64($0))) }
        }
        let answers = try gatherMessages(message)
        for rank in 1..<worldSize where answers[rank] != answers[0] {
            guard answers[rank].count == answers[0].count else {
                throw .rankMismatch(
                    "the agreement", rank: rank, found: "\(answers[rank].count / 8) values",
                    expected: "\(answers[0].count / 8), as rank 0 has")
            }
            for (index, (name, _)) in values.enumerated() where 8 * index + 8 <= answers[rank].count {
                func value(_ bytes: [UInt8]) -> Int64 {
                    Int64(bitPattern: (0..<8).reduce(0) { $0 | UInt64(bytes[8 * index + $1]) << (8 * UInt64($1)) })
                }
                let (found, expected) = (value(answers[rank]), value(answers[0]))
                if found != expected {
                    throw .rankMismatch(name, rank: rank, found: "\(found)", expected: "\(expected), as on rank 0")
                }
            }
        }
    }

    /// Checks the sizes of an all-gather.
    package func checkAllGather(
        _ source: MemoryRegion, _ destination: MemoryRegion
    ) throws(FlashInferError) {
        for (name, region) in [("all-gather source", source), ("all-gather destination", destination)]
        where region.device != device {
            throw .invalidArgument(name, found: "on \(region.device)", expected: "on \(device), as its communicator")
        }
        let (bytes, overflow) = source.byteCount.multipliedReportingOverflow(by: worldSize)
        guard !overflow, destination.byteCount == bytes else {
            throw .lengthMismatch(
                "all-gather destination (bytes)", found: destination.byteCount, expected: overflow ? -1 : bytes)
        }
    }

    /// Checks the devices of a step round the ring, and that nothing is overwritten before it is sent.
    package func checkPassOn(_ source: MemoryRegion, _ destination: MemoryRegion) throws(FlashInferError) {
        for (name, region) in [("ring source", source), ("ring destination", destination)]
        where region.device != device {
            throw .invalidArgument(name, found: "on \(region.device)", expected: "on \(device), as its communicator")
        }
        let apart =
            source.address + UInt(source.byteCount) <= destination.address
            || destination.address + UInt(destination.byteCount) <= source.address
        guard apart || source.byteCount == 0 || destination.byteCount == 0 else {
            throw .invalidArgument("ring destination", found: "overlapping the source", expected: "apart from it")
        }
    }
}

/// The one rank of a world of one, on any device.
public struct SoleRank: Communicator {
    /// 0.
    public var rank: Int { 0 }
    /// 1.
    public var worldSize: Int { 1 }
    /// The device.
    public let device: DeviceID

    /// A world of one on `device`.
    public init(on device: DeviceID) { self.device = device }

    /// Nothing where the source is the destination.
    ///
    /// - Throws: ``FlashInferError/unsupported(_:device:nearest:)`` for a copy, which nobody needs of one rank.
    public func allGather(_ source: MemoryRegion, into destination: MemoryRegion) throws(FlashInferError) {
        try checkAllGather(source, destination)
        guard source == destination else {
            throw .unsupported("all-gather of one rank to another place", device: "\(device)", nearest: "in place")
        }
    }

    /// - Throws: ``FlashInferError/unsupported(_:device:nearest:)``: there is no ring of one.
    public func passOn(_ source: MemoryRegion, receiving destination: MemoryRegion) throws(FlashInferError) {
        throw .unsupported("a ring of one rank", device: "\(device)", nearest: "two ranks or more")
    }

    /// The message.
    public func gatherMessages(_ message: [UInt8]) throws(FlashInferError) -> [[UInt8]] { [message] }
}
