internal import CUDAKernels
internal import FlashInferCore
internal import Synchronization

/// A plan that lies in a workspace on the device, with all of its launch that does not depend on tensors.
final class PreparedPlan: Sendable {
    /// Kept whole, so that the memory of its items identifies it.
    let plan: Plan
    let capacity: PlanSize
    let heads: AttentionHeads
    let tiles: [AttentionTile]
    /// In the place of Hopper's tile where the copy engine cannot bring a run's tensors.
    let portable: AttentionTile?
    /// Addresses, sizes and settings; no tensors.
    let parameters: fi_attention_params
    /// The item that each tile's queue starts with.
    let queueStarts: [Int32]
    /// Where captured launches find their queues.
    let queueIndptrAddress: UInt64
    /// Kernels in use, by tile, chunk and scaling.
    private let functions = Mutex<[Choice: CUDAFunction]>([:])
    private let hasCapture = Atomic(false)

    struct Choice: Hashable {
        var tile: Int
        var chunk: Int
        var isScaled: Bool
        /// Whether Hopper's kernel takes the tile.
        var isHopper = false
    }

    init(
        _ plan: Plan, capacity: PlanSize, heads: AttentionHeads, tiles: [AttentionTile], portable: AttentionTile?,
        parameters: fi_attention_params, queueStarts: [Int32], queueIndptrAddress: UInt64
    ) {
        self.plan = plan
        self.capacity = capacity
        self.heads = heads
        self.tiles = tiles
        self.portable = portable
        self.parameters = parameters
        self.queueStarts = queueStarts
        self.queueIndptrAddress = queueIndptrAddress
    }

    /// Whether a captured graph reads this workspace.
    var isCaptured: Bool {
        get { hasCapture.load(ordering: .relaxed) }
        set { hasCapture.store(newValue, ordering: .relaxed) }
    }

    /// Whether this is `other`, by the identity of its items.
    func holds(_ other: Plan, capacity otherCapacity: PlanSize) -> Bool {
        plan.items.count == other.items.count && capacity == otherCapacity
            && plan.items.withUnsafeBufferPointer { own in
                other.items.withUnsafeBufferPointer { own.baseAddress == $0.baseAddress }
            }
    }

    /// Whether a tile's kernel is launched: where it has items, or, in a graph whose plan changes, where it may have some.
    func launches(tile: Int, isCapturing: Bool) -> Bool {
        (isCapturing ? capacity : plan.size).tileMask >> UInt32(tile) & 1 == 1
    }

    /// The tile that a choice launches.
    private func shape(of choice: Choice) -> AttentionTile {
        let tile = tiles[choice.tile]
        return tile.isHopper && !choice.isHopper ? portable ?? tile : tile
    }

    /// Thread blocks of a launch of a tile: one for each head of each list, or as many as a queue keeps busy at a time.
    func blockCount(_ choice: Choice, isCapturing: Bool, processors: Int) -> Int {
        let tile = choice.tile
        if plan.traits.tiles[tile].schedule == .lists { return plan.workerCount * plan.traits.concurrentHeads }
        let resident = processors * shape(of: choice).blocksPerProcessor
        return isCapturing ? resident : min(plan.queue(ofTile: tile).count, resident)
    }

    /// The loaded kernel of a tile.
    func function(_ choice: Choice, on device: CUDADevice) throws(FlashInferError) -> CUDAFunction {
        if let function = functions.withLock({ $0[choice] }) { return function }
        let kernel = AttentionKernel(
            plan.problem, tile: shape(of: choice), isQueued: plan.traits.tiles[choice.tile].schedule == .queue,
            chunk: choice.chunk, isScaled: choice.isScaled)
        let function = try device.kernel(kernel.spec)
        functions.withLock { $0[choice] = function }
        return function
    }

    /// What is kept when the workspace's next plan needs the same kernels.
    func adopt(_ older: PreparedPlan) {
        guard older.hasSameKernels(as: plan) else { return }
        let known = older.functions.withLock { $0 }
        functions.withLock { $0 = known }
    }

    /// Whether `other` differs from this plan in lengths and tables only: what a captured graph can be given.
    func hasSameKernels(as other: Plan) -> Bool {
        let (a, b) = (plan.problem, other.problem)
        return a.shape == b.shape && a.variant == b.variant && a.queryType == b.queryType && a.kvType == b.kvType
            && a.outputType == b.outputType && plan.traits == other.traits
            && plan.workerCount == other.workerCount && Self.haveSameBlocks(a.geometry, b.geometry)
    }

    private static func haveSameBlocks(_ a: BatchGeometry, _ b: BatchGeometry) -> Bool {
        guard a.blocks.blocksAreRows == b.blocks.blocksAreRows, a.blocks.keyPositions == b.blocks.keyPositions,
            a.blocks.blocksAreRows || a.blocks.blockSize == b.blocks.blockSize
        else { return false }
        // Columns count from the matrix's end.
        return a.blocks.keyPositions == .sequential
            || (a.queryCount == b.queryCount && a.blocks.blockLimit == b.blocks.blockLimit)
    }
}

/// The plans that lie in workspaces of one device, by the workspaces' addresses.
final class PreparedPlans: Sendable {
    private let plans = Mutex<[UInt: PreparedPlan]>([:])

    /// The plan in a workspace.
    subscript(workspace: UInt) -> PreparedPlan? {
        get { plans.withLock { $0[workspace] } }
        set { plans.withLock { $0[workspace] = newValue } }
    }

    /// Forgets the plans in memory that is freed.
    func forget(_ region: MemoryRegion) {
        let end = region.address + UInt(region.byteCount)
        plans.withLock { plans in
            if plans.isEmpty { return }
            for address in plans.keys where address >= region.address && address < end { plans[address] = nil }
        }
    }
}
