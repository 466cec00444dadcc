public import FlashInferCore

/// Attention whose keys are spread over ranks: each rank attends to its own, and the states are merged.
///
/// ```swift
/// // On every rank, with the page table of the pages that it has:
/// let share = try KVShare(.interleaved(pages: 1), pageSize: 16, rank: ranks.rank, worldSize: ranks.worldSize)
/// let geometry = try BatchGeometry.paged(
///     shares: [share], kvLengths: [262_144], pageIndptr: [0, Int32(pages.count)], pageIndices: pages, pageCount: 8_192)
/// let attention = try KVParallelAttention(
///     AttentionProblem(geometry: geometry, shape: shape, variant: .causal, queryType: .bfloat16, kvType: .bfloat16),
///     across: ranks, on: device)
/// try attention.run(queries, cache.view(ofLayer: 0), into: output)   // queries and output are whole on every rank
/// ```
/// The result is one rank's within the rounding of a merge in the state type. `run` allocates nothing; with NCCL it can be captured.
public struct KVParallelAttention: ~Copyable, Sendable {
    /// How the ranks' states meet.
    public let exchange: StateExchange

    private var local: PlannedAttention
    private let outputType: DType
    private let stateType: DType
    private let shape: AttentionShape
    private let hasSinks: Bool

    /// Plans this rank's part of a batch, and checks that all ranks have planned the same batch.
    ///
    /// - Parameters:
    ///   - problem: this rank's keys (`BatchGeometry.paged(shares:…)`) and everybody's queries, heads and variant.
    ///   - form: how states travel.
    ///   - stateType: the type in which states travel.
    ///   - maximumRows: query rows of any batch that is planned later; those of `problem` where not given.
    ///   - capacity: as for ``PlannedAttention``.
    /// - Throws: ``FlashInferError/unsupported(_:device:nearest:)`` for variants whose masks or logits ask for keys' positions, which a
    ///   rank's keys do not have; ``FlashInferError/rankMismatch(_:rank:found:expected:)`` where ranks differ; planning's errors.
    public init(
        _ problem: AttentionProblem, across ranks: any Communicator, on device: any Device,
        form: StateExchange.Form = .allGather, stateType: DType = .float32, maximumRows: Int? = nil,
        mode: Planner.Mode = .balanced, capacity: PlanSize? = nil
    ) throws(FlashInferError) {
        let rows = max(problem.geometry.queryCount, maximumRows ?? 0)
        try ranks.requireAgreement(Self.facts(problem, rows, form, stateType))
        let local = try PlannedAttention(
            Self.part(of: problem, ranks, on: device, stateType), on: device, mode: mode, capacity: capacity)
        let exchange = try StateExchange(
            ranks, on: device, rows: max(rows, 1), heads: problem.shape.queryHeads, headDim: problem.shape.headDimVO,
            stateType: stateType, form: form)
        (outputType, self.stateType, shape) = (problem.outputType, stateType, problem.shape)
        hasSinks = problem.variant.hasSinks
        self.local = local
        self.exchange = exchange
    }

    /// Plans another batch, within the rows and the capacity of the first.
    ///
    /// - Parameter checksRanks: whether to check, by messages of the host, that all ranks have planned the same number of rows. Without,
    ///   ranks that differ wait for each other at the next run.
    /// - Throws: as the initialiser does; then the old plan stays in force.
    public mutating func replan(_ problem: AttentionProblem, checksRanks: Bool = true) throws(FlashInferError) {
        let rows = problem.geometry.queryCount
        guard rows <= exchange.rowCapacity else {
            throw .capacityExceeded("the exchange of states (rows)", required: rows, capacity: exchange.rowCapacity)
        }
        guard problem.shape == shape, problem.outputType == outputType, problem.variant.hasSinks == hasSinks else {
            throw .planMismatch(
                "heads, sinks and types", planned: "\(shape), \(outputType)",
                found: "\(problem.shape), \(problem.outputType)")
        }
        if checksRanks { try exchange.ranks.requireAgreement(Self.facts(problem, rows, exchange.form, stateType)) }
        try local.replan(Self.part(of: problem, exchange.ranks, on: exchange.device, stateType))
    }

    /// This rank's plan.
    public var plan: Plan { local.plan }

    /// What all ranks must have in common.
    private static func facts(
        _ problem: AttentionProblem, _ rows: Int, _ form: StateExchange.Form, _ stateType: DType
    ) -> [(name: String, value: Int)] {
        [
            ("query rows", problem.geometry.queryCount), ("maximum rows", rows),
            ("query heads", problem.shape.queryHeads), ("head dim (vo)", problem.shape.headDimVO),
            ("state type (bytes)", stateType.byteCount), ("float16 states", stateType == .float16 ? 1 : 0),
            ("ring exchange", form == .ring ? 1 : 0), ("sinks", problem.variant.hasSinks ? 1 : 0),
        ]
    }

    /// The problem as this rank runs it: the sinks, which count once, are rank 0's, and states have their own type.
    private static func part(
        of problem: AttentionProblem, _ ranks: any Communicator, on device: any Device, _ stateType: DType
    ) throws(FlashInferError) -> AttentionProblem {
        guard ranks.worldSize > 1 else { return problem }
        if let reason = problem.reasonAgainstLevels {
            throw .unsupported(
                "\(reason) over the keys of \(ranks.worldSize) ranks", device: device.name,
                nearest: "full or causal attention, soft caps and sinks; rotate keys before they are appended")
        }
        guard problem.variant.form.weights == nil else {
            throw .unsupported(
                "weights without a sum over the keys of \(ranks.worldSize) ranks", device: device.name,
                nearest: "softmax weights, whose log-sum-exps ranks are merged by")
        }
        var variant = problem.variant
        if ranks.rank > 0 { variant.sink = .none }
        return try AttentionProblem(
            geometry: problem.geometry, shape: problem.shape, variant: variant, queryType: problem.queryType,
            kvType: problem.kvType, outputType: stateType, parameters: problem.parameters)
    }

    /// Runs one layer: a collective.
    ///
    /// - Parameters:
    ///   - queries: `[rows, queryHeads, headDimQK]`: all rows, the same on every rank.
    ///   - cache: this rank's keys and values.
    ///   - output: `[rows, queryHeads, headDimVO]`, of the problem's output type; the same on every rank afterwards.
    ///   - logSumExp: `[rows, queryHeads]`, float32: over the keys of all ranks. `nil` where not wanted.
    ///   - sinks: `[queryHeads]`, float32, where the variant has sinks.
    /// - Throws: ``FlashInferError`` where a tensor does not fit the plan, and the communicator's.
    public func run(
        _ queries: TensorView, queryScale: Float = 1, _ cache: KVCacheView, into output: TensorView,
        logSumExp: TensorView? = nil, sinks: TensorView? = nil
    ) throws(FlashInferError) {
        if exchange.ranks.worldSize == 1 {
            return try local.run(
                queries, queryScale: queryScale, cache, into: output, logSumExp: logSumExp, sinks: sinks)
        }
        let rows = local.plan.problem.geometry.queryCount
        guard output.dtype == outputType else {
            throw .invalidArgument("output", found: "\(output.dtype)", expected: "\(outputType)")
        }
        if hasSinks, sinks == nil {
            throw .invalidArgument(
                "sinks", found: "nil", expected: "float32 [\(shape.queryHeads)], as the plan's variant has sinks")
        }
        try local.run(
            queries, queryScale: queryScale, cache, into: exchange.values(rows), logSumExp: exchange.logSumExp(rows),
            sinks: local.plan.problem.variant.hasSinks ? sinks : nil)
        try exchange.merge(rows: rows, into: output, logSumExp: logSumExp)
    }
}
