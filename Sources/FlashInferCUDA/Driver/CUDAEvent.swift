package import CCUDA
internal import FlashInferCore

/// A point of a stream that can be asked about, waited for, and timed.
package struct CUDAEvent: ~Copyable, Sendable {
    /// CUevent
    package let handle: fi_cu_event
    private let context: CUDAContext

    /// An event that has not been recorded, which counts as passed.
    package init(in context: CUDAContext, isTimed: Bool = false) throws(FlashInferError) {
        var handle: fi_cu_event = 0
        try context.call("cuEventCreate") { $0.cuEventCreate(&handle, isTimed ? 0 : UInt32(FI_CU_EVENT_NO_TIMING)) }
        self.handle = handle
        self.context = context
    }

    deinit {
        let handle = handle
        context.release { $0.cuEventDestroy(handle) }
    }

    /// Marks the point after all work now in the stream.
    package func record(in stream: fi_cu_stream) throws(FlashInferError) {
        try context.call("cuEventRecord") { $0.cuEventRecord(handle, stream) }
    }

    /// Whether the stream has passed the point.
    package func hasPassed() throws(FlashInferError) -> Bool {
        try context.requireUsable()
        let status = context.status { $0.cuEventQuery(handle) }
        if status == Int32(FI_CU_NOT_READY) { return false }
        if status != 0 { throw context.failure(status, "cuEventQuery") }
        return true
    }

    /// Waits until the stream has passed the point.
    package func wait() throws(FlashInferError) {
        try context.call("cuEventSynchronize") { $0.cuEventSynchronize(handle) }
    }

    /// Milliseconds from another timed event to this one, both passed.
    package func milliseconds(since start: borrowing CUDAEvent) throws(FlashInferError) -> Double {
        var time: Float = 0
        let from = start.handle
        try context.call("cuEventElapsedTime") { $0.cuEventElapsedTime(&time, from, handle) }
        return Double(time)
    }
}
