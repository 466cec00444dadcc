internal import CCUDA
public import FlashInferCore
internal import Synchronization

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#elseif canImport(Darwin)
    internal import Darwin
#endif

/// Ranks that are GPUs, joined by NCCL: collectives on device memory, enqueued on the device's stream, also while a graph is captured.
///
/// Where all ranks are GPUs of one machine that reach each other's memory, states of attention are exchanged and merged by a kernel over
/// that memory, without NCCL; ``description`` says so, or why not.
///
/// NCCL itself neither checks that ranks agree nor ends a wait for one that is gone. The ranks' host side does both: it meets before, may
/// be asked to agree (``Communicator/requireAgreement(_:)``), and ``synchronize(timeout:)`` waits no longer than it is told, nor long for
/// a rank that the host's side knows to be gone. What waits on the GPU is ended then, so that other work gets its turn.
/// Graphs that have captured collectives must go before the communicator.
public final class NCCLCommunicator: Communicator, CustomStringConvertible {
    /// This rank.
    public var rank: Int { host.rank }
    /// The number of ranks.
    public var worldSize: Int { host.worldSize }
    /// The GPU.
    public var device: DeviceID { gpu.id }
    /// Yes: collectives are enqueued on the device's stream.
    public var isCapturable: Bool { true }
    /// NCCL's version, such as 22703 for 2.27.3.
    public var version: Int { library.version }

    private let gpu: CUDADevice
    private let library: NCCL
    private let host: any Communicator
    private let handle: fi_nccl_communicator
    private let isLost = Atomic(false)
    private let timeout: Duration
    private let peers: PeerExchange?
    private let peerText: String

    /// What carries what: "NCCL 2.27.3; states over peer memory".
    public var description: String {
        "NCCL \(version / 10_000).\(version / 100 % 100).\(version % 100); \(peerText)"
    }

    /// Joins the GPUs of some ranks.
    ///
    /// - Parameters:
    ///   - device: this rank's GPU, another one for each rank.
    ///   - host: the same ranks' host side, by which NCCL's own id travels.
    ///   - usesPeerMemory: whether states are exchanged over peer memory where that can be; the same on all ranks.
    ///   - timeout: how long to wait for the others.
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` where NCCL is missing or fails,
    ///   ``FlashInferError/rankFailure(rank:call:message:)`` where a rank does not come.
    public convenience init(
        on device: CUDADevice, ranks host: any Communicator, usesPeerMemory: Bool = true,
        timeout: Duration = .seconds(60)
    ) throws(FlashInferError) {
        // A rank without NCCL would leave the others waiting, so all of them learn of it.
        var found: NCCL?
        var trouble: FlashInferError?
        do throws(FlashInferError) { found = try NCCL.load() } catch { trouble = error }
        let versions = try host.gatherMessages(Array("\(found?.version ?? 0)".utf8))
        if let trouble { throw trouble }
        if let without = versions.firstIndex(of: Array("0".utf8)) {
            throw .rankFailure(rank: without, call: "loading NCCL", message: "it has none; see that rank's error")
        }
        try self.init(on: device, ranks: host, library: found!, usesPeerMemory: usesPeerMemory, timeout: timeout)
    }

    package init(
        on device: CUDADevice, ranks host: any Communicator, library: NCCL, usesPeerMemory: Bool, timeout: Duration
    ) throws(FlashInferError) {
        ProcessEnd.watch()
        var id = fi_nccl_unique_id()
        if host.rank == 0 { try library.check(library.functions.ncclGetUniqueId(&id), "ncclGetUniqueId") }
        let own = host.rank == 0 ? withUnsafeBytes(of: id) { Array($0) } : []
        let first = try host.gatherMessages(own)[0]
        guard first.count == Int(FI_NCCL_UNIQUE_ID_BYTES) else {
            throw .rankMismatch(
                "bytes of NCCL's id", rank: 0, found: "\(first.count)", expected: "\(FI_NCCL_UNIQUE_ID_BYTES)")
        }
        withUnsafeMutableBytes(of: &id) { $0.copyBytes(from: first) }
        let (shared, rank, worldSize) = (id, Int32(host.rank), Int32(host.worldSize))
        let context = device.queue.context
        let made = GuardedCall.run(timeout: timeout) { () -> (fi_cu_status, fi_nccl_status, fi_nccl_communicator) in
            var (status, handle): (fi_nccl_status, fi_nccl_communicator) = (0, 0)
            let outer = context.status { _ in
                status = library.functions.ncclCommInitRank(&handle, worldSize, shared, rank)
                return 0
            }
            return (outer, status, handle)
        }
        guard let made else {
            throw .rankFailure(
                rank: (host.rank + 1) % host.worldSize, call: "ncclCommInitRank",
                message: "a rank did not come within \(timeout)")
        }
        if made.0 != 0 { throw context.failure(made.0, "ncclCommInitRank") }
        try library.check(made.1, "ncclCommInitRank")
        (gpu, self.library, self.host, handle, self.timeout) = (device, library, host, made.2, timeout)
        // Before anything that throws, so that the communicator is destroyed in any case.
        let outcome: Result<PeerExchange.Outcome, FlashInferError>
        do throws(FlashInferError) {
            outcome = .success(
                usesPeerMemory
                    ? try PeerExchange.join(on: device, ranks: host, timeout: timeout)
                    : .impossible("peer memory is not asked for"))
        } catch { outcome = .failure(error) }
        switch outcome {
        case .success(.joined(let exchange)): (peers, peerText) = (exchange, "states over peer memory")
        case .success(.impossible(let reason)): (peers, peerText) = (nil, "states too (\(reason))")
        case .failure(let error): (peers, peerText) = (nil, "states too (\(error))")
        }
        if case .failure(let error) = outcome { throw error }
        try connect()
    }

    /// Runs each collective once, which opens the connections: no step waits for them later, and no capture meets them.
    private func connect() throws(FlashInferError) {
        guard worldSize > 1 else { return }
        let small = try DeviceBuffer(on: gpu, dtype: .uint8, shape: [256 * (worldSize + 2)])
        func part(_ index: Int, _ count: Int = 1) -> MemoryRegion {
            MemoryRegion(address: small.region.address + UInt(256 * index), byteCount: 256 * count, device: device)
        }
        try gpu.fill(small.region, with: 0)
        try allGather(part(worldSize), into: part(0, worldSize))
        try passOn(part(worldSize), receiving: part(worldSize + 1))
        try synchronize(timeout: timeout)
    }

    deinit {
        guard !isLost.load(ordering: .relaxed) else { return }
        // Ends its threads and waits for nobody, or not for long.
        end(within: .seconds(10)) { $0.ncclCommDestroy($1) }
    }

    /// Ends NCCL's communicator by a call of its own, which may wait longer than it is waited for.
    private func end(
        within timeout: Duration,
        _ call: @escaping @Sendable (borrowing fi_nccl_table, fi_nccl_communicator) -> fi_nccl_status
    ) {
        let (library, handle, context) = (library, handle, gpu.queue.context)
        ProcessEnd.before {
            _ = GuardedCall.run(timeout: timeout) { () -> Bool in
                context.release { _ in
                    _ = call(library.functions, handle)
                    return 0
                }
                return true
            }
        }
    }

    /// Ends what waits for other ranks on this GPU; later calls throw.
    private func abort() {
        guard !isLost.exchange(true, ordering: .relaxed) else { return }
        peers?.abandon(waitingFor: departedRank ?? nextRank)
        // First of all it makes NCCL's kernels return; then it waits for graphs that have captured some, which may go much later.
        end(within: .seconds(2)) { $0.ncclCommAbort($1) }
    }

    /// As the host's side knows it.
    public var departedRank: Int? { host.departedRank }

    /// Leaves the host's side, by which the others notice, and ends this GPU's own waiting.
    public func leave() {
        host.leave()
        abort()
    }

    /// As ``synchronize(timeout:)`` with the time that ranks were given to meet.
    public func finishCollectives() throws(FlashInferError) { try synchronize(timeout: timeout) }

    /// Enqueues the gathering of every rank's part.
    public func allGather(_ source: MemoryRegion, into destination: MemoryRegion) throws(FlashInferError) {
        try checkAllGather(source, destination)
        guard source.byteCount > 0 else { return }
        try enqueue("ncclAllGather") { library, stream in
            library.ncclAllGather(
                source.address, destination.address, source.byteCount, Int32(FI_NCCL_BYTES), handle, stream)
        }
    }

    /// Enqueues a step round the ring.
    public func passOn(_ source: MemoryRegion, receiving destination: MemoryRegion) throws(FlashInferError) {
        try checkPassOn(source, destination)
        guard worldSize > 1 else {
            throw .unsupported("a ring of one rank", device: "\(device)", nearest: "two ranks or more")
        }
        let (next, previous) = (Int32(nextRank), Int32(previousRank))
        try enqueue("ncclSend and ncclRecv") { library, stream in
            let type = Int32(FI_NCCL_BYTES)
            var status = library.ncclGroupStart()
            if status == 0, source.byteCount > 0 {
                status = library.ncclSend(source.address, source.byteCount, type, next, handle, stream)
            }
            if status == 0, destination.byteCount > 0 {
                status = library.ncclRecv(destination.address, destination.byteCount, type, previous, handle, stream)
            }
            let end = library.ncclGroupEnd()
            return status != 0 ? status : end
        }
    }

    /// Gathers a message of every rank, by the host side.
    public func gatherMessages(_ message: [UInt8]) throws(FlashInferError) -> [[UInt8]] {
        try host.gatherMessages(message)
    }

    /// Waits for all work enqueued before, but no longer than `timeout`, and no longer than NCCL knows of no failure.
    ///
    /// - Throws: ``FlashInferError/rankFailure(rank:call:message:)`` where a collective does not end: some rank is gone, or makes other
    ///   calls. The communicator is of no use then.
    public func synchronize(timeout: Duration = .seconds(60)) throws(FlashInferError) {
        try requireUsable()
        let event = try CUDAEvent(in: gpu.queue.context)
        try gpu.queue.gate.inside { () throws(FlashInferError) in try event.record(in: gpu.queue.stream.handle) }
        let clock = ContinuousClock()
        let start = clock.now
        var departure: (rank: Int, found: ContinuousClock.Instant)?
        while try !event.hasPassed() {
            try requirePeers()
            let now = clock.now
            // A step of decode ends sooner, and a sleep takes at least 50 microseconds.
            guard now - start > .milliseconds(5) else { continue }
            usleep(20)
            try requireNoFailure()
            if now - start > timeout {
                abort()
                throw .rankFailure(
                    rank: nextRank, call: "a collective",
                    message: "it has not ended within \(timeout): a rank is gone, is late, or makes other calls")
            }
            // A rank that has done its part may go while this GPU still reads what it sent.
            if departure == nil { departure = departedRank.map { ($0, now) } }
            if let (rank, found) = departure, now - found > Self.grace {
                abort()
                throw .rankFailure(rank: rank, call: "a collective", message: "it has gone")
            }
        }
        try requirePeers()
    }

    /// How long a GPU may still be busy once a rank is known to be gone.
    private static let grace = Duration.seconds(2)

    private func requirePeers() throws(FlashInferError) {
        do throws(FlashInferError) { try peers?.requireAll() } catch {
            abort()
            throw error
        }
    }

    private func requireNoFailure() throws(FlashInferError) {
        var status: fi_nccl_status = 0
        let call = library.functions.ncclCommGetAsyncError(handle, &status)
        guard call != 0 || (status != 0 && status != Int32(FI_NCCL_IN_PROGRESS)) else { return }
        let error = library.error(call != 0 ? call : status, "a collective", handle)
        abort()
        throw error
    }

    private func requireUsable() throws(FlashInferError) {
        try requirePeers()
        guard isLost.load(ordering: .relaxed) else { return }
        throw .rankFailure(rank: nextRank, call: "a collective", message: "an earlier one has failed")
    }

    /// Over peer memory, where the ranks have it and the states fit.
    package func exchange(_ operation: MergeStatesOperation) throws(FlashInferError) -> Bool {
        guard let peers else { return false }
        try requireUsable()
        return try peers.merge(operation)
    }

    private func enqueue(
        _ call: StaticString, _ body: (borrowing fi_nccl_table, UInt) -> fi_nccl_status
    ) throws(FlashInferError) {
        try requireUsable()
        let (queue, functions) = (gpu.queue, library.functions)
        try queue.gate.inside { () throws(FlashInferError) in
            var status: fi_nccl_status = 0
            try queue.context.call(call) { _ in
                status = body(functions, queue.stream.handle)
                return 0
            }
            try library.check(status, call, handle)
        }
    }
}

extension NCCLCommunicator: StateMerging {}
