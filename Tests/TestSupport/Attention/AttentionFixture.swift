package import FlashInferCore

/// The tensors of a case on the host, poisoned wherever nothing may be read, and its oracle.
package final class AttentionFixture {
    /// The case.
    package let test: AttentionCase
    /// What is to be planned.
    package let problem: AttentionProblem
    /// What must come out.
    package let oracle: AttentionOracle

    let queries: AttentionTensor
    /// Scales of the queries' heads.
    let queryScales: AttentionTensor?
    let store: AttentionCacheStore
    let mask: AttentionTensor?
    let slopes: AttentionTensor?
    let sinks: AttentionTensor?
    /// The variant's parameters, by name.
    let parameters: [String: AttentionTensor]

    /// Fills the tensors of `test`, from its seed.
    package init(_ test: AttentionCase) throws {
        self.test = test
        var g = SeededGenerator(seed: test.seed)
        let shape = try test.shape
        let store = try AttentionCacheStore(test, shape, &g)
        let declared = Set(test.variant.form.parameters.map(\.name))
        let values = (test.sample?.values(store.geometry, shape) ?? [:]).filter { declared.contains($0.key) }
        // Every other fixture plans without knowing what the parameters hold.
        problem = try AttentionProblem(
            geometry: store.geometry, shape: shape, variant: test.variant, queryType: test.queryType,
            kvType: test.cacheType, outputType: test.outputType, parameters: test.seed % 2 == 0 ? [:] : values)
        parameters = try Self.tensors(problem, values)
        let tokens = store.geometry.queryCount
        // Rows of queries are not contiguous, as slices of a fused projection; but for strided ones, multiples of 16 bytes apart.
        let queryHead = test.dimQK + (test.layout == .strided ? 3 : max(16 / test.queryType.byteCount, 8))
        let rowElements = shape.queryHeads * queryHead
        let queries = try AttentionTensor(
            test.queryType, [tokens, shape.queryHeads, test.dimQK], strides: [rowElements, queryHead, 1])
        for request in 0..<store.geometry.requestCount {
            // A request's numbers depend on its place in the batch only, so neighbours can be added.
            var own = SeededGenerator(seed: test.seed &* 1000 &+ UInt64(request))
            let first = Int(store.geometry.queryIndptr[request])
            for token in first..<first + store.geometry.queryLength(request) {
                for head in 0..<shape.queryHeads {
                    let row = token * rowElements + head * queryHead
                    for d in 0..<test.dimQK { queries.set(row + d, Double(own.normal())) }
                }
            }
        }
        self.queries = queries
        self.store = store
        let queryScales = test.hasHeadScales ? try AttentionTensor(.float32, [shape.queryHeads]) : nil
        for head in 0..<shape.queryHeads {
            let magnitude = Double.random(in: 0.5..<2, using: &g)
            queryScales?.set(head, Bool.random(using: &g) ? magnitude : -magnitude)
        }
        self.queryScales = queryScales
        let queryScale = Double(test.queryScale)
        var oracle = AttentionOracle(
            problem: problem,
            query: { token, head, d in
                queries.get(token * rowElements + head * queryHead + d) * queryScale * (queryScales?.get(head) ?? 1)
            }, key: store.key, value: store.value)
        mask = try Self.makeMask(problem, &g, &oracle)
        (slopes, sinks) = try Self.makeHeadTensors(problem, given: test.seed % 2 == 0, &g, &oracle)
        if test.sample != nil { oracle.hooks = VariantOracle(problem, values, oracle) }
        self.oracle = oracle
    }

    private static func tensors(
        _ problem: AttentionProblem, _ values: [String: ParameterValue]
    ) throws -> [String: AttentionTensor] {
        var tensors: [String: AttentionTensor] = [:]
        for parameter in problem.variant.form.parameters {
            guard let value = values[parameter.name] else { continue }
            let rows = max(parameter.extent.rows(problem.geometry, problem.shape), 1)
            let shape = parameter.extent.shape(problem.geometry, problem.shape, positions: value.count / rows)
            let tensor = try AttentionTensor(parameter.dtype, shape ?? [value.count])
            value.withBytes { tensor.bytes.copyMemory(from: $0) }
            tensors[parameter.name] = tensor
        }
        return tensors
    }

    private static func makeMask(
        _ problem: AttentionProblem, _ g: inout SeededGenerator, _ oracle: inout AttentionOracle
    ) throws -> AttentionTensor? {
        guard let declaration = problem.variant.form.maskTensor else { return nil }
        let isPacked = declaration.extent == .maskBits
        let starts = try AttentionOperation.maskIndptr(problem.geometry, packed: isPacked)
        let mask = try AttentionTensor(.uint8, [starts[starts.count - 1]])
        for index in 0..<mask.view.elementCount {
            mask.set(index, Double(isPacked ? Int.random(in: 0...255, using: &g) : Int.random(in: 0...2, using: &g)))
        }
        let geometry = problem.geometry
        oracle.mask = { request, i, j in
            let element = i * geometry.kvLength(request) + j
            if !isPacked { return mask.get(starts[request] + element) != 0 }
            return Int(mask.get(starts[request] + element / 8)) >> (element % 8) & 1 == 1
        }
        return mask
    }

    private static func makeHeadTensors(
        _ problem: AttentionProblem, given: Bool, _ g: inout SeededGenerator, _ oracle: inout AttentionOracle
    ) throws -> (slopes: AttentionTensor?, sinks: AttentionTensor?) {
        let heads = problem.shape.queryHeads
        var (slopes, sinks): (AttentionTensor?, AttentionTensor?)
        oracle.slopes = AttentionVariant.alibiSlopes(heads: heads)
        if problem.variant.form.readsSlopes, given {
            oracle.slopes = (0..<heads).map { _ in Float.random(in: 0..<0.2, using: &g) }
            let tensor = try AttentionTensor(.float32, [heads])
            for head in 0..<heads { tensor.set(head, Double(oracle.slopes[head])) }
            slopes = tensor
        }
        if problem.variant.hasSinks {
            oracle.sinks = (0..<heads).map { _ in g.normal() }
            let tensor = try AttentionTensor(.float32, [heads])
            for head in 0..<heads { tensor.set(head, Double(oracle.sinks[head])) }
            sinks = tensor
        }
        return (slopes, sinks)
    }
}
