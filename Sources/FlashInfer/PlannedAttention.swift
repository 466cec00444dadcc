public import FlashInferCore

/// A planned batch of attention with its workspace: plan once a step, run once a layer.
///
/// ```swift
/// let attention = try PlannedAttention(problem, on: device)
/// for layer in 0 ..< layers {
///     try attention.run(queries, cache.view(ofLayer: layer), into: output)
/// }
/// ```
/// `run` allocates nothing. With a `capacity`, ``replan(_:)`` takes any batch within it and reuses the same workspace.
public struct PlannedAttention: ~Copyable, Sendable {
    /// The plan now in force.
    public private(set) var plan: Plan

    private let device: any Device
    private let mode: Planner.Mode
    private let capacity: PlanSize?
    private var workspace: DeviceBuffer
    /// What the workspace was allocated for.
    private var allocated: PlanSize
    /// The problem's parameters on the device.
    private var parameters: [String: KeptParameter]

    /// Plans `problem` and allocates its workspace.
    ///
    /// - Parameters:
    ///   - mode: how work may be cut; ``Planner/Mode/batchInvariant(splitSize:)`` makes results independent of neighbours.
    ///   - capacity: allocate for any plan within this size (from ``Planner``'s `capacity`), so that replanning never allocates.
    /// - Throws: ``FlashInferError/unsupported(_:device:nearest:)`` where the device has no kernel for it, and planning's errors.
    public init(
        _ problem: AttentionProblem, on device: any Device, mode: Planner.Mode = .balanced, capacity: PlanSize? = nil
    ) throws(FlashInferError) {
        let plan = try Planner.plan(
            problem, traits: device.kernelTraits(for: problem), processors: device.limits.processors, mode: mode,
            capacity: capacity)
        let size = capacity ?? plan.size
        let workspace = try DeviceBuffer(on: device, dtype: .uint8, shape: [device.workspaceByteCount(for: size)])
        try device.prepare(plan, capacity: size, in: workspace.region)
        parameters = try Self.parameters(of: plan, on: device, keeping: [:])
        self.workspace = workspace
        allocated = size
        self.plan = plan
        self.device = device
        self.mode = mode
        self.capacity = capacity
    }

    /// Plans another batch; keeps the workspace where it is large enough, which it always is within the capacity.
    ///
    /// - Throws: planning's errors; then the old plan stays in force.
    public mutating func replan(_ problem: AttentionProblem) throws(FlashInferError) {
        let next = try Planner.plan(
            problem, traits: device.kernelTraits(for: problem), processors: device.limits.processors, mode: mode,
            capacity: capacity)
        let size = next.size
        if !allocated.covers(size) {
            let larger = try DeviceBuffer(on: device, dtype: .uint8, shape: [device.workspaceByteCount(for: size)])
            try device.prepare(next, capacity: size, in: larger.region)
            workspace = larger
            allocated = size
        } else {
            try device.prepare(next, capacity: allocated, in: workspace.region)
        }
        parameters = try Self.parameters(of: next, on: device, keeping: parameters)
        plan = next
    }

    /// What a problem knew of its variant's parameters, on the device; memory of the same shape is used again.
    private static func parameters(
        of plan: Plan, on device: any Device, keeping known: [String: KeptParameter]
    ) throws(FlashInferError) -> [String: KeptParameter] {
        let problem = plan.problem
        var next: [String: KeptParameter] = [:]
        for (name, value) in problem.parameters {
            guard let declaration = problem.variant.form.parameters.first(where: { $0.name == name }),
                let shape = declaration.extent.shape(
                    problem.geometry, problem.shape,
                    positions: value.count / max(problem.geometry.requestCount, 1))
            else { continue }
            let kept: KeptParameter
            if let old = known[name], old.buffer.view.shape == shape, old.buffer.view.dtype == value.dtype {
                kept = old
            } else {
                kept = KeptParameter(try DeviceBuffer(on: device, dtype: value.dtype, shape: shape))
            }
            let region = kept.buffer.region
            try value.withBytes { (bytes) throws(FlashInferError) in try device.upload(bytes, to: region) }
            next[name] = kept
        }
        return next
    }

    /// Runs the plan on one layer's tensors; see ``AttentionOperation`` for shapes.
    ///
    /// - Parameters:
    ///   - parameters: the variant's parameters, by name; those that the problem was given with their elements may be left out.
    ///   - pageIndices: page ids in place of the plan's, as ``SelectPagesOperation`` chooses them.
    ///   - pagePositions: their places in their sequences, where the plan's keys have the positions of places.
    /// - Throws: ``FlashInferError`` where a tensor does not fit the plan; then nothing has been run.
    public func run(
        _ queries: TensorView, queryScale: Float = 1, queryScalePerHead: TensorView? = nil, _ cache: KVCacheView,
        into output: TensorView, logSumExp: TensorView? = nil, mask: TensorView? = nil, alibiSlopes: TensorView? = nil,
        sinks: TensorView? = nil, parameters: [String: TensorView] = [:], pageIndices: TensorView? = nil,
        pagePositions: TensorView? = nil
    ) throws(FlashInferError) {
        var parameters = parameters
        if !self.parameters.isEmpty {
            for (name, kept) in self.parameters where parameters[name] == nil { parameters[name] = kept.buffer.view }
        }
        let operation = AttentionOperation(
            queries: queries, queryScale: queryScale, queryScalePerHead: queryScalePerHead, cache: cache,
            output: output, logSumExp: logSumExp, mask: mask, alibiSlopes: alibiSlopes, sinks: sinks,
            parameters: parameters, pageIndices: pageIndices, pagePositions: pagePositions, plan: plan,
            workspace: workspace.region, capacity: allocated)
        try operation.validate()
        try device.execute(attention: operation)
    }

    /// Runs the plan of a problem with latent heads on one layer's tensors; see ``MLAOperation`` for shapes.
    ///
    /// - Throws: ``FlashInferError`` where a tensor does not fit the plan; then nothing has been run.
    public func run(
        nopeQueries: TensorView, ropeQueries: TensorView, _ cache: LatentCacheView, into output: TensorView,
        logSumExp: TensorView? = nil
    ) throws(FlashInferError) {
        try device.run(
            .mla(
                MLAOperation(
                    nopeQueries: nopeQueries, ropeQueries: ropeQueries, cache: cache, output: output,
                    logSumExp: logSumExp, plan: plan, workspace: workspace.region, capacity: allocated)))
    }
}

/// A parameter's memory on the device; a class, as a dictionary holds no buffers.
private final class KeptParameter: Sendable {
    let buffer: DeviceBuffer

    init(_ buffer: consuming DeviceBuffer) { self.buffer = buffer }
}
