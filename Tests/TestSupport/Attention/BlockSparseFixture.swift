package import FlashInferCore

/// A random block-sparse matrix over keys and values in one tensor, with its oracle.
package final class BlockSparseFixture {
    /// What to make.
    package struct Case: Sendable, CustomStringConvertible {
        package var rowBlock: Int
        package var columnBlock: Int
        package var variant: AttentionVariant
        package var type: DType
        package var headDim: Int
        package var kvHeads: Int
        package var group: Int
        package var rows: Int
        package var columns: Int
        /// Blocks that a block row has at most.
        package var maximumBlocks: Int
        package var seed: UInt64

        /// A case; every argument not given is an ordinary one. `columns` is rounded up to whole blocks.
        package init(
            _ rowBlock: Int, _ columnBlock: Int, _ variant: AttentionVariant = .full, type: DType = .float32,
            headDim: Int = 32, kvHeads: Int = 2, group: Int = 2, rows: Int = 37, columns: Int = 48,
            maximumBlocks: Int = .max, seed: UInt64 = 1
        ) {
            (self.rowBlock, self.columnBlock, self.variant, self.type) = (rowBlock, columnBlock, variant, type)
            (self.headDim, self.kvHeads, self.group, self.rows) = (headDim, kvHeads, group, rows)
            self.columns = (columns + columnBlock - 1) / columnBlock * columnBlock
            self.maximumBlocks = maximumBlocks
            self.seed = seed
        }

        package var description: String {
            "\(rowBlock) x \(columnBlock) of \(rows) x \(columns) \(variant.name) mask \(variant.form.mask) "
                + "window \(variant.windowLeft ?? -1) \(type) D \(headDim) heads \(kvHeads)x\(group) seed \(seed)"
        }
    }

    package let test: Case
    package let problem: AttentionProblem
    package let oracle: AttentionOracle

    private let queries: AttentionTensor
    private let keys: AttentionTensor
    private let values: AttentionTensor
    private let mask: AttentionTensor?

    /// Fills the tensors from the case's seed: block rows see some blocks in any order, the second none.
    package init(_ test: Case) throws {
        self.test = test
        var g = SeededGenerator(seed: test.seed)
        let (block, columns, dim) = (test.columnBlock, test.columns, test.headDim)
        let blockRows = (test.rows + test.rowBlock - 1) / test.rowBlock
        var (indptr, indices): ([Int32], [Int32]) = ([0], [])
        for row in 0..<blockRows {
            let count = row == 1 ? 0 : Int.random(in: 1...min(columns / block, test.maximumBlocks), using: &g)
            indices += (0..<Int32(columns / block)).shuffled(using: &g).prefix(count)
            indptr.append(Int32(indices.count))
        }
        let geometry = try BatchGeometry.blockSparse(
            rows: test.rows, columns: columns, rowBlock: test.rowBlock, columnBlock: block, indptr: indptr,
            indices: indices)
        let heads = test.kvHeads * test.group
        problem = try AttentionProblem(
            geometry: geometry,
            shape: AttentionShape(queryHeads: heads, kvHeads: test.kvHeads, headDimQK: dim), variant: test.variant,
            queryType: test.type, kvType: test.type)
        let kvHeads = test.kvHeads
        let queries = try AttentionTensor(test.type, [test.rows, heads, dim])
        let keys = try AttentionTensor(test.type, [columns, kvHeads, dim])
        let values = try AttentionTensor(test.type, [columns, kvHeads, dim])
        for tensor in [queries, keys, values] {
            for element in 0..<tensor.view.elementCount { tensor.set(element, Double(g.normal())) }
        }
        (self.queries, self.keys, self.values) = (queries, keys, values)
        func element(_ request: Int, _ j: Int, _ head: Int, _ d: Int) -> Int {
            let column = Int(indices[Int(indptr[request]) + j / block]) * block + j % block
            return (column * kvHeads + head) * dim + d
        }
        var oracle = AttentionOracle(
            problem: problem, query: { queries.get(($0 * heads + $1) * dim + $2) },
            key: { keys.get(element($0, $1, $2, $3)) }, value: { values.get(element($0, $1, $2, $3)) })
        oracle.slopes = AttentionVariant.alibiSlopes(heads: heads)
        if test.variant.form.maskTensor != nil {
            let starts = try AttentionOperation.maskIndptr(geometry, packed: false)
            let mask = try AttentionTensor(.uint8, [starts[starts.count - 1]])
            for index in 0..<mask.view.elementCount { mask.set(index, Double(Int.random(in: 0...2, using: &g))) }
            oracle.mask = { request, i, j in mask.get(starts[request] + i * geometry.kvLength(request) + j) != 0 }
            self.mask = mask
        } else {
            mask = nil
        }
        self.oracle = oracle
    }

    /// Plans, runs once, and gives what came out.
    package func run(
        on device: any Device, mode: Planner.Mode = .balanced, processors: Int? = nil
    ) throws -> AttentionResult {
        let plan = try Planner.plan(
            problem, traits: device.kernelTraits(for: problem), processors: processors ?? device.limits.processors,
            mode: mode)
        let uploaded = try [queries, keys, values].map { try DeviceTensor($0, on: device) }
        let maskTensor = try mask.map { try DeviceTensor($0, on: device) }
        let heads = problem.shape.queryHeads
        let output = try DeviceTensor(
            AttentionTensor(problem.outputType, [test.rows, heads, test.headDim]), on: device)
        let lse = try DeviceTensor(AttentionTensor(.float32, [test.rows, heads]), on: device)
        let workspace = try DeviceTensor(
            AttentionTensor(.uint8, [device.workspaceByteCount(for: plan.size)]), on: device)
        try output.poison()
        try lse.poison()
        let pages: Shape = [test.columns / test.columnBlock, test.columnBlock, test.kvHeads, test.headDim]
        let operation = AttentionOperation(
            queries: uploaded[0].view,
            cache: try .paged(
                keys: TensorView(uploaded[1].view.region, dtype: test.type, shape: pages),
                values: TensorView(uploaded[2].view.region, dtype: test.type, shape: pages)),
            output: output.view, logSumExp: lse.view, mask: maskTensor?.view, plan: plan,
            workspace: workspace.view.region)
        try operation.validate()
        try device.execute(.attention(operation))
        for tensor in uploaded + [workspace] + [maskTensor].compactMap({ $0 }) { try tensor.download() }
        try output.download()
        try lse.download()
        return AttentionResult(output: output.host.elements, logSumExp: lse.host.elements)
    }
}

extension BlockSparseFixture.Case {
    /// Masks by columns, by elements, and by both, and biases by columns.
    private static let variants: [AttentionVariant] = [
        .full, .causal, AttentionVariant(mask: .custom), AttentionVariant(mask: .causal, windowLeft: 30),
        AttentionVariant(windowLeft: 9),
        AttentionVariant(mask: .causal, positionEncoding: .rope(RoPEParameters(theta: 100))),
        AttentionVariant(mask: .causal, logitsSoftCap: 1.5), AttentionVariant(mask: .custom, windowLeft: 40),
        AttentionVariant(mask: .causal, positionEncoding: .alibi),
        AttentionVariant(mask: .custom, positionEncoding: .alibi),
    ]

    /// Every block size from 1 × 1 to 128 × 128, with every variant in turn.
    package static let sizes: [BlockSparseFixture.Case] = {
        var cases: [BlockSparseFixture.Case] = []
        for (index, rowBlock) in [1, 3, 8, 16, 64, 128].enumerated() {
            for (number, columnBlock) in [1, 2, 5, 16, 48, 64, 128].enumerated() {
                cases.append(
                    .init(
                        rowBlock, columnBlock, variants[(index * 7 + number) % variants.count],
                        rows: rowBlock < 16 ? 37 : 300, columns: 310, seed: UInt64(cases.count)))
            }
        }
        for (index, variant) in variants.enumerated() {
            for block in [1, 4, 16] { cases.append(.init(8, block, variant, seed: UInt64(100 + index))) }
        }
        return cases
    }()

    /// The same as a GPU has them.
    package static let gpu: [BlockSparseFixture.Case] = sizes.enumerated().map { index, test in
        var test = test
        test.type = index % 2 == 0 ? .bfloat16 : .float16
        test.headDim = [128, 64, 96][index % 3]
        test.group = [1, 2, 5][index / 2 % 3]
        return test
    }

    /// A few small ones for slow tools, with each kind of tile.
    package static let gpuReduced: [BlockSparseFixture.Case] = [
        .init(64, 64, .causal, type: .bfloat16, headDim: 128, kvHeads: 1, group: 1, rows: 150, columns: 192, seed: 1),
        .init(128, 128, .full, type: .float16, headDim: 128, kvHeads: 1, group: 1, rows: 200, columns: 256, seed: 2),
        .init(128, 16, .causal, type: .bfloat16, headDim: 64, kvHeads: 1, group: 1, rows: 200, columns: 208, seed: 3),
        .init(
            64, 1, AttentionVariant(mask: .causal, windowLeft: 60), type: .bfloat16, headDim: 64, kvHeads: 1, group: 1,
            rows: 100, columns: 130, seed: 4),
        .init(
            64, 64, AttentionVariant(mask: .custom), type: .bfloat16, headDim: 64, kvHeads: 1, group: 1, rows: 100,
            columns: 192, seed: 5),
        .init(2, 3, .causal, type: .float16, headDim: 64, kvHeads: 1, group: 4, rows: 9, columns: 60, seed: 6),
        .init(
            128, 64, AttentionVariant(positionEncoding: .alibi), type: .bfloat16, headDim: 64, kvHeads: 1, group: 1,
            rows: 130, columns: 128, seed: 7),
        // Rows that threads copy, for queries in registers and in memory; and so many block rows that they are queued.
        .init(128, 1, .full, type: .bfloat16, headDim: 128, kvHeads: 1, group: 1, rows: 260, columns: 700, seed: 8),
        .init(128, 3, .causal, type: .float16, headDim: 64, kvHeads: 1, group: 1, rows: 200, columns: 500, seed: 9),
        .init(64, 5, .full, type: .bfloat16, headDim: 128, kvHeads: 1, group: 1, rows: 128, columns: 300, seed: 10),
        .init(4, 16, .full, type: .bfloat16, headDim: 64, kvHeads: 2, group: 1, rows: 520, columns: 96, seed: 11),
        // Several sections of heads, of which the last are shorter.
        .init(
            4, 16, .full, type: .bfloat16, headDim: 64, kvHeads: 6, group: 1, rows: 1_040, columns: 16_384,
            maximumBlocks: 8, seed: 12),
        // So steep that weights leave their range, and scores of a stage are computed once more, or weights scaled down.
        .init(
            64, 64, AttentionVariant(scale: 40), type: .bfloat16, headDim: 128, kvHeads: 1, group: 1, rows: 150,
            columns: 640, seed: 13),
        .init(
            64, 64, AttentionVariant(scale: 2), type: .float16, headDim: 128, kvHeads: 1, group: 1, rows: 150,
            columns: 640, seed: 14),
    ]
}
