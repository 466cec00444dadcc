import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

@Suite struct VerifyDraftsTests {
    private let width = 9

    private func distribution(_ random: inout OpsRandom) -> [Double] {
        let weights = random.normals(width).map { ElementaryFunctions.exp($0) }
        let total = weights.reduce(0, +)
        return weights.map { Double(Float($0 / total)) }
    }

    /// One view of one request's rows for many requests.
    private func shared(_ view: TensorView, _ requests: Int) throws -> TensorView {
        try TensorView(
            view.region, byteOffset: view.byteOffset, dtype: view.dtype,
            shape: [requests, view.shape[1], view.shape[2]], strides: [0, view.strides[1], view.strides[2]])
    }

    /// Draws of a distribution, for drafts.
    private func drafts(_ ops: CPUOps, _ probabilities: [Double], _ count: Int, seed: UInt64) throws -> [Int] {
        let input = try OpsTensor(.float32, [1, width], values: probabilities)
        let (tokens, status) = (try OpsTensor(.int32, [count]), try OpsTensor(.uint8, [count]))
        let view = try TensorView(
            input.view.region, byteOffset: input.view.byteOffset, dtype: .float32, shape: [count, width],
            strides: [0, 1])
        ops.execute(
            SampleOperation(
                probabilities: view, tokens: tokens.view, status: status.view,
                rows: (0..<count).map { .init(seed: seed, step: UInt64($0)) }))
        return tokens.values.map { Int($0) }
    }

    private struct Verified {
        var output: [Int]
        var nodes: [Int]
        var accepted: [Int]
        var emitted: [Int]
        var status: [Int]
    }

    private func verify(
        _ ops: CPUOps, target: TensorView, draft: TensorView?, tokens: [Int], tree: ([Int], [Int])? = nil
    ) throws -> Verified {
        let (requests, nodes) = (target.shape[0], target.shape[1])
        func integers(_ values: [Int], _ columns: Int) throws -> OpsTensor {
            try OpsTensor(.int32, [requests, columns], values: values.map(Double.init))
        }
        let ids = try integers(tokens, tree == nil ? nodes - 1 : nodes)
        let (output, path) = (try OpsTensor(.int32, [requests, nodes]), try OpsTensor(.int32, [requests, nodes]))
        let (accepted, emitted) = (try OpsTensor(.int32, [requests]), try OpsTensor(.int32, [requests]))
        let status = try OpsTensor(.uint8, [requests])
        let links = try tree.map { (try integers($0.0, nodes), try integers($0.1, nodes)) }
        let operation = VerifyDraftsOperation(
            target: target, draft: draft, tokens: ids.view,
            tree: links.map { .links(firstChild: $0.0.view, nextSibling: $0.1.view) } ?? .chain,
            draws: (0..<requests).map { .init(seed: 17, step: UInt64($0)) }, output: output.view,
            outputNodes: path.view, accepted: accepted.view, emitted: emitted.view, status: status.view)
        try operation.validate()
        ops.execute(operation)
        func found(_ tensor: OpsTensor) -> [Int] { tensor.values.map { Int($0) } }
        return Verified(
            output: found(output), nodes: found(path), accepted: found(accepted), emitted: found(emitted),
            status: found(status))
    }

    @Test(arguments: instructionSets)
    func oneHotChains(set: InstructionSet) throws {
        func oneHot(_ tokens: [Int]) -> [Double] { tokens.flatMap { at in (0..<6).map { $0 == at ? 1.0 : 0 } } }
        let target = try OpsTensor(.float32, [3, 3, 6], values: oneHot([1, 2, 3, 1, 4, 3, 5, 2, 3]))
        let draft = try OpsTensor(.float32, [3, 2, 6], values: oneHot([1, 2, 1, 2, 1, 2]))
        for given in [draft.view, nil] {
            let found = try verify(
                makeOps(set), target: target.view, draft: given, tokens: [1, 2, 1, 2, 1, 2])
            #expect(found.output == [1, 2, 3, 1, 4, -1, 5, -1, -1] && found.emitted == [2, 1, 0])
            #expect(found.accepted == [2, 1, 1] && found.status == [0, 0, 0])
            #expect(found.nodes == [1, 2, -1, 1, -1, -1, -1, -1, -1])
        }
    }

    /// Each position has the target's distribution given what came before, drafts drawn or not.
    @Test(arguments: instructionSets, [true, false])
    func chainsKeepTheTargetsDistribution(set: InstructionSet, isDrawn: Bool) throws {
        let ops = makeOps(set)
        var random = OpsRandom(101)
        let requests = 6_000
        let targets = (0..<3).map { _ in distribution(&random) }
        let drafted = (0..<2).map { _ in distribution(&random) }
        let target = try OpsTensor(.float32, [1, 3, width], padding: 2, values: targets.flatMap { $0 })
        let draft = try OpsTensor(.float32, [1, 2, width], padding: 1, values: drafted.flatMap { $0 })
        var tokens = [Int](repeating: 4, count: 2 * requests)
        if isDrawn {
            for place in 0..<2 {
                for (request, token) in try drafts(ops, drafted[place], requests, seed: UInt64(place)).enumerated() {
                    tokens[2 * request + place] = token
                }
            }
        }
        let found = try verify(
            ops, target: shared(target.view, requests), draft: isDrawn ? shared(draft.view, requests) : nil,
            tokens: tokens)
        #expect(found.status.allSatisfy { $0 == 0 })
        for place in 0..<3 {
            let reached = (0..<requests).filter { found.emitted[$0] >= place }
            #expect(reached.count > 50)
            #expect(SamplingOracle.follows(reached.map { found.output[3 * $0 + place] }, targets[place]))
        }
        #expect(zip(found.accepted, found.emitted).allSatisfy { $0 >= $1 })
    }

    /// A root with three children, the first of which has two of its own.
    @Test(arguments: instructionSets, [true, false])
    func treesKeepTheTargetsDistribution(set: InstructionSet, isDrawn: Bool) throws {
        let ops = makeOps(set)
        var random = OpsRandom(102)
        let (requests, nodes) = (6_000, 6)
        let targets = (0..<nodes).map { _ in distribution(&random) }
        let drafted = (0..<nodes).map { _ in distribution(&random) }
        let target = try OpsTensor(.float32, [1, nodes, width], values: targets.flatMap { $0 })
        let draft = try OpsTensor(.float32, [1, nodes, width], values: drafted.flatMap { $0 })
        let first = [1, 4, -1, -1, -1, -1], next = [-1, 2, 3, -1, 5, -1]
        var tokens = (0..<requests).flatMap { _ in [0, 1, 2, 3, 5, 6] }
        if isDrawn {
            for (node, parent) in [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1)] {
                let drawn = try drafts(ops, drafted[parent], requests, seed: UInt64(node))
                for (request, token) in drawn.enumerated() { tokens[nodes * request + node] = token }
            }
        }
        func repeated(_ links: [Int]) -> [Int] { (0..<requests).flatMap { _ in links } }
        let found = try verify(
            ops, target: shared(target.view, requests), draft: isDrawn ? shared(draft.view, requests) : nil,
            tokens: tokens, tree: (repeated(first), repeated(next)))
        #expect(SamplingOracle.follows((0..<requests).map { found.output[nodes * $0] }, targets[0]))
        // After each child of the root that stands, its own distribution.
        for child in 1...3 {
            let reached = (0..<requests).filter { found.nodes[nodes * $0] == child }
            #expect(reached.count > 50)
            #expect(SamplingOracle.follows(reached.map { found.output[nodes * $0 + 1] }, targets[child]))
        }
        #expect(found.emitted.contains(2) && found.accepted == found.emitted)
    }

    @Test func wrongLinksEnd() throws {
        var random = OpsRandom(103)
        let target = try OpsTensor(.float32, [1, 4, width], values: (0..<4).flatMap { _ in distribution(&random) })
        for (first, next) in [
            ([1, 1, 1, 1], [1, 1, 1, 1]), ([900, 0, 0, 0], [0, 0, 0, 0]), ([3, 2, 1, -5], [2, 3, 1, 2]),
        ] {
            let found = try verify(
                makeOps(.detected), target: target.view, draft: nil, tokens: [-1, 500, 3, 4], tree: (first, next))
            #expect(found.status == [0] && found.emitted[0] <= 3)
            #expect((0..<width).contains(found.output[found.emitted[0]]))
        }
    }

    @Test func badRowsHaveAStatus() throws {
        for (value, status) in [(Double.nan, 1), (0, 2), (.infinity, 3), (-1, 4)] {
            let target = try OpsTensor(.float32, [1, 1, width], values: [Double](repeating: 0, count: width))
            target[3] = value
            let found = try verify(makeOps(.detected), target: target.view, draft: nil, tokens: [])
            #expect(found.status == [status] && found.output == [-1] && found.emitted == [0])
        }
    }
}
