internal import CFlashInferCPU
public import FlashInferCore

/// The host's processors as a device: any machine has one.
///
/// Operations run at once, on the calling thread and the pool's: `execute` returns when the result is there.
///
/// ```swift
/// let device = CPUDevice(threads: 4)
/// device.name  // "cpu (avx512-bf16, 4 threads)"
/// ```
public final class CPUDevice: Device {
    /// ``DeviceID/cpu``.
    public let id = DeviceID.cpu
    /// Instruction set and threads, for people.
    public let name: String
    /// One processor a thread.
    public let limits: DeviceLimits
    /// The instruction set whose kernels run.
    public let instructionSet: InstructionSet

    private let pool: ThreadPool
    private let ops: CPUOps
    private let attention: CPUAttention
    private let linear: CPULinear
    private let arena = WeightArena()
    /// Products take turns at the scratch for quantised activations, which grows to the largest asked for.
    private let linearScratch = Locked(ScratchBox())

    /// The CPU with `threads` threads (all processors this process may run on, where `nil`) and the kernels of one
    /// instruction set (the best this machine has, where `nil`). Where the system gives fewer threads, ``name`` and ``limits`` say how
    /// many there are.
    ///
    /// - Precondition: the machine has the instruction set, and `threads` is at least 1.
    public init(threads: Int? = nil, instructionSet: InstructionSet? = nil) {
        let set = instructionSet ?? .detected
        precondition(set.isAvailable, "this machine does not have \(set.name)")
        pool = ThreadPool(threads: threads ?? CPUMemory.availableProcessors)
        let threads = pool.threads
        self.instructionSet = set
        name = "cpu (\(set.name), \(threads) thread\(threads == 1 ? "" : "s"))"
        limits = DeviceLimits(processors: threads, memoryByteCount: CPUMemory.physicalByteCount)
        ops = CPUOps(pool: pool, instructionSet: set)
        attention = CPUAttention(pool: pool, isa: set)
        linear = CPULinear(isa: set.cValue) ?? .best
    }

    /// The tiles of the CPU's attention kernels; see ``CPUAttention``.
    public func kernelTraits(for problem: AttentionProblem) throws(FlashInferError) -> KernelTraits {
        try attention.kernelTraits(for: problem)
    }

    /// Cache-line aligned memory; huge pages where it is large.
    public func allocate(byteCount: Int) throws(FlashInferError) -> MemoryRegion {
        try CPUMemory.allocate(byteCount: byteCount)
    }

    /// Frees memory.
    public func deallocate(_ region: MemoryRegion) { CPUMemory.deallocate(region) }

    /// Copies.
    public func upload(_ source: UnsafeRawBufferPointer, to destination: MemoryRegion) throws(FlashInferError) {
        precondition(source.count == destination.byteCount, "an upload's sizes are equal")
        guard let from = source.baseAddress, let to = UnsafeMutableRawPointer(bitPattern: destination.address) else {
            return
        }
        to.copyMemory(from: from, byteCount: source.count)
    }

    /// Copies.
    public func download(
        _ source: MemoryRegion, to destination: UnsafeMutableRawBufferPointer
    ) throws(FlashInferError) {
        precondition(source.byteCount == destination.count, "a download's sizes are equal")
        guard let from = UnsafeRawPointer(bitPattern: source.address), let to = destination.baseAddress else { return }
        to.copyMemory(from: from, byteCount: source.byteCount)
    }

    /// Sets every byte.
    public func fill(_ region: MemoryRegion, with byte: UInt8) throws(FlashInferError) {
        UnsafeMutableRawPointer(bitPattern: region.address)?
            .initializeMemory(as: UInt8.self, repeating: byte, count: region.byteCount)
    }

    /// Packs weights into the panels of ``CPULinear``'s kernels; small matrices share large allocations.
    public func makeWeights(_ parts: [WeightRows]) throws(FlashInferError) -> any DeviceWeights {
        try PackedMatrix(packing: parts, arena: arena, pool: pool)
    }

    /// Runs an operation to its end.
    public func execute(_ operation: Operation) throws(FlashInferError) {
        switch operation {
        case .attention(let operation): attention.execute(operation)
        case .mla(let operation): attention.execute(operation.attention)
        case .mergeStates(let operation):
            try attention.mergeStates(
                values: operation.values, logSumExp: operation.logSumExp, into: operation.output,
                mergedLogSumExp: operation.mergedLogSumExp)
        case .rmsNorm(let operation): ops.execute(operation)
        case .layerNorm(let operation): ops.execute(operation)
        case .rope(let operation): ops.execute(operation)
        case .splitRoPE(let operation): ops.execute(operation)
        case .gatedActivation(let operation): ops.execute(operation)
        case .add(let operation): ops.execute(operation)
        case .convert(let operation): ops.execute(operation)
        case .quantize(let operation): ops.execute(operation)
        case .packBits(let operation): ops.execute(operation)
        case .embedding(let operation): ops.execute(operation)
        case .softmax(let operation): ops.execute(operation)
        case .argmax(let operation): ops.execute(operation)
        case .logProbability(let operation): ops.execute(operation)
        case .sample(let operation): ops.execute(operation)
        case .filter(let operation): ops.execute(operation)
        case .topK(let operation): ops.execute(operation)
        case .selectPages(let operation): ops.execute(operation)
        case .updatePageBounds(let operation): ops.execute(operation)
        case .scorePages(let operation): ops.execute(operation)
        case .adjustLogits(let operation): ops.execute(operation)
        case .verifyDrafts(let operation): ops.execute(operation)
        case .appendKV(let operation): ops.execute(operation)
        case .ropeAppendKV(let operation): ops.execute(operation)
        case .copyPages(let operation): ops.execute(operation)
        case .linear(let operation): try execute(operation)
        }
    }

    /// Nothing to wait for: operations have ended when `execute` returns.
    public func synchronize() throws(FlashInferError) {}

    private func execute(_ operation: LinearOperation) throws(FlashInferError) {
        guard let weights = operation.weights as? PackedMatrix else {
            throw .invalidArgument(
                "weights", found: "of \(operation.weights.device)", expected: "made by this device's makeWeights")
        }
        let (x, y) = (operation.input, operation.output)
        try linearScratch.withLock { (box) throws(FlashInferError) in
            let scratch = try box.scratch(rows: x.shape[0], columns: x.shape[1])
            try linear.run(
                x: x.floats, rows: x.shape[0], stride: x.strides[0], weights: weights, into: y.mutableFloats,
                outputStride: y.strides[0], bias: operation.bias?.floats, accumulate: operation.accumulates,
                pool: pool, scratch: scratch)
        }
    }
}

/// Keeps the largest scratch asked for so far.
private struct ScratchBox: ~Copyable {
    private var kept: LinearScratch?

    mutating func scratch(rows: Int, columns: Int) throws(FlashInferError) -> LinearScratch {
        if let kept, rows * columns <= kept.capacity { return kept }
        let fresh = try LinearScratch(rows: rows, columns: columns)
        kept = fresh
        return fresh
    }
}

extension TensorView {
    /// The float32 elements from the first to the last that the strides reach.
    fileprivate var floats: UnsafeBufferPointer<Float> { UnsafeBufferPointer(mutableFloats) }

    fileprivate var mutableFloats: UnsafeMutableBufferPointer<Float> {
        guard elementCount > 0, let pointer else { return UnsafeMutableBufferPointer(start: nil, count: 0) }
        let reach = (0..<rank).reduce(1) { $0 + (shape[$1] - 1) * strides[$1] }
        return UnsafeMutableBufferPointer(start: pointer.assumingMemoryBound(to: Float.self), count: reach)
    }
}

extension PackedMatrix: DeviceWeights {
    /// The host.
    public var device: DeviceID { .cpu }
}
