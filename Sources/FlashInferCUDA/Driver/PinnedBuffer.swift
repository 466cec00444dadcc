internal import CCUDA
internal import FlashInferCore

/// Host memory that the GPU copies from and to by itself, while the host does other things.
package struct PinnedBuffer: ~Copyable, @unchecked Sendable {
    // Unchecked because of the pointer; whoever owns the buffer owns the memory.
    private let pointer: UnsafeMutableRawPointer
    /// Its size.
    package let byteCount: Int
    private let context: CUDAContext

    /// The memory, while the buffer lives.
    package var bytes: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: pointer, count: byteCount)
    }

    /// Allocates; slow, as the driver locks the pages.
    package init(byteCount: Int, in context: CUDAContext) throws(FlashInferError) {
        try context.requireUsable()
        var pointer: UnsafeMutableRawPointer?
        let status = context.status { $0.cuMemHostAlloc(&pointer, max(byteCount, 1), 0) }
        if status == Int32(FI_CU_OUT_OF_MEMORY) {
            throw .outOfMemory(byteCount: byteCount, device: "the host (pinned memory)")
        }
        guard status == 0, let pointer else { throw context.failure(status, "cuMemHostAlloc") }
        self.pointer = pointer
        self.byteCount = byteCount
        self.context = context
    }

    deinit {
        let pointer = pointer
        context.release { $0.cuMemFreeHost(pointer) }
    }
}
