internal import CCUDA
internal import CUDAKernels
package import FlashInferCore

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#elseif canImport(Darwin)
    internal import Darwin
#endif

/// Ranks whose GPUs write to each other's memory: states of attention are exchanged and merged by one kernel on each.
///
/// Each rank has a window that all others have mapped. What a rank waits for is bounded by the communicator's deadline; a rank that does
/// not come is found in a word of the host's memory, outputs are NaN then, and nothing is waited for any more.
package final class PeerExchange: Sendable {
    /// What came of an attempt: the same on all ranks.
    package enum Outcome {
        /// All ranks have mapped each other's windows.
        case joined(PeerExchange)
        /// Why they have not.
        case impossible(String)
    }

    private let gpu: CUDADevice
    private let rank: Int
    private let memory: Memory
    /// Every rank's window, as this rank's GPU reaches it.
    private let windows: [UInt]
    /// Those of other processes, to be unmapped.
    private let opened: [UInt]
    private let timeout: Duration

    private static let process = [UInt64.random(in: .min ... .max), UInt64.random(in: .min ... .max)]

    /// This machine since it was started, which its system says in a file whose size it gives as 0.
    private static var machine: [UInt8] {
        let descriptor = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return [] }
        defer { close(descriptor) }
        return FileSystem.read(descriptor, at: 0, byteCount: 36) ?? []
    }

    /// Maps the windows of some ranks: a collective.
    ///
    /// - Parameters:
    ///   - device: this rank's GPU.
    ///   - host: the ranks' host side.
    ///   - timeout: how long an exchange waits for the others.
    /// - Throws: what the host side throws; whatever the driver refuses is the outcome's reason.
    package static func join(
        on device: CUDADevice, ranks host: any Communicator, timeout: Duration
    ) throws(FlashInferError) -> Outcome {
        let world = host.worldSize
        guard world > 1, world <= ExchangeWindow.mostRanks else { return .impossible("\(world) ranks") }
        let size = ExchangeWindow(ranks: world).byteCount
        var trouble = ""
        var memory: Memory?
        do throws(FlashInferError) {
            memory = try Memory(on: device, ranks: world)
            try mark(memory!.window.address + UInt(size), on: device)
        } catch { trouble = "\(error)" }
        let context = device.queue.context
        let address = memory?.window.address ?? 0
        let own = PeerTicket(
            machine: machine, process: process, ordinal: context.ordinal, address: address,
            handle: address == 0 ? [] : context.handle(of: address) ?? [])
        let tickets = try host.gatherMessages(own.message).map { PeerTicket(message: $0) }

        var (windows, opened): ([UInt], [UInt]) = ([], [])
        if trouble.isEmpty {
            do throws(FlashInferError) {
                for (rank, ticket) in tickets.enumerated() {
                    if rank == host.rank {
                        windows.append(address)
                        continue
                    }
                    guard let ticket else { throw .rankFailure(rank: rank, call: "a ticket", message: "it is none") }
                    windows.append(try map(ticket, ofRank: rank, from: own, device, windowByteCount: size, &opened))
                }
            } catch { trouble = "\(error)" }
        }
        // Nobody writes to a window that some rank cannot see, and all take the same way.
        let troubles = try host.gatherMessages(Array(trouble.utf8))
        if let rank = troubles.firstIndex(where: { !$0.isEmpty }) {
            for address in opened { context.close(address) }
            return .impossible("rank \(rank): \(String(decoding: troubles[rank], as: UTF8.self))")
        }
        return .joined(PeerExchange(device, host.rank, memory!, windows, opened, timeout))
    }

    private static func map(
        _ ticket: PeerTicket, ofRank rank: Int, from own: PeerTicket, _ device: CUDADevice, windowByteCount: Int,
        _ opened: inout [UInt]
    ) throws(FlashInferError) -> UInt {
        switch ticket.way(from: own) {
        case .sameProcess:
            try device.queue.context.openMemory(ofGPU: ticket.ordinal)
            return ticket.address
        case .sameMachine:
            let address = try device.queue.context.open(ticket.handle)
            opened.append(address)
            try requireMark(of: ticket, at: address + UInt(windowByteCount), ofRank: rank, device)
            return address
        case .none(let reason):
            throw .rankFailure(rank: rank, call: "mapping its memory", message: reason)
        }
    }

    /// Says behind a window whose it is.
    private static func mark(_ end: UInt, on device: CUDADevice) throws(FlashInferError) {
        let region = MemoryRegion(address: end, byteCount: markByteCount, device: device.id)
        var failure: FlashInferError?
        process.withUnsafeBytes { bytes in
            do throws(FlashInferError) { try device.upload(bytes, to: region) } catch { failure = error }
        }
        if let failure { throw failure }
        try device.synchronize()
    }

    /// A name that means other memory here than where it was made must not be written to.
    private static func requireMark(
        of ticket: PeerTicket, at end: UInt, ofRank rank: Int, _ device: CUDADevice
    ) throws(FlashInferError) {
        let region = MemoryRegion(address: end, byteCount: markByteCount, device: device.id)
        var found: [UInt64] = [0, 0]
        var failure: FlashInferError?
        found.withUnsafeMutableBytes { bytes in
            do throws(FlashInferError) { try device.download(region, to: bytes) } catch { failure = error }
        }
        if let failure { throw failure }
        guard found == ticket.process else {
            throw .rankFailure(rank: rank, call: "mapping its memory", message: "its name means other memory here")
        }
    }

    private static let markByteCount = 16

    private init(
        _ gpu: CUDADevice, _ rank: Int, _ memory: Memory, _ windows: [UInt], _ opened: [UInt], _ timeout: Duration
    ) {
        (self.gpu, self.rank, self.memory) = (gpu, rank, memory)
        (self.windows, self.opened, self.timeout) = (windows, opened, timeout)
    }

    deinit {
        // What has ended here has got all that the others wrote, so nothing is on its way to the window any more.
        if !gpu.isCapturing { try? gpu.synchronize() }
        let (context, opened) = (gpu.queue.context, opened)
        ProcessEnd.before { for address in opened { context.close(address) } }
    }

    /// A rank's own memory.
    private final class Memory: Sendable {
        /// What the other ranks write to.
        let window: PeerMemory
        /// What its kernels count.
        let progress: CUDABuffer
        /// 0, or 1 + the rank that did not come: written by kernels, and by the host to end their waiting.
        let missing: PinnedBuffer

        init(on device: CUDADevice, ranks: Int) throws(FlashInferError) {
            let queue = device.queue
            let window = try PeerMemory(
                byteCount: ExchangeWindow(ranks: ranks).byteCount + PeerExchange.markByteCount, in: queue.context)
            let progress = try CUDABuffer(byteCount: MemoryLayout<fi_exchange_progress>.size, on: queue)
            let missing = try PinnedBuffer(byteCount: 64, in: queue.context)
            missing.bytes.initializeMemory(as: UInt8.self, repeating: 0)
            let (first, second) = ((window.address, window.byteCount), (progress.address, progress.byteCount))
            // Before anybody else knows of the window.
            try queue.gate.inside { () throws(FlashInferError) in
                try queue.fill(first.0, byteCount: first.1, with: 0)
                try queue.fill(second.0, byteCount: second.1, with: 0)
                try queue.synchronize()
            }
            self.window = window
            self.progress = progress
            self.missing = missing
        }

        var missingWord: UInt32 {
            @inline(never) get { missing.bytes.load(as: UInt32.self) }
        }
    }

    /// Enqueues the exchange of states and their merge.
    ///
    /// - Returns: whether the states fit the windows; the same on all ranks.
    /// - Throws: ``FlashInferError/rankFailure(rank:call:message:)`` once a rank did not come.
    package func merge(_ operation: MergeStatesOperation) throws(FlashInferError) -> Bool {
        guard var launch = try ExchangeStatesKernel.lower(operation) else { return false }
        try requireAll()
        launch.parameters.rank = UInt32(rank)
        launch.parameters.progress = UInt64(memory.progress.address)
        launch.parameters.missing = UInt64(UInt(bitPattern: memory.missing.bytes.baseAddress))
        launch.parameters.timeout = timeout.nanoseconds
        withUnsafeMutableBytes(of: &launch.parameters.windows) { places in
            for (rank, window) in windows.enumerated() {
                places.storeBytes(of: UInt64(window), toByteOffset: 8 * rank, as: UInt64.self)
            }
        }
        try gpu.launch(gpu.kernel(launch.spec), grid: (launch.blocks, 1, 1), launch.parameters)
        return true
    }

    /// Throws where a rank did not come to an exchange that has run.
    package func requireAll() throws(FlashInferError) {
        let word = memory.missingWord
        if word == 0 { return }
        throw .rankFailure(
            rank: Int(word) - 1, call: "an exchange of states",
            message: "it did not come within \(timeout): it is gone, is late, or makes other calls")
    }

    /// Ends the waiting of kernels that run or come; their outputs are NaN.
    package func abandon(waitingFor rank: Int) {
        if memory.missingWord == 0 { memory.missing.bytes.storeBytes(of: UInt32(rank + 1), as: UInt32.self) }
    }
}

extension Duration {
    /// Whole nanoseconds, none where negative.
    fileprivate var nanoseconds: UInt64 {
        let (seconds, attoseconds) = components
        return UInt64(clamping: seconds).multipliedReportingOverflow(by: 1_000_000_000).partialValue
            &+ UInt64(clamping: attoseconds / 1_000_000_000)
    }
}
