internal import CFlashInfer
internal import FlashInferCore
internal import Synchronization

/// What an `fi_attention` points to: settings, the plan in force, and a workspace that grows to the largest plan.
final class AttentionHandle: Sendable {
    /// The device, which the workspace needs as long as it lives.
    let device: DeviceHandle
    private let state: Mutex<State>

    /// What runs read.
    struct State: ~Copyable {
        var settings: AttentionSettings
        var plan: Plan?
        /// Memory of the device's own stream.
        var workspace: DeviceBuffer?
        /// What the workspace was allocated for.
        var allocated: PlanSize?
        /// Whose work may be using the workspace.
        var users: [User] = []
        /// Keys of a block of the matrix, where the plan is of a block-sparse one.
        var columnBlock: Int?
        /// Kept with the settings, as it takes longer than a plan.
        var capacity: PlanSize?

        /// Waits for whoever may be using the workspace, so that it can be freed.
        mutating func finishUsers() {
            for user in users {
                // A stream that is being captured has nothing to wait for.
                if let stream = user.stream, stream.id != .cpu { try? stream.device.synchronize() }
            }
            users = []
        }

        /// Notes that a stream's work uses the workspace.
        mutating func use(_ stream: StreamState) {
            for user in users where user.stream === stream { return }
            users.removeAll { $0.stream == nil }
            users.append(User(stream: stream))
        }
    }

    /// A stream; gone once it is forgotten, after its work.
    struct User {
        weak var stream: StreamState?
    }

    init(_ settings: AttentionSettings, on device: DeviceHandle) {
        self.device = device
        state = Mutex(State(settings: settings))
    }

    deinit { state.withLock { $0.finishUsers() } }

    /// The heads of the cache.
    func kvHeads() -> Int { state.withLock { $0.settings.shape.kvHeads } }

    /// Other settings; the plan goes.
    func configure(_ settings: AttentionSettings) {
        state.withLock { state in
            state.settings = settings
            (state.plan, state.columnBlock, state.capacity) = (nil, nil, nil)
        }
    }

    /// Plans a batch and puts the plan where the kernels read it, in order on a stream.
    ///
    /// - Throws: planning's errors; then the plan before stays in force.
    func plan(_ geometry: BatchGeometry, columnBlock: Int? = nil, on stream: StreamState) throws(FlashInferError) {
        try state.withLock { (state) throws(FlashInferError) in
            let settings = state.settings
            let problem = try settings.problem(geometry)
            let traits = try stream.device.kernelTraits(for: problem)
            let processors = stream.device.limits.processors
            if state.capacity == nil { state.capacity = try settings.capacity(traits, processors: processors) }
            let next = try Planner.plan(
                problem, traits: traits, processors: processors, mode: settings.mode(traits), capacity: state.capacity)
            let size = next.size
            if let allocated = state.allocated, allocated.covers(size), let region = state.workspace?.region,
                state.capacity.map({ allocated.covers($0) }) ?? true
            {
                try stream.device.prepare(next, capacity: allocated, in: region)
            } else {
                let wanted = state.capacity ?? size.joined(state.allocated)
                let larger = try DeviceBuffer(
                    on: device.base, dtype: .uint8, shape: [stream.device.workspaceByteCount(for: wanted)])
                // The memory is there for the caller's stream once the library's own has passed its allocation.
                try device.base.synchronize()
                try stream.device.prepare(next, capacity: wanted, in: larger.region)
                state.finishUsers()
                state.workspace = consume larger
                state.allocated = wanted
            }
            state.use(stream)
            state.plan = next
            state.columnBlock = columnBlock
        }
    }

    /// The same with the prefixes that neighbours share read once, where that pays.
    func planSharing(
        _ geometry: BatchGeometry, maximumLevels: Int, on stream: StreamState
    ) throws(FlashInferError) {
        let settings = state.withLock { $0.settings }
        // A captured graph runs all levels that there may be.
        let bound = settings.maximumLevels
        let cascade = try Cascade.discover(
            settings.problem(geometry), on: stream.device, maximumLevels: min(maximumLevels, bound ?? maximumLevels),
            isPadded: bound.map { $0 > 1 } ?? false)
        try plan(cascade.problem.geometry, on: stream)
    }

    /// Calls `body` with the state, one caller at a time.
    @inline(__always)
    func withState<Result>(
        _ body: (inout State) throws(FlashInferError) -> Result
    ) throws(FlashInferError) -> Result {
        try state.withLock { (state) throws(FlashInferError) in try body(&state) }
    }
}

extension PlanSize {
    /// A size that covers this and, where it is of the same heads, `other`: so that batches that take turns do not reallocate.
    func joined(_ other: PlanSize?) -> PlanSize {
        guard let other, other.headDimVO == headDimVO else { return self }
        return PlanSize(
            itemCount: max(itemCount, other.itemCount), mergeCount: max(mergeCount, other.mergeCount),
            partialRowCount: max(partialRowCount, other.partialRowCount), headDimVO: headDimVO,
            requestCount: max(requestCount, other.requestCount), blockCount: max(blockCount, other.blockCount),
            tileMask: tileMask | other.tileMask, stateListCount: max(stateListCount, other.stateListCount),
            stateCount: max(stateCount, other.stateCount), rowTileCount: max(rowTileCount, other.rowTileCount))
    }
}
