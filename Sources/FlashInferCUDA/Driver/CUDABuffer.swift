package import FlashInferCore

/// Device memory, owned: freed in stream order when the buffer goes away.
///
/// For what a device keeps for itself; users have `DeviceBuffer`, which keeps its device alive.
package struct CUDABuffer: ~Copyable, Sendable {
    /// The first byte's address, a multiple of 256.
    package let address: UInt
    /// Its size.
    package let byteCount: Int
    private let queue: CUDAQueue

    /// Allocates, with undefined content.
    ///
    /// - Throws: ``FlashInferError/outOfMemory(byteCount:device:)``.
    package init(byteCount: Int, on queue: CUDAQueue) throws(FlashInferError) {
        address = try queue.allocate(byteCount: byteCount)
        self.byteCount = byteCount
        self.queue = queue
    }

    deinit { queue.free(address) }
}
