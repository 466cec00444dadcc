import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

/// Block-sparse matrices, whose keys' positions are their columns, in any order.
@Suite struct BlockSparseAttentionTests {
    static let variants: [AttentionVariant] = [
        .full, .causal, AttentionVariant(windowLeft: 9), AttentionVariant(mask: .causal, windowLeft: 30),
        AttentionVariant(mask: .causal, positionEncoding: .rope(RoPEParameters(theta: 100))),
    ]

    @Test(arguments: variants.indices, [1, 4, 16])
    func matchesOracle(_ index: Int, _ block: Int) throws {
        let (rows, columns, dim) = (37, 48, 32)
        var g = SeededGenerator(seed: UInt64(index))
        let blockRows = (rows + 7) / 8
        var (indptr, indices): ([Int32], [Int32]) = ([0], [])
        for row in 0..<blockRows {
            // The second block row sees nothing.
            let count = row == 1 ? 0 : Int.random(in: 1...columns / block, using: &g)
            indices += (0..<Int32(columns / block)).shuffled(using: &g).prefix(count)
            indptr.append(Int32(indices.count))
        }
        let geometry = try BatchGeometry.blockSparse(
            rows: rows, columns: columns, rowBlock: 8, columnBlock: block, indptr: indptr, indices: indices)
        let shape = try AttentionShape(queryHeads: 4, kvHeads: 2, headDimQK: dim)
        let problem = try AttentionProblem(
            geometry: geometry, shape: shape, variant: Self.variants[index], queryType: .float32, kvType: .float32)
        let queries = try AttentionTensor(.float32, [rows, 4, dim])
        let (keys, values) = (
            try AttentionTensor(.float32, [columns, 2, dim]), try AttentionTensor(.float32, [columns, 2, dim])
        )
        for tensor in [queries, keys, values] {
            for element in 0..<tensor.view.elementCount { tensor.set(element, Double(g.normal())) }
        }
        func element(_ request: Int, _ j: Int, _ head: Int, _ d: Int) -> Int {
            let column = Int(indices[Int(indptr[request]) + j / block]) * block + j % block
            return (column * 2 + head) * dim + d
        }
        let oracle = AttentionOracle(
            problem: problem, query: { queries.get(($0 * 4 + $1) * dim + $2) },
            key: { keys.get(element($0, $1, $2, $3)) }, value: { values.get(element($0, $1, $2, $3)) })
        let expected = oracle.evaluate()
        let pages: Shape = [columns / block, block, 2, dim]
        let cache = try KVCacheView.paged(
            keys: TensorView(keys.view.region, dtype: .float32, shape: pages),
            values: TensorView(values.view.region, dtype: .float32, shape: pages))
        for device in AttentionConformanceTests.devices {
            let plan = try Planner.plan(problem, traits: device.kernelTraits(for: problem), processors: 2)
            let output = try AttentionTensor(.float32, [rows, 4, dim])
            let lse = try AttentionTensor(.float32, [rows, 4])
            let workspace = try AttentionTensor(.uint8, [plan.workspaceByteCount])
            let operation = AttentionOperation(
                queries: queries.view, cache: cache, output: output.view, logSumExp: lse.view, plan: plan,
                workspace: workspace.view.region)
            try operation.validate()
            try device.execute(.attention(operation))
            expectClose(
                .init(output: output.elements, logSumExp: lse.elements), expected, problem, device)
        }
    }
}
