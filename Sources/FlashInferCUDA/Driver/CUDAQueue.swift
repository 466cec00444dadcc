internal import CCUDA
package import FlashInferCore

/// One stream of one GPU with its memory: everything is enqueued here, in order.
///
/// What owns memory or a graph keeps the queue alive, and the queue nothing of theirs.
package final class CUDAQueue: Sendable {
    /// The GPU.
    package let context: CUDAContext
    /// The stream.
    package let stream: CUDAStream
    /// Where allocations come from.
    package let pool: MemoryPool
    /// Who enqueues: the device's calls enter it, and what they call here does not.
    package let gate = CaptureGate()
    private let ring: StagingRing
    /// What was freed while a graph was recorded: a free on the stream would have become part of the graph.
    private let freedWhileCapturing = Locked<[UInt]>([])

    /// A queue with its own stream, or the caller's, which must outlive it.
    package init(context: CUDAContext, stream: UInt? = nil) throws(FlashInferError) {
        self.context = context
        if let stream {
            self.stream = try CUDAStream(borrowing: stream, in: context)
        } else {
            self.stream = try CUDAStream(in: context)
        }
        // A pool is no work of a stream: a caller's stream may be met for the first time while the caller records it, as PyTorch does
        // on a stream of its own.
        pool = try context.whileCaptureIsRelaxed { () throws(FlashInferError) in try MemoryPool(in: context) }
        ring = StagingRing(context: context)
    }

    deinit { freeDeferred() }

    /// Whether work that this thread enqueues now is recorded instead of run: by ``capture(_:)``, or by the owner of a borrowed
    /// stream.
    package var isCapturing: Bool { gate.isMine || (stream.isBorrowed && stream.isCapturing) }

    private func refuseWhileCapturing(_ what: String) throws(FlashInferError) {
        guard isCapturing else { return }
        throw .deviceFailure(call: what, message: "not possible while a graph is being captured; do it before")
    }

    // MARK: Memory

    /// Memory for work enqueued from now on, aligned to 256 bytes, of undefined content.
    package func allocate(byteCount: Int) throws(FlashInferError) -> UInt {
        try refuseWhileCapturing("allocating")
        return try pool.allocate(byteCount: byteCount, stream: stream.handle)
    }

    /// Frees once the work enqueued before has ended; while a graph is captured, by whatever thread, after the capture.
    ///
    /// Never waits, so buffers may go away anywhere.
    package func free(_ address: UInt) {
        let isFreed = gate.insideIfOpen {
            if stream.isBorrowed && stream.isCapturing {
                freedWhileCapturing.withLock { $0.append(address) }
            } else {
                freeDeferred()
                pool.free(address, stream: stream.handle)
            }
        }
        if !isFreed { freedWhileCapturing.withLock { $0.append(address) } }
    }

    private func freeDeferred() {
        let addresses = freedWhileCapturing.withLock { addresses in
            defer { addresses = [] }
            return addresses
        }
        for address in addresses { pool.free(address, stream: stream.handle) }
    }

    // MARK: Copies

    /// The size of the pieces that long uploads are cut into: long enough for full speed, short enough that the copy of one piece
    /// into pinned memory hides behind the transfer of the one before.
    private static let uploadPiece = 4 << 20

    /// Copies host memory, which may be changed as soon as this returns; waits only where far ahead of the GPU.
    package func upload(_ source: UnsafeRawBufferPointer, to address: UInt) throws(FlashInferError) {
        for start in stride(from: 0, to: source.count, by: Self.uploadPiece) {
            let piece = UnsafeRawBufferPointer(
                rebasing: source[start..<min(start + Self.uploadPiece, source.count)])
            try stage(byteCount: piece.count, to: address + UInt(start)) { $0.copyMemory(from: piece) }
        }
    }

    /// Lets `fill` write to pinned memory, of undefined content, and enqueues its copy to the device.
    package func stage(
        byteCount: Int, to address: UInt, _ fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(FlashInferError) {
        guard byteCount > 0 else { return }
        try refuseWhileCapturing("copying from the host")
        try ring.copy(byteCount: byteCount, to: address, stream: stream.handle, fill)
    }

    /// Copies device memory to the host, after all work enqueued before; waits for it.
    package func download(_ address: UInt, to destination: UnsafeMutableRawBufferPointer) throws(FlashInferError) {
        guard let base = destination.baseAddress, !destination.isEmpty else { return }
        try refuseWhileCapturing("copying to the host")
        try context.call("cuMemcpyDtoHAsync") {
            $0.cuMemcpyDtoHAsync(base, UInt64(address), destination.count, stream.handle)
        }
        try stream.synchronize()
    }

    /// Sets bytes.
    package func fill(_ address: UInt, byteCount: Int, with byte: UInt8) throws(FlashInferError) {
        guard byteCount > 0 else { return }
        try context.call("cuMemsetD8Async") {
            $0.cuMemsetD8Async(UInt64(address), byte, byteCount, stream.handle)
        }
    }

    /// Waits for all work enqueued before.
    package func synchronize() throws(FlashInferError) {
        try refuseWhileCapturing("synchronising")
        try stream.synchronize()
    }

    // MARK: Graphs

    /// Records what `body` enqueues on this thread, without running it; other threads' calls of the device wait meanwhile.
    ///
    /// - Parameter owner: what the graph keeps alive: whoever owns the kernels that it launches.
    package func capture(
        keeping owner: (any AnyObject & Sendable)? = nil, _ body: () throws(FlashInferError) -> Void
    ) throws(FlashInferError) -> CUDAGraph {
        try refuseWhileCapturing("capturing a graph")
        return try gate.alone { () throws(FlashInferError) in
            try Recordings.ofProcess.during { () throws(FlashInferError) in try record(keeping: owner, body) }
        }
    }

    private func record(
        keeping owner: (any AnyObject & Sendable)?, _ body: () throws(FlashInferError) -> Void
    ) throws(FlashInferError) -> CUDAGraph {
        // Thread-local: other threads of the process may allocate and load at the same time.
        try context.call("cuStreamBeginCapture") {
            $0.cuStreamBeginCapture(stream.handle, Int32(FI_CU_CAPTURE_THREAD_LOCAL))
        }
        var failure: FlashInferError?
        do throws(FlashInferError) { try body() } catch { failure = error }
        var graph: fi_cu_graph = 0
        let status = context.status { $0.cuStreamEndCapture(stream.handle, &graph) }
        defer {
            if graph != 0 { context.release { $0.cuGraphDestroy(graph) } }
            freeDeferred()
        }
        if let failure { throw failure }
        if status != 0 { throw context.failure(status, "cuStreamEndCapture") }
        return try CUDAGraph(graph, on: self, keeping: owner)
    }
}
