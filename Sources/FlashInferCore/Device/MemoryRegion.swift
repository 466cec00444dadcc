/// A span of one device's address space: what a view may touch. It owns nothing.
@frozen
public struct MemoryRegion: Sendable, Hashable {
    /// The first byte's address in the device's address space.
    public let address: UInt

    /// The number of bytes.
    public let byteCount: Int

    /// The device whose address space this is.
    public let device: DeviceID

    /// A region of memory that somebody else owns and keeps alive while views of it are used.
    ///
    /// - Precondition: `byteCount` is not negative. Whether the memory exists is the caller's word.
    public init(address: UInt, byteCount: Int, device: DeviceID) {
        precondition(byteCount >= 0, "a region has no negative size")
        self.address = address
        self.byteCount = byteCount
        self.device = device
    }

    /// Host memory that somebody else owns and keeps alive while views of it are used.
    public init(_ bytes: UnsafeRawBufferPointer) {
        self.init(address: UInt(bitPattern: bytes.baseAddress), byteCount: bytes.count, device: .cpu)
    }
}
