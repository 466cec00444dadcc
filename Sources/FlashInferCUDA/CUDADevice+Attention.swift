internal import CUDAKernels
public import FlashInferCore

extension CUDADevice {
    /// The tiles of the attention kernels.
    ///
    /// - Throws: ``FlashInferError/unsupported(_:device:nearest:)`` for float32 queries, a cache of another 16-bit type than 16-bit
    ///   queries', and heads too wide for the processor's shared memory.
    public func kernelTraits(for problem: AttentionProblem) throws(FlashInferError) -> KernelTraits {
        try attention.tuning(for: problem, deviceName: name).traits
    }

    /// The plan, the tables, and the partial states.
    public func workspaceByteCount(for size: PlanSize) -> Int { planLayout(size).byteCount }

    /// Copies a plan to its workspace.
    public func prepare(_ plan: Plan, capacity: PlanSize, in workspace: MemoryRegion) throws(FlashInferError) {
        _ = try queue.gate.inside { () throws(FlashInferError) in
            try prepared(plan, capacity: capacity, in: workspace)
        }
    }

    /// Launches each tile's kernel over the plan's items.
    func execute(_ operation: AttentionOperation) throws(FlashInferError) {
        let address = operation.workspace.address
        let plan: PreparedPlan
        if let known = attention.plans[address], known.holds(operation.plan, capacity: operation.capacity) {
            plan = known
        } else {
            plan = try prepared(operation.plan, capacity: operation.capacity, in: operation.workspace)
        }
        var parameters = plan.parameters
        parameters.set(operation)
        // Per-head scales lie on the device and may have any sign.
        let isScaled =
            !(operation.scoreScale > 0) || operation.cache.scales.keyPerHead != nil
            || operation.queryScalePerHead != nil
        let chunk = operation.chunk(plan.heads)
        let isCapturing = isCapturing
        if isCapturing { plan.isCaptured = true }
        // Kernels read a plan's page ids before those ahead of them have ended, but not ids that one of these may write.
        let mayStartEarly = operation.pageIndices == nil
        if plan.heads.isRagged { try operation.checkRaggedReach() }
        let allowsBoxes = operation.allowsBoxes(parameters, plan.heads)
        let mayMix = allowsBoxes && !isScaled
        let launches =
            isCapturing
            ? plan.capturedLaunches(mayMix: mayMix, processors: limits.processors) : plan.launches(mayMix: mayMix)
        for entry in launches {
            let tile = entry.tile
            parameters.place = entry.place.rawValue
            let isHopper = plan.tiles[tile].isHopper && allowsBoxes
            let choice = PreparedPlan.Choice(
                tile: tile, chunk: chunk, isScaled: isScaled, isHopper: isHopper, runsLists: entry.lists > 0)
            let function = try plan.function(choice, on: self)
            parameters.tile = Int32(tile)
            parameters.queue_start = plan.queueStarts[tile]
            parameters.queue_count = plan.queueStarts[tile + 1] - plan.queueStarts[tile]
            // A captured launch reads where its queue starts, which the next plan may change.
            parameters.queue_indptr = isCapturing ? plan.queueIndptrAddress : 0
            // Latent attention's blocks on Hopper have all columns of the values.
            let slices = isHopper && plan.heads.latentRope > 0 ? 1 : plan.heads.slices
            let grid = (entry.blocks, slices, 1)
            if isHopper {
                var boxed = try fi_hopper_attention_params(
                    parameters, operation, tile: plan.tiles[tile], heads: plan.heads, context: queue.context)
                boxed.lists = Int32(entry.lists)
                try queue.launch(function, grid: grid, mayStartEarly: mayStartEarly, boxed)
            } else {
                try queue.launch(function, grid: grid, mayStartEarly: mayStartEarly, parameters)
            }
        }
        if operation.plan.hasStateLists, isCapturing || operation.plan.partialRowCount > 0 {
            let count = isCapturing ? operation.capacity.stateListCount : operation.plan.size.stateListCount
            if count > 0 {
                try queue.launch(plan.mergeFunction(on: self), grid: (count, 1, 1), parameters)
            }
        }
    }

    private func planLayout(_ size: PlanSize) -> PlanLayout {
        PlanLayout(size, maximumWorkers: limits.processors * AttentionState.maximumWorkersPerProcessor)
    }

    private func prepared(
        _ plan: Plan, capacity: PlanSize, in workspace: MemoryRegion
    ) throws(FlashInferError) -> PreparedPlan {
        try capacity.requireRoom(for: plan.size)
        let layout = planLayout(capacity)
        guard workspace.byteCount >= layout.byteCount, workspace.device == id else {
            throw .invalidArgument(
                "workspace", found: "\(workspace.byteCount) bytes on \(workspace.device)",
                expected: "\(layout.byteCount) bytes on \(id): the device's workspaceByteCount(for:) of the capacity")
        }
        let tuning = try attention.tuning(for: plan.problem, deviceName: name)
        guard tuning.traits == plan.traits, plan.workerCount <= limits.processors * plan.traits.workersPerProcessor
        else {
            throw .planMismatch("the kernels of", planned: "another device", found: name)
        }
        let older = attention.plans[workspace.address]
        if let older, older.isCaptured, !(older.capacity == capacity && older.hasSameKernels(as: plan)) {
            throw older.graphMismatch(plan, capacity: capacity)
        }
        if older?.capacity != capacity {
            // Arrival counters are zero between launches from here on.
            try queue.fill(
                workspace.address + UInt(layout.arrivals), byteCount: layout.items - layout.arrivals, with: 0)
        }
        let items = DeviceItems(plan)
        let sections = items.sections.flatMap { $0.rowTileCount <= capacity.rowTileCount ? $0 : nil }
        // What can fail comes before what replaces the older plan.
        let constants = try attention.constants(
            for: plan.problem, queue: sharedQueue, isShared: sharedQueue !== queue)
        let expand = try sections.map { sections throws(FlashInferError) in
            (sections, try kernel(ExpandItemsKernel.spec))
        }
        try stage(plan, items, expand, layout, in: workspace)
        let next = PreparedPlan(
            plan, capacity: capacity, heads: tuning.heads, tiles: tuning.tiles, portable: tuning.portable,
            mixed: tuning.mixed,
            parameters: fi_attention_params(
                plan, layout: layout, workspace: workspace.address, slopes: constants.slopes, turns: constants.turns,
                sinks: constants.sinks),
            queueStarts: items.queueIndptr,
            queueIndptrAddress: UInt64(workspace.address) + UInt64(layout.queueIndptr),
            processors: limits.processors)
        if let older {
            next.adopt(older)
            next.isCaptured = older.isCaptured
        }
        attention.plans[workspace.address] = next
        return next
    }

    /// One copy of everything that kernels read of a plan.
    private func stage(
        _ plan: Plan, _ items: DeviceItems, _ expand: (sections: HeadSections, kernel: CUDAFunction)?,
        _ layout: PlanLayout, in workspace: MemoryRegion
    ) throws(FlashInferError) {
        let geometry = plan.problem.geometry
        let mask: [Int]
        if let declaration = plan.problem.variant.form.maskTensor {
            mask = try AttentionOperation.maskIndptr(geometry, packed: declaration.extent == .maskBits)
        } else {
            mask = []
        }
        let start = expand == nil ? layout.items : layout.rowTiles
        let byteCount = layout.blockIndices + geometry.blocks.indices.count * 4 - start
        try queue.stage(byteCount: byteCount, to: workspace.address + UInt(start)) { bytes in
            func put<Element: BitwiseCopyable>(_ elements: [Element], at offset: Int) {
                elements.withUnsafeBytes { source in
                    guard let from = source.baseAddress, let to = bytes.baseAddress else { return }
                    (to + (offset - start)).copyMemory(from: from, byteCount: source.count)
                }
            }
            if let base = bytes.baseAddress {
                if let expand { items.writeRowTiles(of: expand.sections, to: base) } else { items.write(to: base) }
            }
            put(items.restIndptr, at: layout.itemIndptr)
            put(items.queueIndptr, at: layout.queueIndptr)
            put(mask, at: layout.maskIndptr)
            if let lists = plan.stateLists {
                put([Int32(lists.listCount)], at: layout.listCount)
                put(lists.segmentIndptr, at: layout.segmentIndptr)
                put(lists.listIndptr, at: layout.listIndptr)
                put(lists.states, at: layout.states)
            }
            put(geometry.blocks.indices, at: layout.blockIndices)
        }
        guard let expand else { return }
        let (params, blocks) = ExpandItemsKernel.lower(
            expand.sections, lists: plan.workerCount, layout: layout, workspace: workspace.address)
        try queue.launch(expand.kernel, grid: (blocks, 1, 1), mayStartEarly: false, params)
        // Kernels may read items before those ahead of them have ended, but not before what is no kernel.
        try queue.fill(workspace.address + UInt(layout.listCount), byteCount: 4, with: 0)
    }
}
