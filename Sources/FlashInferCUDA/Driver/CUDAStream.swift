package import CCUDA
internal import FlashInferCore

/// A stream: its own, destroyed at the end, or a caller's.
package struct CUDAStream: ~Copyable, Sendable {
    /// CUstream
    package let handle: fi_cu_stream
    /// Whether somebody else made it.
    package let isBorrowed: Bool
    private let context: CUDAContext

    /// A new stream, which does not wait for the legacy default stream.
    package init(in context: CUDAContext) throws(FlashInferError) {
        var handle: fi_cu_stream = 0
        try context.call("cuStreamCreate") { $0.cuStreamCreate(&handle, UInt32(FI_CU_STREAM_NON_BLOCKING)) }
        self.handle = handle
        self.context = context
        isBorrowed = false
    }

    /// A caller's stream, which must outlive this.
    ///
    /// - Throws: ``FlashInferError/invalidArgument(_:found:expected:)`` where it belongs to another GPU, or is no stream.
    package init(borrowing handle: fi_cu_stream, in context: CUDAContext) throws(FlashInferError) {
        guard context.owns(stream: handle) else {
            throw .invalidArgument(
                "stream", found: "0x" + String(handle, radix: 16),
                expected: "a stream of the primary context of cuda:\(context.ordinal)")
        }
        self.handle = handle
        self.context = context
        isBorrowed = true
    }

    deinit {
        guard !isBorrowed else { return }
        let handle = handle
        context.release { $0.cuStreamDestroy(handle) }
    }

    /// Waits for all work enqueued before.
    package func synchronize() throws(FlashInferError) {
        try context.call("cuStreamSynchronize") { $0.cuStreamSynchronize(handle) }
    }

    /// Whether somebody is recording this stream.
    package var isCapturing: Bool {
        var status: Int32 = 0
        return context.status(of: { $0.cuStreamIsCapturing(handle, &status) }) == 0 && status != 0
    }
}
