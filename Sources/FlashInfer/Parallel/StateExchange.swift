public import FlashInferCore

/// States of the same rows on several ranks, merged on all of them.
///
/// Each rank has a state (output, LSE) over its own keys; afterwards every rank has the attention over all keys. FlashInfer's Python
/// package has the like as a decode-context-parallel LSE reduction (`decode_cp_a2a_lse_reduce`).
///
/// ```swift
/// let exchange = try StateExchange(ranks, on: device, rows: 8, heads: 32, headDim: 128)
/// try attention.run(queries, cache, into: exchange.values(8), logSumExp: exchange.logSumExp(8))
/// try exchange.merge(rows: 8, into: output, logSumExp: nil)
/// ```
/// `merge` allocates nothing; with NCCL it can be captured in a graph.
public struct StateExchange: ~Copyable, Sendable {
    /// How states travel.
    public enum Form: String, Sendable, CaseIterable {
        /// One all-gather of every rank's state, then one merge: fewest steps. All ranks merge in the ranks' order, so all have the same bits.
        case allGather
        /// States passed round the ring, each merged as it comes: memory for four states, whatever the number of ranks. Ranks merge in
        /// different orders, so results differ by rounding.
        case ring
    }

    /// How states travel.
    public let form: Form
    /// The ranks.
    public let ranks: any Communicator

    let device: any Device
    private let slots: StateSlots
    /// The ranks again, where they exchange and merge in one step.
    private let merger: (any StateMerging)?

    /// Memory for the exchange of states of up to `rows` rows.
    ///
    /// - Parameters:
    ///   - stateType: the type in which values travel: float32, float16 or bfloat16. The same on all ranks.
    /// - Throws: ``FlashInferError`` where the communicator is another device's, the type is none of those, or memory is short.
    public init(
        _ ranks: any Communicator, on device: any Device, rows: Int, heads: Int, headDim: Int,
        stateType: DType = .float32, form: Form = .allGather
    ) throws(FlashInferError) {
        guard ranks.device == device.id else {
            throw .invalidArgument("communicator", found: "on \(ranks.device)", expected: "on \(device.id)")
        }
        guard stateType == .float32 || stateType == .float16 || stateType == .bfloat16 else {
            throw .invalidArgument("state type", found: "\(stateType)", expected: "float32, float16 or bfloat16")
        }
        for (name, value) in [("rows", rows), ("heads", heads), ("head dim", headDim)] where value < 1 {
            throw .invalidArgument(name, found: "\(value)", expected: "1 or more")
        }
        let slots = try StateSlots(
            on: device, slots: form == .allGather || ranks.worldSize == 1 ? ranks.worldSize : 4, rows: rows,
            heads: heads, headDim: headDim, dtype: stateType)
        (self.form, self.ranks, self.device) = (form, ranks, device)
        self.slots = slots
        merger = form == .allGather && ranks.worldSize > 1 ? ranks as? any StateMerging : nil
    }

    /// Rows that there is room for.
    public var rowCapacity: Int { slots.rowCapacity }

    /// Which slot this rank's own state lies in: in its place among all ranks', or the first that is passed on.
    private var ownSlot: Int { form == .allGather ? ranks.rank : 0 }

    private func check(_ rows: Int) throws(FlashInferError) {
        guard rows >= 0, rows <= slots.rowCapacity else {
            throw .capacityExceeded("the exchange of states (rows)", required: rows, capacity: slots.rowCapacity)
        }
    }

    /// Where this rank's outputs go before ``merge(rows:into:logSumExp:)``: `[rows, heads, headDim]` of the state type.
    public func values(_ rows: Int) throws(FlashInferError) -> TensorView {
        try check(rows)
        return try slots.values(ownSlot..<ownSlot + 1, rows: rows).select(0)
    }

    /// Where this rank's base-2 LSEs go: `[rows, heads]`, float32.
    public func logSumExp(_ rows: Int) throws(FlashInferError) -> TensorView {
        try check(rows)
        return try slots.logSumExp(ownSlot..<ownSlot + 1, rows: rows).select(0)
    }

    /// Exchanges and merges the states of `rows` rows: a collective, with the same `rows` on all ranks.
    ///
    /// - Parameters:
    ///   - output: `[rows, heads, headDim]`, float32, float16 or bfloat16.
    ///   - logSumExp: `[rows, heads]`, float32; `nil` where not wanted.
    /// - Throws: ``FlashInferError`` where a tensor does not fit, and the communicator's.
    public func merge(
        rows: Int, into output: TensorView, logSumExp: TensorView? = nil
    ) throws(FlashInferError) {
        try check(rows)
        guard rows > 0 else { return }
        if form == .ring, ranks.worldSize > 1 { return try mergeRing(rows, output, logSumExp) }
        let all = 0..<ranks.worldSize
        let operation = try MergeStatesOperation(
            values: slots.values(all, rows: rows), logSumExp: slots.logSumExp(all, rows: rows), output: output,
            mergedLogSumExp: logSumExp)
        try operation.validate()
        if let merger, try merger.exchange(operation) { return }
        if ranks.worldSize > 1 {
            try ranks.allGather(
                slots.region(ownSlot..<ownSlot + 1, rows: rows), into: slots.region(all, rows: rows))
        }
        try device.execute(.mergeStates(operation))
    }

    /// A merge takes neighbouring slots and writes to another. What is merged takes turns between slots 0 and 2, and what comes between the
    /// slots after them, so that it is still there to be passed on.
    private func mergeRing(_ rows: Int, _ output: TensorView, _ logSumExp: TensorView?) throws(FlashInferError) {
        var (merged, message) = (0, 0)
        for step in 1..<ranks.worldSize {
            let (next, target) = (merged + 1, 2 - merged)
            try ranks.passOn(
                slots.region(message..<message + 1, rows: rows), receiving: slots.region(next..<next + 1, rows: rows))
            let (pair, isLast) = (merged..<next + 1, step == ranks.worldSize - 1)
            try device.run(
                .mergeStates(
                    MergeStatesOperation(
                        values: slots.values(pair, rows: rows), logSumExp: slots.logSumExp(pair, rows: rows),
                        output: isLast ? output : slots.values(target..<target + 1, rows: rows).select(0),
                        mergedLogSumExp: isLast
                            ? logSumExp : slots.logSumExp(target..<target + 1, rows: rows).select(0))))
            (merged, message) = (target, next)
        }
    }
}
