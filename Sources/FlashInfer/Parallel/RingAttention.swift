public import FlashInferCore

/// Attention over a prompt whose queries, keys and values are spread over ranks: keys and values are passed round a ring, and each rank
/// attends to each part as it comes (ring attention, arXiv 2310.01889).
///
/// No rank ever holds more than two parts of the keys, nor any state but its own rows'. Causal attention is the same work for all ranks with
/// ``KVSplit/zigzag(pages:)``.
///
/// ```swift
/// let shares = [try KVShare(.zigzag(ofLength: 65_536, pageSize: 1, ranks: 4), pageSize: 1, rank: ranks.rank, worldSize: 4)]
/// let attention = try RingAttention(
///     shares: shares, queryLengths: [65_536], kvLengths: [65_536], shape: shape, variant: .causal, type: .bfloat16,
///     across: ranks, on: device)
/// try attention.run(queries, keys: keys, values: values, into: output)   // this rank's rows of each
/// ```
public struct RingAttention: ~Copyable, Sendable {
    /// This rank's rows of queries and outputs, of all requests together.
    public let rowCount: Int
    /// This rank's rows of keys and values, of all requests together.
    public let keyCount: Int

    private let ranks: any Communicator
    private let device: any Device
    private let shape: AttentionShape
    private let type: DType
    /// Rows of keys of each rank.
    private let keyCounts: [Int]
    /// Attention to the part that comes at each step; `nil` where no row sees any of it.
    private let steps: [Step?]
    private let slots: StateSlots
    /// Two places for keys and values on their way.
    private let parts: DeviceBuffer
    private let partByteCount: Int

    /// A class, as an array holds no plans.
    private final class Step: Sendable {
        let attention: PlannedAttention

        init(_ attention: consuming PlannedAttention) { self.attention = attention }
    }

    /// Plans all steps.
    ///
    /// - Parameters:
    ///   - shares: `[requests]`: this rank's part of each request, pages of any size.
    ///   - queryLengths: `[requests]`, the last positions of each request that are queries, on all ranks together.
    ///   - kvLengths: `[requests]`, keys of each request on all ranks together.
    ///   - type: of queries, keys and values: float32, float16 or bfloat16.
    ///   - stateType: of what a step gives before it is merged. Hopper's kernels write 16-bit types only, so long prompts are faster with
    ///     bfloat16, for a rounding a step.
    /// - Throws: ``FlashInferError/unsupported(_:device:nearest:)`` for variants that ask for positions or have sinks,
    ///   ``FlashInferError/rankMismatch(_:rank:found:expected:)`` where ranks differ; planning's errors.
    public init(
        shares: [KVShare], queryLengths: [Int32], kvLengths: [Int32], shape: AttentionShape, variant: AttentionVariant,
        type: DType, stateType: DType = .float32, across ranks: any Communicator, on device: any Device
    ) throws(FlashInferError) {
        guard ranks.device == device.id else {
            throw .invalidArgument("communicator", found: "on \(ranks.device)", expected: "on \(device.id)")
        }
        for (request, share) in shares.enumerated()
        where share.rank != ranks.rank || share.worldSize != ranks.worldSize {
            throw .invalidRequest(
                request, argument: "rank of its share", found: share.rank,
                expected: "\(ranks.rank) of \(ranks.worldSize), the communicator's")
        }
        try ranks.requireAgreement([
            ("requests", shares.count), ("query heads", shape.queryHeads), ("kv heads", shape.kvHeads),
            ("head dim (qk)", shape.headDimQK), ("head dim (vo)", shape.headDimVO),
            ("keys", kvLengths.reduce(0) { $0 + Int($1) }), ("queries", queryLengths.reduce(0) { $0 + Int($1) }),
        ])
        var steps: [Step?] = []
        var keyCounts = [Int](repeating: 0, count: ranks.worldSize)
        var rows = 0
        for step in 0..<ranks.worldSize {
            let source = (ranks.rank + ranks.worldSize - step) % ranks.worldSize
            let geometry = try BatchGeometry.ringStep(
                shares: shares, keysOf: source, queryLengths: queryLengths, kvLengths: kvLengths,
                isCausal: variant.form.mask == .causal)
            rows = geometry.queryCount
            keyCounts[source] = geometry.blocks.blockLimit
            let problem = try AttentionProblem(
                geometry: geometry, shape: shape, variant: variant, queryType: type, kvType: type,
                outputType: stateType)
            if let reason = problem.reasonAgainstLevels ?? (variant.hasSinks ? "sinks" : nil) {
                throw .unsupported(
                    "\(reason) in a ring", device: device.name, nearest: "full or causal attention, and soft caps")
            }
            let isSeen = (0..<geometry.requestCount).contains {
                geometry.kvLength($0) > 0 && geometry.queryLength($0) > 0
            }
            // The first step leaves a state whatever it sees.
            steps.append(step == 0 || isSeen ? Step(try PlannedAttention(problem, on: device)) : nil)
        }
        let keyBytes = shape.kvHeads * shape.headDimQK * type.byteCount
        let valueBytes = shape.kvHeads * shape.headDimVO * type.byteCount
        let largest = keyCounts.max() ?? 0
        let partByteCount = ((largest * keyBytes + 255) & ~255) + ((largest * valueBytes + 255) & ~255)
        let parts = try DeviceBuffer(on: device, dtype: .uint8, shape: [max(2 * partByteCount, 1)])
        let slots = try StateSlots(
            on: device, slots: 3, rows: max(rows, 1), heads: shape.queryHeads, headDim: shape.headDimVO,
            dtype: stateType)
        (self.ranks, self.device, self.shape, self.type) = (ranks, device, shape, type)
        (self.steps, self.keyCounts, rowCount, keyCount) = (steps, keyCounts, rows, keyCounts[ranks.rank])
        self.partByteCount = partByteCount
        self.parts = parts
        self.slots = slots
    }

    /// Where the keys or values of `count` rows lie in one of the two places: values follow keys, so that a part is one message.
    private func part(_ place: Int, _ count: Int) throws(FlashInferError) -> (keys: TensorView, values: TensorView) {
        let start = place * partByteCount
        let keys: Shape = [count, shape.kvHeads, shape.headDimQK]
        return try (
            TensorView(parts.region, byteOffset: start, dtype: type, shape: keys, name: "keys on their way"),
            TensorView(
                parts.region, byteOffset: start + keyByteCount(count), dtype: type,
                shape: [count, shape.kvHeads, shape.headDimVO], name: "values on their way")
        )
    }

    private func keyByteCount(_ count: Int) -> Int {
        (count * shape.kvHeads * shape.headDimQK * type.byteCount + 255) & ~255
    }

    private func message(_ place: Int, _ count: Int) -> MemoryRegion {
        MemoryRegion(
            address: parts.region.address + UInt(place * partByteCount),
            byteCount: count == 0
                ? 0 : keyByteCount(count) + count * shape.kvHeads * shape.headDimVO * type.byteCount,
            device: parts.region.device)
    }

    /// Runs one layer: a collective.
    ///
    /// - Parameters:
    ///   - queries: `[rowCount, queryHeads, headDimQK]`: this rank's rows, request after request, each in order of position.
    ///   - keys: `[keyCount, kvHeads, headDimQK]`, contiguous: this rank's keys in the same order.
    ///   - values: `[keyCount, kvHeads, headDimVO]`, contiguous.
    ///   - output: `[rowCount, queryHeads, headDimVO]`.
    ///   - logSumExp: `[rowCount, queryHeads]`, float32; `nil` where not wanted.
    /// - Throws: ``FlashInferError`` where a tensor does not fit the plan, and the communicator's.
    public func run(
        _ queries: TensorView, keys: TensorView, values: TensorView, into output: TensorView,
        logSumExp: TensorView? = nil
    ) throws(FlashInferError) {
        let own = try part(0, keyCount)
        for (name, view, place) in [("keys", keys, own.keys), ("values", values, own.values)] {
            guard view.dtype == type, view.shape == place.shape, view.isContiguous, view.device == device.id else {
                throw .invalidArgument(
                    name, found: "\(view.dtype) \(view.shape) on \(view.device)",
                    expected: "contiguous \(type) \(place.shape) on \(device.id)")
            }
        }
        let worldSize = ranks.worldSize
        if keyCount > 0, worldSize > 1 {
            try device.run(.add(AddOperation(first: keys, output: own.keys)))
            try device.run(.add(AddOperation(first: values, output: own.values)))
        }
        // The running state takes turns between slots 0 and 2, and a step's own is in slot 1, so that a merge takes neighbours.
        var running = 0
        for step in 0..<worldSize {
            let (source, place) = ((ranks.rank + worldSize - step) % worldSize, step % 2)
            let count = keyCounts[source]
            if step + 1 < worldSize {
                let coming = keyCounts[(source + worldSize - 1) % worldSize]
                try ranks.passOn(message(place, count), receiving: message(1 - place, coming))
            }
            guard rowCount > 0, let attention = steps[step] else { continue }
            let (stepKeys, stepValues) = step == 0 ? (keys, values) : try part(place, count)
            let target = step == 0 ? 0 : 1
            try attention.attention.run(
                queries, .ragged(keys: stepKeys, values: stepValues),
                into: slots.values(target..<target + 1, rows: rowCount).select(0),
                logSumExp: slots.logSumExp(target..<target + 1, rows: rowCount).select(0))
            guard step > 0 else { continue }
            let pair = running == 0 ? 0..<2 : 1..<3
            running = 2 - running
            let merged = running..<running + 1
            try device.run(
                .mergeStates(
                    MergeStatesOperation(
                        values: slots.values(pair, rows: rowCount), logSumExp: slots.logSumExp(pair, rows: rowCount),
                        output: slots.values(merged, rows: rowCount).select(0),
                        mergedLogSumExp: slots.logSumExp(merged, rows: rowCount).select(0))))
        }
        guard rowCount > 0 else { return }
        try device.run(
            .mergeStates(
                MergeStatesOperation(
                    values: slots.values(running..<running + 1, rows: rowCount),
                    logSumExp: slots.logSumExp(running..<running + 1, rows: rowCount), output: output,
                    mergedLogSumExp: logSumExp)))
    }
}
