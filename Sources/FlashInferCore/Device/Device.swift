/// Something that holds memory and runs operations: a CPU, a GPU, or a recorder for tests.
///
/// Operations are values (``Operation``). A device validates nothing that the operation's own `validate()` has not: callers
/// use the `FlashInfer` module, which validates once and then executes. Operations run in the order they are executed;
/// `synchronize()` returns once all of them have finished.
public protocol Device: Sendable {
    /// Which device this is; views of its memory carry the same value.
    var id: DeviceID { get }

    /// A name for people, such as "AMD EPYC (avx512-bf16, 2 threads)".
    var name: String { get }

    /// What planning needs to know.
    var limits: DeviceLimits { get }

    /// Whether operations run where the host's memory is: then what the host knows (slots, rows of a mapped table) is read in
    /// place, and on other devices it goes by way of tensors.
    var readsHostMemory: Bool { get }

    /// The tiles and costs of the attention kernels that this device would use for `problem`.
    ///
    /// - Throws: ``FlashInferError/unsupported(_:device:nearest:)`` where it has none: here, at plan time, and not when run.
    func kernelTraits(for problem: AttentionProblem) throws(FlashInferError) -> KernelTraits

    /// Allocates memory, aligned for every kernel (64 bytes at least), of undefined content.
    ///
    /// - Throws: ``FlashInferError/outOfMemory(byteCount:device:)``.
    func allocate(byteCount: Int) throws(FlashInferError) -> MemoryRegion

    /// Frees what `allocate(byteCount:)` returned. Work already executed may still use it: devices free in order.
    func deallocate(_ region: MemoryRegion)

    /// Copies `source` of host memory to device memory.
    ///
    /// - Precondition: both have the same byte count.
    func upload(_ source: UnsafeRawBufferPointer, to destination: MemoryRegion) throws(FlashInferError)

    /// Copies device memory to host memory, after all work executed before.
    ///
    /// - Precondition: both have the same byte count.
    func download(_ source: MemoryRegion, to destination: UnsafeMutableRawBufferPointer) throws(FlashInferError)

    /// Sets every byte of a region.
    func fill(_ region: MemoryRegion, with byte: UInt8) throws(FlashInferError)

    /// Packs a weight matrix, or several stacked by rows (fused projections), for ``LinearOperation``.
    ///
    /// - Throws: ``FlashInferError`` where sizes disagree, a format is not supported, or memory is short.
    func makeWeights(_ parts: [WeightRows]) throws(FlashInferError) -> any DeviceWeights

    /// Bytes of workspace that any plan within `size` needs on this device: partial states, and the plan itself where a
    /// kernel reads it from device memory.
    func workspaceByteCount(for size: PlanSize) -> Int

    /// Puts a plan where this device's kernels read it, in order with the work executed before and after.
    ///
    /// A captured graph that runs attention with this `workspace` and `capacity` runs the new plan from its next replay on.
    /// Executing attention prepares its plan by itself where nobody has, except while a graph is being captured.
    ///
    /// - Parameters:
    ///   - capacity: the size that the workspace was allocated for; it decides where in the workspace things lie.
    ///   - workspace: `workspaceByteCount(for: capacity)` bytes of this device.
    /// - Throws: ``FlashInferError/capacityExceeded(_:required:capacity:)`` where the plan is larger than `capacity`.
    func prepare(_ plan: Plan, capacity: PlanSize, in workspace: MemoryRegion) throws(FlashInferError)

    /// Whether ``capture(_:)`` records.
    var recordsGraphs: Bool { get }

    /// Records what `body` executes, without running it; `nil`, with `body` not called, on devices that do not record.
    ///
    /// Everything that `body` touches must stay allocated while the graph lives, and `body` must not allocate, copy to or from
    /// the host, or synchronise.
    ///
    /// - Throws: what `body` throws, and ``FlashInferError/deviceFailure(call:message:)``.
    func capture(_ body: () throws(FlashInferError) -> Void) throws(FlashInferError) -> (any DeviceGraph)?

    /// Runs (or enqueues) one validated operation.
    func execute(_ operation: Operation) throws(FlashInferError)

    /// Runs (or enqueues) validated attention: what `execute(.attention(operation))` does, for devices that need not have it moved.
    func execute(attention operation: AttentionOperation) throws(FlashInferError)

    /// Waits for all work executed before.
    func synchronize() throws(FlashInferError)
}

/// Work of a device recorded once and run many times: made by ``Device/capture(_:)``.
public protocol DeviceGraph: AnyObject, Sendable {
    /// Runs (or enqueues) all of the recorded work, on what its tensors hold now.
    func replay() throws(FlashInferError)
}

extension Device {
    /// Whether this is the CPU.
    public var readsHostMemory: Bool { id == .cpu }

    /// The partial states' bytes: what devices need that read plans from host memory.
    public func workspaceByteCount(for size: PlanSize) -> Int { size.workspaceByteCount }

    /// Nothing: devices that read plans from host memory have nothing to prepare.
    public func prepare(_ plan: Plan, capacity: PlanSize, in workspace: MemoryRegion) throws(FlashInferError) {}

    /// As one operation among others.
    public func execute(attention operation: AttentionOperation) throws(FlashInferError) {
        try execute(.attention(operation))
    }

    /// Whether work is recorded: `false`, it runs as it comes.
    public var recordsGraphs: Bool { false }

    /// `nil`: this device does not record.
    public func capture(
        _ body: () throws(FlashInferError) -> Void
    ) throws(FlashInferError) -> (any DeviceGraph)? { nil }
}
