internal import Synchronization

/// A device that runs nothing and remembers everything: for testing what a server, an engine or a planner would launch.
///
/// It has an address space but no memory behind it; uploads and downloads are counted, downloads give zeros.
///
/// ```swift
/// let device = RecordingDevice(processors: 132)
/// try device.execute(.attention(operation))
/// device.operations.count  // 1
/// ```
public final class RecordingDevice: Device {
    private struct State {
        var operations: [Operation] = []
        var live: [UInt: Int] = [:]
        var nextAddress: UInt = 4096
        var uploaded = 0
        var downloaded = 0
        var synchronizations = 0
    }

    private let state = Mutex(State())
    private let traits: KernelTraits

    /// ``DeviceID/recording``.
    public let id = DeviceID.recording
    /// "recording".
    public let name = "recording"
    /// The limits it was made with.
    public let limits: DeviceLimits

    /// A recorder that plans as a device with these processors and kernels would.
    ///
    /// - Parameters:
    ///   - processors: workers to plan for.
    ///   - traits: kernels to plan with; by default one tile of 64 packed rows of one head.
    public init(processors: Int = 132, traits: KernelTraits? = nil) {
        limits = DeviceLimits(processors: processors)
        self.traits =
            traits
            ?? KernelTraits(
                tiles: [
                    .init(maximumRows: .max, queryRows: 64, kvHeads: 1, fixedCost: 128, keyCost: 1, pairCost: 1 / 64)
                ],
                kvGranularity: 64, minimumSplit: 128)
    }

    /// The operations executed so far, in order.
    public var operations: [Operation] { state.withLock { $0.operations } }

    /// Bytes allocated and not yet freed.
    public var liveByteCount: Int { state.withLock { $0.live.values.reduce(0, +) } }

    /// Bytes uploaded so far.
    public var uploadedByteCount: Int { state.withLock { $0.uploaded } }

    /// Bytes downloaded so far.
    public var downloadedByteCount: Int { state.withLock { $0.downloaded } }

    /// How often `synchronize()` was called.
    public var synchronizationCount: Int { state.withLock { $0.synchronizations } }

    /// Forgets what was executed.
    public func reset() { state.withLock { $0.operations = [] } }

    /// The traits it was made with.
    public func kernelTraits(for problem: AttentionProblem) throws(FlashInferError) -> KernelTraits { traits }

    /// A new range of addresses.
    public func allocate(byteCount: Int) throws(FlashInferError) -> MemoryRegion {
        guard byteCount >= 0, byteCount < 1 << 60 else { throw .outOfMemory(byteCount: byteCount, device: name) }
        return state.withLock { state in
            let address = state.nextAddress
            // Every allocation has an address of its own, empty ones too.
            state.nextAddress += UInt(max(byteCount, 1) + 4095) & ~4095
            state.live[address] = byteCount
            return MemoryRegion(address: address, byteCount: byteCount, device: id)
        }
    }

    /// Forgets a range of addresses.
    ///
    /// - Precondition: it was allocated here and not freed before.
    public func deallocate(_ region: MemoryRegion) {
        state.withLock { state in
            precondition(state.live.removeValue(forKey: region.address) != nil, "freed twice, or not allocated here")
        }
    }

    /// Counts the bytes.
    public func upload(_ source: UnsafeRawBufferPointer, to destination: MemoryRegion) throws(FlashInferError) {
        precondition(source.count == destination.byteCount, "an upload's sizes are equal")
        state.withLock { $0.uploaded += source.count }
    }

    /// Counts the bytes and gives zeros.
    public func download(
        _ source: MemoryRegion, to destination: UnsafeMutableRawBufferPointer
    ) throws(FlashInferError) {
        precondition(source.byteCount == destination.count, "a download's sizes are equal")
        destination.initializeMemory(as: UInt8.self, repeating: 0)
        state.withLock { $0.downloaded += source.byteCount }
    }

    /// Changes nothing.
    public func fill(_ region: MemoryRegion, with byte: UInt8) throws(FlashInferError) {}

    /// Weights of the right size and no content.
    public func makeWeights(_ parts: [WeightRows]) throws(FlashInferError) -> any DeviceWeights {
        try RecordedWeights(parts, device: id)
    }

    /// Remembers the operation.
    public func execute(_ operation: Operation) throws(FlashInferError) {
        state.withLock { $0.operations.append(operation) }
    }

    /// Counts the call.
    public func synchronize() throws(FlashInferError) { state.withLock { $0.synchronizations += 1 } }
}

/// The sizes of weights that were never stored.
private final class RecordedWeights: DeviceWeights {
    let rows: Int
    let columns: Int
    let byteCount: Int
    let device: DeviceID

    init(_ parts: [WeightRows], device: DeviceID) throws(FlashInferError) {
        (rows, columns) = try WeightRows.stackedSize(parts)
        byteCount = parts.reduce(0) { $0 + $1.bytes.count }
        self.device = device
    }
}
