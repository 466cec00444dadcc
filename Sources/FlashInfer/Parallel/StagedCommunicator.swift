public import FlashInferCore

/// Collectives on a device's memory by way of the host's: for devices that NCCL does not join.
///
/// Each one waits for the device and copies twice, so it is slow, and cannot be captured in a graph.
public struct StagedCommunicator: Communicator {
    /// This rank.
    public var rank: Int { host.rank }
    /// The number of ranks.
    public var worldSize: Int { host.worldSize }
    /// The device.
    public var device: DeviceID { memory.id }

    private let host: any Communicator
    private let memory: any Device

    /// The ranks of `host`, with memory of `device`.
    public init(_ host: any Communicator, on device: any Device) { (self.host, memory) = (host, device) }

    /// Copies the part to the host, gathers there, and copies all parts back.
    public func allGather(_ source: MemoryRegion, into destination: MemoryRegion) throws(FlashInferError) {
        try checkAllGather(source, destination)
        try withHostMemory(destination.byteCount) { (all) throws(FlashInferError) in
            let own = UnsafeMutableRawBufferPointer(
                rebasing: all[rank * source.byteCount..<(rank + 1) * source.byteCount])
            try memory.download(source, to: own)
            try host.allGather(
                MemoryRegion(UnsafeRawBufferPointer(own)), into: MemoryRegion(UnsafeRawBufferPointer(all)))
            try memory.upload(UnsafeRawBufferPointer(all), to: destination)
        }
    }

    /// Copies what is sent to the host, and what is received back.
    public func passOn(_ source: MemoryRegion, receiving destination: MemoryRegion) throws(FlashInferError) {
        try checkPassOn(source, destination)
        try withHostMemory(source.byteCount + destination.byteCount) { (all) throws(FlashInferError) in
            let outgoing = UnsafeMutableRawBufferPointer(rebasing: all[..<source.byteCount])
            let incoming = UnsafeMutableRawBufferPointer(rebasing: all[source.byteCount...])
            try memory.download(source, to: outgoing)
            try host.passOn(
                MemoryRegion(UnsafeRawBufferPointer(outgoing)),
                receiving: MemoryRegion(UnsafeRawBufferPointer(incoming)))
            try memory.upload(UnsafeRawBufferPointer(incoming), to: destination)
        }
    }

    /// Gathers a message of every rank.
    public func gatherMessages(_ message: [UInt8]) throws(FlashInferError) -> [[UInt8]] {
        try host.gatherMessages(message)
    }

    /// As the host's side knows it.
    public var departedRank: Int? { host.departedRank }

    /// Leaves the host's side.
    public func leave() { host.leave() }

    private func withHostMemory(
        _ byteCount: Int, _ body: (UnsafeMutableRawBufferPointer) throws(FlashInferError) -> Void
    ) throws(FlashInferError) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: max(byteCount, 1), alignment: 64)
        defer { buffer.deallocate() }
        try body(UnsafeMutableRawBufferPointer(rebasing: buffer[..<byteCount]))
    }
}
