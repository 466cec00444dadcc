package import FlashInferCore

/// A host tensor's double on a device, between guards that nothing may write and nobody should read.
///
/// On the CPU it is the host tensor itself: memory of exactly its size, whose ends AddressSanitizer watches.
package final class DeviceTensor {
    /// The host's side.
    package let host: AttentionTensor
    /// The device's side.
    package let view: TensorView

    private let device: any Device
    private let allocation: MemoryRegion?

    /// Whole cache lines, and more than any vector access.
    private static let guardByteCount = 512

    /// Memory on `device` with the content of `host`.
    package init(_ host: AttentionTensor, on device: any Device) throws {
        self.host = host
        self.device = device
        guard device.id != .cpu else {
            (view, allocation) = (host.view, nil)
            return
        }
        let allocation = try device.allocate(byteCount: host.bytes.count + 2 * Self.guardByteCount)
        self.allocation = allocation
        view = try TensorView(
            MemoryRegion(
                address: allocation.address + UInt(Self.guardByteCount), byteCount: host.bytes.count, device: device.id),
            dtype: host.view.dtype, shape: host.view.shape, strides: host.view.strides)
        try device.fill(allocation, with: 0xFF)
        try upload(host)
    }

    deinit { if let allocation { device.deallocate(allocation) } }

    /// Another host tensor's bytes to the start of this memory; what lies behind them stays.
    package func upload(_ other: AttentionTensor) throws {
        precondition(other.bytes.count <= host.bytes.count, "the first to use a memory is the largest")
        if allocation == nil {
            if other !== host { host.bytes.copyMemory(from: UnsafeRawBufferPointer(other.bytes)) }
        } else if other.bytes.count > 0 {
            try device.upload(
                UnsafeRawBufferPointer(other.bytes),
                to: MemoryRegion(address: view.address, byteCount: other.bytes.count, device: device.id))
        }
    }

    /// The device's bytes to the host's side, after all work executed before.
    ///
    /// - Throws: ``GuardOverwritten`` where something was written outside the tensor.
    package func download() throws {
        guard let allocation else { return }
        var bytes = [UInt8](repeating: 0, count: allocation.byteCount)
        try bytes.withUnsafeMutableBytes { try device.download(allocation, to: $0) }
        let end = Self.guardByteCount + host.bytes.count
        for index in bytes.indices where !(Self.guardByteCount..<end).contains(index) && bytes[index] != 0xFF {
            throw GuardOverwritten(
                offset: index - Self.guardByteCount, byteCount: host.bytes.count, shape: host.view.shape)
        }
        host.bytes.copyBytes(from: bytes[Self.guardByteCount..<end])
    }

    /// Undefined content, on both sides.
    package func poison() throws {
        host.poison()
        try upload(host)
    }
}

/// A kernel wrote outside a tensor.
package struct GuardOverwritten: Error, CustomStringConvertible {
    /// The first byte that was written, counted from the tensor's first.
    package var offset: Int
    /// Bytes of the tensor.
    package var byteCount: Int
    /// The tensor's shape.
    package var shape: Shape

    /// The text shown to people.
    package var description: String { "byte \(offset) of a tensor of \(byteCount) bytes \(shape) was written" }
}
