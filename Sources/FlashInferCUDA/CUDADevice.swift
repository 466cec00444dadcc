internal import CCUDA
public import FlashInferCore

/// An NVIDIA GPU of compute capability 8.0 or later.
///
/// Works beside other users of the GPU in the process: its context is the one they use, and it can run on their stream. Everything is
/// enqueued on that one stream, in order; `download` and `synchronize` wait, nothing else does. Any thread may call; what one thread
/// enqueues runs after what was enqueued before.
///
/// ```swift
/// let device = try CUDADevice()
/// device.name  // "cuda:0 (NVIDIA H100 80GB HBM3)"
/// ```
public final class CUDADevice: Device {
    /// ``DeviceID/cuda(_:)``.
    public let id: DeviceID
    /// Ordinal and the GPU's name, for people.
    public let name: String
    /// One processor a streaming multiprocessor.
    public let limits: DeviceLimits

    /// The loaded kernels.
    package let kernels: KernelCache
    /// The stream, its memory and its graphs.
    package let queue: CUDAQueue
    /// Plans in workspaces, and what attention needs beside.
    let attention: AttentionState
    /// Matrix products.
    package let linear = LinearState()
    /// What the small operations keep from call to call.
    package let operations: OperationState
    /// Where memory is that every stream of the GPU reads: this queue, or that of the device whose kernels this one shares.
    let sharedQueue: CUDAQueue

    /// The GPU's properties.
    package var properties: CUDAProperties { queue.context.properties }
    /// CUstream
    package var stream: UInt { queue.stream.handle }
    /// Whether work enqueued now is recorded instead of run.
    package var isCapturing: Bool { queue.isCapturing }

    /// A GPU of this process.
    ///
    /// - Parameters:
    ///   - ordinal: its number, as the CUDA driver counts them.
    ///   - stream: the `CUstream` (or `cudaStream_t`) to enqueue on, which must outlive the device; `nil` for one of its own.
    /// - Throws: ``FlashInferError`` where there is no driver or no such GPU, or they are too old; it says what was looked for.
    public convenience init(ordinal: Int = 0, stream: UInt? = nil) throws(FlashInferError) {
        try self.init(driver: try .load(), ordinal: ordinal, stream: stream)
    }

    /// A GPU behind a driver, or behind a test's stand-in for one.
    ///
    /// - Parameter source: where kernels come from; `nil` for the bundle, the disk cache and the compiler of this machine.
    package init(
        driver: CUDADriver, ordinal: Int = 0, stream: UInt? = nil, source: CubinSource? = nil
    ) throws(FlashInferError) {
        let context = try CUDAContext(driver: driver, ordinal: ordinal)
        queue = try CUDAQueue(context: context, stream: stream)
        sharedQueue = queue
        operations = OperationState(queue: queue)
        kernels = KernelCache(context: context, source: source ?? CubinSource(driverVersion: driver.version))
        attention = AttentionState(context.properties)
        id = .cuda(ordinal)
        name = "cuda:\(ordinal) (\(context.properties.name))"
        limits = DeviceLimits(
            processors: context.properties.processors, memoryByteCount: context.properties.totalMemory)
    }

    /// The same GPU on another stream, which must outlive the device: one context, and kernels, plans in workspaces and constant
    /// tables in common. For a library whose callers name a stream at every call.
    ///
    /// A plan that one of them prepared is run by any of them, on a stream that waits for the one that prepared it.
    package init(sharing other: CUDADevice, stream: UInt) throws(FlashInferError) {
        queue = try CUDAQueue(context: other.queue.context, stream: stream)
        sharedQueue = other.sharedQueue
        operations = OperationState(queue: queue, tablesOf: other.operations)
        (kernels, attention) = (other.kernels, other.attention)
        (id, name, limits) = (other.id, other.name, other.limits)
    }

    deinit {
        // Kernels go with the device, so none of them may be running.
        if !queue.isCapturing { try? queue.synchronize() }
    }

    /// Memory from a stream-ordered pool, aligned to 256 bytes.
    public func allocate(byteCount: Int) throws(FlashInferError) -> MemoryRegion {
        let address = try queue.gate.inside { () throws(FlashInferError) in try queue.allocate(byteCount: byteCount) }
        return MemoryRegion(address: address, byteCount: byteCount, device: id)
    }

    /// Frees memory once the work enqueued before has ended. While a graph is captured, after the capture.
    public func deallocate(_ region: MemoryRegion) {
        attention.plans.forget(region)
        queue.free(region.address)
    }

    /// Copies through pinned memory, in order with the work enqueued; `source` may be changed at once.
    public func upload(_ source: UnsafeRawBufferPointer, to destination: MemoryRegion) throws(FlashInferError) {
        precondition(source.count == destination.byteCount, "an upload's sizes are equal")
        try queue.gate.inside { () throws(FlashInferError) in try queue.upload(source, to: destination.address) }
    }

    /// Copies, and waits for the copy.
    public func download(
        _ source: MemoryRegion, to destination: UnsafeMutableRawBufferPointer
    ) throws(FlashInferError) {
        precondition(source.byteCount == destination.count, "a download's sizes are equal")
        try queue.gate.inside { () throws(FlashInferError) in try queue.download(source.address, to: destination) }
    }

    /// Sets every byte, in order with the work enqueued.
    public func fill(_ region: MemoryRegion, with byte: UInt8) throws(FlashInferError) {
        try queue.gate.inside { () throws(FlashInferError) in
            try queue.fill(region.address, byteCount: region.byteCount, with: byte)
        }
    }

    /// Waits for all work enqueued before.
    public func synchronize() throws(FlashInferError) {
        try queue.gate.inside { () throws(FlashInferError) in try queue.synchronize() }
    }

    /// Records what `body` executes on this thread as a CUDA graph.
    ///
    /// `body` runs once, on the host; its launches are recorded and not run. Memory freed meanwhile is freed after the capture; to
    /// allocate, copy from or to the host, or wait is an error while capturing, and so is a capture within a capture. Other threads'
    /// calls of this device wait until the capture has ended, so `body` must not wait for them. Kernels may be compiled and loaded
    /// meanwhile; run the work once before, so that they are not.
    public func capture(
        _ body: () throws(FlashInferError) -> Void
    ) throws(FlashInferError) -> (any DeviceGraph)? {
        try queue.capture(keeping: self, body)
    }
}
