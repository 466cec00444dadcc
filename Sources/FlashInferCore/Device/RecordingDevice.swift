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
/// With `recordsGraphs` it captures as a GPU does, and refuses within a capture what a GPU would refuse.
public final class RecordingDevice: Device {
    private struct State {
        var operations: [Operation] = []
        var live: [UInt: Int] = [:]
        var nextAddress: UInt = 4096
        var uploads: [MemoryRegion] = []
        var downloads: [MemoryRegion] = []
        var plans: [MemoryRegion] = []
        var synchronizations = 0
        /// What the capture in progress has recorded.
        var captured: [Operation]?
        var graphs: [RecordedGraph] = []
    }

    private let state = Mutex(State())
    private let traits: KernelTraits
    private let queryTypes: Set<DType>?
    private let weightType: DType

    /// ``DeviceID/recording``.
    public let id = DeviceID.recording
    /// "recording".
    public let name = "recording"
    /// The limits it was made with.
    public let limits: DeviceLimits
    /// As it was made.
    public let recordsGraphs: Bool

    /// A recorder that plans as a device with these processors and kernels would.
    ///
    /// - Parameters:
    ///   - processors: workers to plan for.
    ///   - traits: kernels to plan with; by default one tile of 64 packed rows of one head.
    ///   - recordsGraphs: whether ``capture(_:)`` records, as on a GPU.
    ///   - queryTypes: the types of queries that attention takes; `nil` for any.
    ///   - weightType: the type that products' weights have, and their inputs besides float32.
    public init(
        processors: Int = 132, traits: KernelTraits? = nil, recordsGraphs: Bool = false,
        queryTypes: Set<DType>? = nil, weightType: DType = .float32
    ) {
        limits = DeviceLimits(processors: processors)
        self.traits =
            traits
            ?? KernelTraits(
                tiles: [
                    .init(maximumRows: .max, queryRows: 64, kvHeads: 1, fixedCost: 128, keyCost: 1, pairCost: 1 / 64)
                ],
                kvGranularity: 64, minimumSplit: 128)
        self.recordsGraphs = recordsGraphs
        self.queryTypes = queryTypes
        self.weightType = weightType
    }

    /// The operations executed so far, in order; those captured are in ``graphs`` instead.
    public var operations: [Operation] { state.withLock { $0.operations } }

    /// The graphs captured so far, in order.
    public var graphs: [RecordedGraph] { state.withLock { $0.graphs } }

    /// Bytes allocated and not yet freed.
    public var liveByteCount: Int { state.withLock { $0.live.values.reduce(0, +) } }

    /// Where the host has uploaded to so far, in order.
    public var uploads: [MemoryRegion] { state.withLock { $0.uploads } }

    /// What the host has downloaded so far, in order.
    public var downloads: [MemoryRegion] { state.withLock { $0.downloads } }

    /// The workspaces that plans were prepared in so far, in order.
    public var preparedWorkspaces: [MemoryRegion] { state.withLock { $0.plans } }

    /// Bytes uploaded so far.
    public var uploadedByteCount: Int { uploads.reduce(0) { $0 + $1.byteCount } }

    /// Bytes downloaded so far.
    public var downloadedByteCount: Int { downloads.reduce(0) { $0 + $1.byteCount } }

    /// How often `synchronize()` was called.
    public var synchronizationCount: Int { state.withLock { $0.synchronizations } }

    /// Forgets what was executed, uploaded, downloaded and prepared; graphs stay.
    public func reset() {
        state.withLock { state in
            state.operations = []
            state.uploads = []
            state.downloads = []
            state.plans = []
        }
    }

    /// The traits it was made with.
    ///
    /// - Throws: ``FlashInferError/unsupported(_:device:nearest:)`` for queries of a type it was not made for.
    public func kernelTraits(for problem: AttentionProblem) throws(FlashInferError) -> KernelTraits {
        if let queryTypes, !queryTypes.contains(problem.queryType) {
            let nearest = queryTypes.map(\.description).sorted().joined(separator: " or ")
            throw .unsupported("\(problem.queryType) queries", device: name, nearest: nearest)
        }
        return traits
    }

    /// A new range of addresses.
    public func allocate(byteCount: Int) throws(FlashInferError) -> MemoryRegion {
        guard byteCount >= 0, byteCount < 1 << 60 else { throw .outOfMemory(byteCount: byteCount, device: name) }
        return try state.withLock { (state) throws(FlashInferError) in
            try Self.refuse(state, "allocate")
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

    /// Remembers where to.
    public func upload(_ source: UnsafeRawBufferPointer, to destination: MemoryRegion) throws(FlashInferError) {
        precondition(source.count == destination.byteCount, "an upload's sizes are equal")
        try state.withLock { (state) throws(FlashInferError) in
            try Self.refuse(state, "upload")
            state.uploads.append(destination)
        }
    }

    /// Remembers where from, and gives zeros.
    public func download(
        _ source: MemoryRegion, to destination: UnsafeMutableRawBufferPointer
    ) throws(FlashInferError) {
        precondition(source.byteCount == destination.count, "a download's sizes are equal")
        destination.initializeMemory(as: UInt8.self, repeating: 0)
        try state.withLock { (state) throws(FlashInferError) in
            try Self.refuse(state, "download")
            state.downloads.append(source)
        }
    }

    /// Changes nothing.
    public func fill(_ region: MemoryRegion, with byte: UInt8) throws(FlashInferError) {}

    /// Weights of the right size and no content.
    public func makeWeights(_ parts: [WeightRows]) throws(FlashInferError) -> any DeviceWeights {
        try RecordedWeights(parts, type: weightType, on: self)
    }

    /// Remembers the workspace.
    ///
    /// - Throws: ``FlashInferError/capacityExceeded(_:required:capacity:)`` where the plan is larger than `capacity`.
    public func prepare(_ plan: Plan, capacity: PlanSize, in workspace: MemoryRegion) throws(FlashInferError) {
        try capacity.requireRoom(for: plan.size)
        try state.withLock { (state) throws(FlashInferError) in
            try Self.refuse(state, "prepare")
            state.plans.append(workspace)
        }
    }

    /// Remembers what `body` executes as a graph; `nil` where it was made not to record.
    public func capture(
        _ body: () throws(FlashInferError) -> Void
    ) throws(FlashInferError) -> (any DeviceGraph)? {
        guard recordsGraphs else { return nil }
        try state.withLock { (state) throws(FlashInferError) in
            try Self.refuse(state, "capture")
            state.captured = []
        }
        do {
            try body()
        } catch {
            state.withLock { $0.captured = nil }
            throw error
        }
        return state.withLock { state in
            let graph = RecordedGraph(operations: state.captured ?? [])
            state.captured = nil
            state.graphs.append(graph)
            return graph
        }
    }

    /// Remembers the operation.
    public func execute(_ operation: Operation) throws(FlashInferError) {
        state.withLock { state in
            if state.captured != nil { state.captured?.append(operation) } else { state.operations.append(operation) }
        }
    }

    /// Counts the call.
    public func synchronize() throws(FlashInferError) {
        try state.withLock { (state) throws(FlashInferError) in
            try Self.refuse(state, "synchronize")
            state.synchronizations += 1
        }
    }

    private static func refuse(_ state: State, _ call: String) throws(FlashInferError) {
        if state.captured != nil { throw .deviceFailure(call: call, message: "not within a capture") }
    }
}

/// What a ``RecordingDevice`` captured.
public final class RecordedGraph: DeviceGraph {
    /// The operations, in order.
    public let operations: [Operation]
    private let replays = Atomic(0)

    init(operations: [Operation]) { self.operations = operations }

    /// How often it was replayed.
    public var replayCount: Int { replays.load(ordering: .relaxed) }

    /// Counts the call.
    public func replay() throws(FlashInferError) { replays.add(1, ordering: .relaxed) }
}

/// The sizes of weights that were never stored.
private final class RecordedWeights: DeviceWeights {
    let rows: Int
    let columns: Int
    let byteCount: Int
    let device: DeviceID
    let inputType: DType
    private let buffer: DeviceBuffer

    var table: TensorView? { buffer.view }

    init(_ parts: [WeightRows], type: DType, on device: RecordingDevice) throws(FlashInferError) {
        (rows, columns) = try WeightRows.stackedSize(parts)
        byteCount = parts.reduce(0) { $0 + $1.bytes.count }
        self.device = device.id
        inputType = type
        buffer = try DeviceBuffer(on: device, dtype: type, shape: [rows, columns])
    }
}
