internal import CUDAKernels
internal import FlashInferCore
internal import Synchronization

/// A plan that lies in a workspace on the device, with all of its launch that does not depend on tensors.
final class PreparedPlan: Sendable {
    let plan: Plan
    let capacity: PlanSize
    let heads: AttentionHeads
    let tiles: [AttentionTile]
    /// In the place of Hopper's tile where the copy engine cannot bring a run's tensors.
    let portable: AttentionTile?
    /// The kernel of lists and the longest requests' queue in one launch, where there is one.
    let mixed: AttentionTile?
    /// Addresses, sizes and settings; no tensors.
    let parameters: fi_attention_params
    /// The item that each tile's queue starts with.
    let queueStarts: [Int32]
    /// Where captured launches find their queues.
    let queueIndptrAddress: UInt64
    /// The launches of a run that is not captured, which every layer of every step asks for: with a launch for each tile, and with lists beside
    /// a queue where that is worth it.
    private let separateLaunches: [Launch], mixedLaunches: [Launch]
    /// Whether lists and a queue share a launch, and, of a plan that is captured, those of later plans do.
    private let mixes: Bool
    /// Kernels in use, by tile, chunk and scaling: one or two, so that a search is faster than a hash.
    private let functions = Locked<[(choice: Choice, function: CUDAFunction)]>([])
    private let merging = Locked<CUDAFunction?>(nil)
    private let hasCapture = Atomic(false)

    struct Choice: Equatable {
        var tile: Int
        var chunk: Int
        var isScaled: Bool
        /// Whether Hopper's kernel takes the tile.
        var isHopper = false
        /// Whether the same launch runs the lists.
        var runsLists = false
    }

    /// A tile's launch.
    struct Launch: Sendable {
        var tile: Int
        var blocks: Int
        /// The lists that it runs beside the tile's queue.
        var lists = 0
        var place = Place.alone
    }

    /// A launch's place among those of a run; the numbers are those of `primitives/launch.cuh`.
    enum Place: Int32 {
        case alone = 0
        /// The others need not wait for what was enqueued before it.
        case first = 1
        /// It runs beside those before it.
        case beside = 2
    }

    init(
        _ plan: Plan, capacity: PlanSize, heads: AttentionHeads, tiles: [AttentionTile], portable: AttentionTile?,
        mixed: AttentionTile?, parameters: fi_attention_params, queueStarts: [Int32], queueIndptrAddress: UInt64,
        processors: Int
    ) {
        self.plan = plan
        self.capacity = capacity
        self.heads = heads
        self.tiles = tiles
        self.portable = portable
        self.mixed = mixed
        self.parameters = parameters
        self.queueStarts = queueStarts
        self.queueIndptrAddress = queueIndptrAddress
        let mask = plan.size.tileMask
        separateLaunches = Self.launches(plan, tiles, mask: mask, isCapturing: false, processors: processors)
        mixes = mixed != nil && AttentionTuning.isWorthMixing(plan)
        mixedLaunches =
            mixes ? Self.mixing(separateLaunches, plan, isCapturing: false, processors: processors) : separateLaunches
    }

    /// Whether a captured graph reads this workspace.
    var isCaptured: Bool {
        get { hasCapture.load(ordering: .relaxed) }
        set { hasCapture.store(newValue, ordering: .relaxed) }
    }

    /// Whether this is a copy of `other`, prepared for the same capacity.
    func holds(_ other: Plan, capacity otherCapacity: PlanSize) -> Bool {
        plan.isSame(as: other) && capacity == otherCapacity
    }

    /// The launches of a run that is not captured.
    ///
    /// - Parameter mayMix: whether the run's tensors are ones that the kernel of lists and a queue takes.
    func launches(mayMix: Bool) -> [Launch] { mayMix ? mixedLaunches : separateLaunches }

    /// The launches of a captured run: of every tile that may have items when the graph is given another plan.
    func capturedLaunches(mayMix: Bool, processors: Int) -> [Launch] {
        let launches = Self.launches(
            plan, tiles, mask: capacity.tileMask, isCapturing: true, processors: processors)
        return mayMix && mixes
            ? Self.mixing(launches, plan, isCapturing: true, processors: processors) : launches
    }

    /// The tile that a choice launches.
    private func shape(of choice: Choice) -> AttentionTile {
        let tile = tiles[choice.tile]
        if choice.runsLists, let mixed { return mixed }
        return tile.isHopper && !choice.isHopper ? portable ?? tile : tile
    }

    /// The launches of the tiles of a mask, with a block for each head of each list, or as many as a queue keeps busy at a time.
    private static func launches(
        _ plan: Plan, _ tiles: [AttentionTile], mask: UInt32, isCapturing: Bool, processors: Int
    ) -> [Launch] {
        var launches = tiles.indices.filter { mask >> UInt32($0) & 1 == 1 }.map { tile in
            if plan.traits.tiles[tile].schedule == .lists {
                // Blocks without work would be in the way of the next kernel's; in a graph another plan may have work for them.
                let lists = isCapturing ? plan.workerCount : plan.listsInUse
                return Launch(tile: tile, blocks: lists * plan.traits.concurrentHeads)
            }
            let resident = processors * tiles[tile].blocksPerProcessor
            let blocks = isCapturing ? resident : min(plan.queue(ofTile: tile).count, resident)
            guard tiles[tile].isPaired else { return Launch(tile: tile, blocks: blocks) }
            // Whole clusters.
            return Launch(tile: tile, blocks: min(blocks + blocks % 2, max(resident & ~1, 2)))
        }
        // Latent attention's kernels know no places.
        if !plan.problem.shape.isLatent { setPlaces(&launches) }
        return launches
    }

    private static func setPlaces(_ launches: inout [Launch]) {
        for index in launches.indices {
            launches[index].place = launches.count == 1 ? .alone : index == 0 ? .first : .beside
        }
    }

    /// The same with the lists and the last tile's queue in one launch, if there are both.
    private static func mixing(_ launches: [Launch], _ plan: Plan, isCapturing: Bool, processors: Int) -> [Launch] {
        let traits = plan.traits
        guard launches.count > 1, var last = launches.last, last.tile == traits.tiles.count - 1,
            traits.tiles[last.tile].schedule == .queue, traits.tiles[launches[0].tile].schedule == .lists
        else { return launches }
        // Every processor reads lists, whether it has an item of the queue or not.
        last.blocks = processors
        last.lists = isCapturing ? plan.workerCount : plan.listsInUse
        var mixed = Array(launches.dropFirst().dropLast()) + [last]
        setPlaces(&mixed)
        return mixed
    }

    /// The loaded kernel of a tile.
    func function(_ choice: Choice, on device: CUDADevice) throws(FlashInferError) -> CUDAFunction {
        let known = functions.withLock { functions in functions.first { $0.choice == choice }?.function }
        if let known { return known }
        let kernel = AttentionKernel(
            plan.problem, tile: shape(of: choice), isQueued: plan.traits.tiles[choice.tile].schedule == .queue,
            chunk: choice.chunk, isScaled: choice.isScaled)
        let function = try device.kernel(kernel.spec)
        functions.withLock { functions in
            // Another thread may have been faster with the same one.
            if !functions.contains(where: { $0.choice == choice }) { functions.append((choice, function)) }
        }
        return function
    }

    /// The kernel that merges several levels' states.
    func mergeFunction(on device: CUDADevice) throws(FlashInferError) -> CUDAFunction {
        if let known = merging.withLock({ $0 }) { return known }
        let function = try device.kernel(
            MergeLevelsKernel.spec(output: plan.problem.outputType, headDim: plan.problem.shape.headDimVO))
        merging.withLock { $0 = function }
        return function
    }

    /// What is kept when the workspace's next plan needs the same kernels.
    func adopt(_ older: PreparedPlan) {
        guard older.hasSameKernels(as: plan) else { return }
        let known = older.functions.withLock { $0 }
        functions.withLock { $0 = known }
        let merge = older.merging.withLock { $0 }
        merging.withLock { $0 = merge }
    }

    /// Whether `other` differs from this plan in lengths and tables only: what a captured graph can be given.
    func hasSameKernels(as other: Plan) -> Bool {
        let (a, b) = (plan.problem, other.problem)
        return a.shape == b.shape && a.variant == b.variant && a.queryType == b.queryType && a.kvType == b.kvType
            && a.outputType == b.outputType && plan.traits == other.traits
            && plan.workerCount == other.workerCount && (plan.stateLists == nil) == (other.stateLists == nil)
            && Self.haveSameBlocks(a.geometry, b.geometry)
    }

    /// Why a graph that has captured this plan cannot run another one, which has other kernels or another capacity.
    func graphMismatch(_ other: Plan, capacity otherCapacity: PlanSize) -> FlashInferError {
        func mismatch(_ what: String, _ planned: Any, _ found: Any) -> FlashInferError {
            .planMismatch("a captured graph's \(what)", planned: "\(planned)", found: "\(found)")
        }
        let (a, b) = (plan.problem, other.problem)
        func types(_ problem: AttentionProblem) -> String {
            "\(problem.queryType) queries over \(problem.kvType) to \(problem.outputType)"
        }
        if capacity != otherCapacity { return mismatch("capacity", capacity, otherCapacity) }
        if a.shape != b.shape { return mismatch("shape", a.shape, b.shape) }
        if a.variant != b.variant { return mismatch("variant", "'\(a.variant.name)'", "'\(b.variant.name)'") }
        if types(a) != types(b) { return mismatch("types", types(a), types(b)) }
        return mismatch("kernels, for", "its blocks, tiles and levels", "others")
    }

    private static func haveSameBlocks(_ a: BatchGeometry, _ b: BatchGeometry) -> Bool {
        guard a.blocks.blocksAreRows == b.blocks.blocksAreRows, a.blocks.keyPositions == b.blocks.keyPositions,
            a.blocks.headStride == b.blocks.headStride,
            a.blocks.blocksAreRows || a.blocks.blockSize == b.blocks.blockSize
        else { return false }
        // Columns count from the matrix's end.
        return a.blocks.keyPositions != .columns
            || (a.queryCount == b.queryCount && a.blocks.blockLimit == b.blocks.blockLimit)
    }
}

extension Plan {
    /// The lists up to the last that has items.
    fileprivate var listsInUse: Int {
        var lists = workerCount
        while lists > 0, itemIndptr[lists - 1] == itemIndptr[lists] { lists -= 1 }
        return lists
    }
}

/// The plans that lie in workspaces of one device, by the workspaces' addresses.
final class PreparedPlans: Sendable {
    private struct Content {
        var plans: [UInt: PreparedPlan] = [:]
        /// The one asked for last: all layers of a step ask for the same.
        var last: (workspace: UInt, plan: PreparedPlan)?
    }

    private let content = Locked(Content())

    /// The plan in a workspace.
    subscript(workspace: UInt) -> PreparedPlan? {
        get {
            content.withLock { content in
                if let last = content.last, last.workspace == workspace { return last.plan }
                let plan = content.plans[workspace]
                content.last = plan.map { (workspace, $0) }
                return plan
            }
        }
        set {
            content.withLock { content in
                content.plans[workspace] = newValue
                content.last = newValue.map { (workspace, $0) }
            }
        }
    }

    /// Forgets the plans in memory that is freed.
    func forget(_ region: MemoryRegion) {
        let end = region.address + UInt(region.byteCount)
        content.withLock { content in
            if content.plans.isEmpty { return }
            for address in content.plans.keys where address >= region.address && address < end {
                content.plans[address] = nil
            }
            content.last = nil
        }
    }
}
