package import FlashInferCore

/// A fixture's tensors on one device, to be run there in any number of ways.
package final class AttentionBuffers {
    /// The fixture whose tensors these are.
    package private(set) var fixture: AttentionFixture
    /// Where they are.
    package let device: any Device

    private let queries: DeviceTensor
    private let cache: [DeviceTensor]
    private let headScales: [DeviceTensor]
    private let queryScales: DeviceTensor?
    private let mask: DeviceTensor?
    private let slopes: DeviceTensor?
    private let sinks: DeviceTensor?
    private let parameters: [String: DeviceTensor]
    private let output: DeviceTensor
    private let logSumExp: DeviceTensor

    /// Uploads the tensors of `fixture`.
    package init(_ fixture: AttentionFixture, on device: any Device) throws {
        (self.fixture, self.device) = (fixture, device)
        queries = try DeviceTensor(fixture.queries, on: device)
        cache = try fixture.store.tensors.map { try DeviceTensor($0, on: device) }
        headScales = try fixture.store.headScales.map { try DeviceTensor($0, on: device) }
        queryScales = try fixture.queryScales.map { try DeviceTensor($0, on: device) }
        mask = try fixture.mask.map { try DeviceTensor($0, on: device) }
        slopes = try fixture.slopes.map { try DeviceTensor($0, on: device) }
        sinks = try fixture.sinks.map { try DeviceTensor($0, on: device) }
        parameters = try fixture.parameters.mapValues { try DeviceTensor($0, on: device) }
        let (problem, tokens) = (fixture.problem, fixture.problem.geometry.queryCount)
        let heads = problem.shape.queryHeads
        output = try DeviceTensor(
            AttentionTensor(problem.outputType, [tokens, heads, problem.shape.headDimVO]), on: device)
        logSumExp = try DeviceTensor(AttentionTensor(.float32, [tokens, heads]), on: device)
    }

    /// Another fixture's tensors in the memory of the first: what a captured graph finds at its next replay.
    ///
    /// - Precondition: it differs from the first in its lengths, tables and numbers only, and is no larger.
    package func load(_ other: AttentionFixture) throws {
        func put(_ tensors: [AttentionTensor?], _ places: [DeviceTensor?]) throws {
            precondition(tensors.count == places.count, "the fixtures have the same tensors")
            for case (let tensor?, let place?) in zip(tensors, places) {
                precondition(tensor.view.strides == place.host.view.strides, "the fixtures have the same strides")
                try place.upload(tensor)
            }
        }
        try put(
            [other.queries, other.queryScales, other.mask, other.slopes, other.sinks] + other.store.tensors
                + other.store.headScales,
            [queries, queryScales, mask, slopes, sinks] + cache + headScales)
        fixture = other
    }

    /// A plan of the fixture's problem.
    ///
    /// - Parameters:
    ///   - processors: the device's where not given.
    ///   - queryRows: packed rows of an item of the last tile, where not the traits'.
    package func plan(
        mode: Planner.Mode = .balanced, processors: Int? = nil, queryRows: Int? = nil, capacity: PlanSize? = nil
    ) throws -> Plan {
        var traits = try device.kernelTraits(for: fixture.problem)
        if let queryRows { traits.tiles[traits.tiles.count - 1].queryRows = queryRows }
        return try Planner.plan(
            fixture.problem, traits: traits, processors: processors ?? device.limits.processors, mode: mode,
            capacity: capacity)
    }

    /// Workspace for plans of `size`, of undefined content.
    package func workspace(for size: PlanSize) throws -> DeviceTensor {
        try DeviceTensor(AttentionTensor(.uint8, [device.workspaceByteCount(for: size)]), on: device)
    }

    /// The operation that runs `plan`, on tensors of the shapes it was planned for.
    package func operation(
        _ plan: Plan, in workspace: DeviceTensor, capacity: PlanSize? = nil
    ) throws -> AttentionOperation {
        let (shape, tokens) = (plan.problem.shape, plan.problem.geometry.queryCount)
        func rows(_ tensor: DeviceTensor, _ shape: Shape) throws -> TensorView {
            try TensorView(
                tensor.view.region, dtype: tensor.view.dtype, shape: shape, strides: tensor.view.strides)
        }
        return AttentionOperation(
            queries: try rows(queries, [tokens, shape.queryHeads, shape.headDimQK]),
            queryScale: fixture.test.queryScale, queryScalePerHead: queryScales?.view, cache: try cacheView,
            output: try rows(output, [tokens, shape.queryHeads, shape.headDimVO]),
            logSumExp: hasLSE ? try rows(logSumExp, [tokens, shape.queryHeads]) : nil, mask: try maskView(plan),
            alibiSlopes: slopes?.view, sinks: sinks?.view, parameters: parameters.mapValues(\.view), plan: plan,
            workspace: workspace.view.region, capacity: capacity)
    }

    /// The keys and values on the device.
    package var cacheView: KVCacheView {
        get throws { try fixture.store.cache(cache.map(\.view), headScales.map(\.view)) }
    }

    private func maskView(_ plan: Plan) throws -> TensorView? {
        guard let mask else { return nil }
        let starts = try AttentionOperation.maskIndptr(
            plan.problem.geometry, packed: plan.problem.variant.form.maskTensor?.extent == .maskBits)
        return try TensorView(mask.view.region, dtype: .uint8, shape: [starts[starts.count - 1]])
    }

    /// Whether the variant's weights have a sum.
    private var hasLSE: Bool { fixture.problem.variant.weights == .softmax }

    /// NaN in the output and the LSE, so that what a run leaves out shows.
    package func poisonResults() throws {
        try output.poison()
        try logSumExp.poison()
    }

    /// What the device's output and LSE hold, for the fixture's query rows.
    ///
    /// - Throws: ``GuardOverwritten`` where something was written outside them.
    package func results() throws -> AttentionResult {
        try output.download()
        try logSumExp.download()
        let rows = fixture.problem.geometry.queryCount * fixture.problem.shape.queryHeads
        return AttentionResult(
            output: Array(output.host.elements.prefix(rows * fixture.problem.shape.headDimVO)),
            logSumExp: hasLSE
                ? Array(logSumExp.host.elements.prefix(rows)) : [Double](repeating: -.infinity, count: rows))
    }

    /// Plans, runs once, and gives what came out.
    package func run(
        mode: Planner.Mode = .balanced, processors: Int? = nil, queryRows: Int? = nil
    ) throws -> AttentionResult {
        let plan = try plan(mode: mode, processors: processors, queryRows: queryRows)
        let workspace = try workspace(for: plan.size)
        let operation = try operation(plan, in: workspace)
        try poisonResults()
        try operation.validate()
        try device.execute(.attention(operation))
        try workspace.download()
        return try results()
    }
}

extension AttentionFixture {
    /// Uploads, plans, runs once, and gives what came out.
    package func run(
        on device: any Device, mode: Planner.Mode = .balanced, processors: Int? = nil, queryRows: Int? = nil
    ) throws -> AttentionResult {
        try AttentionBuffers(self, on: device).run(mode: mode, processors: processors, queryRows: queryRows)
    }
}
