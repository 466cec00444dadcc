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

    /// Runs (or enqueues) one validated operation.
    func execute(_ operation: Operation) throws(FlashInferError)

    /// Waits for all work executed before.
    func synchronize() throws(FlashInferError)
}
