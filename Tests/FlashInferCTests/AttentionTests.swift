import CFlashInfer
import FlashInfer
import FlashInferCore
import TestSupport
import Testing

/// Attention through the C ABI on the CPU, against the float64 oracle.
@Suite struct AttentionTests {
    /// Every feature with every layout, types taking turns: what kernels do with them is their own tests' matter.
    static let cases: [AttentionCase] = AttentionCase.Feature.allCases.enumerated().flatMap { number, feature in
        AttentionCase.Layout.allCases.enumerated().map { index, layout in
            let types = AttentionCase.types[(number + index) % AttentionCase.types.count]
            return AttentionCase(
                queryType: types.0, cacheType: types.1,
                outputType: (number + index) % 4 == 3 ? .float32 : nil, layout: layout, feature: feature,
                dimVO: index % 3 == 2 ? 40 : nil, pageSize: [16, 1, 3][number % 3],
                hasHeadScales: (number + index) % 2 == 0, seed: UInt64(number * 10 + index))
        }
    }

    @Test(arguments: cases) func matchesTheOracle(_ test: AttentionCase) throws {
        let device = try CDevice.cpu()
        let batch = try CBatch(AttentionBuffers(AttentionFixture(test), on: CPUDevice(threads: 1)))
        let expected = batch.fixture.oracle.evaluate()
        for split in [FI_SPLIT_BALANCED, FI_SPLIT_FIXED, FI_SPLIT_NONE] {
            var options = batch.options
            options.split_mode = Int32(split)
            let attention = try CAttention(options, on: device)
            batch.expectClose(try batch.run(attention), expected)
        }
    }

    @Test func combinedCacheIsOneTensorOrTwo() throws {
        let device = try CDevice.cpu()
        for layout in [FI_NHD, FI_HND] {
            let (outer, inner) = layout == FI_NHD ? (4, 2) : (2, 4)
            var random = OpsRandom(3)
            let cache = try OpsTensor(.float32, [5, 2, outer, inner, 16], values: random.normals(5 * 2 * 8 * 16))
            let q = try OpsTensor(.float32, [2, 4, 16], values: random.normals(128))
            let (first, second) = try (OpsTensor(.float32, [2, 4, 16]), OpsTensor(.float32, [2, 4, 16]))
            var options = Self.plain
            options.kv_layout = Int32(layout)
            let attention = try CAttention(options, on: device)
            try ok(
                fi_attention_plan_paged(
                    attention.handle, nil, nil, [Int32](arrayLiteral: 0, 2, 3).c, [Int32](arrayLiteral: 4, 0, 2).c,
                    [Int32](arrayLiteral: 3, 4).c, 4, 5))
            var args = fi_attention_run_args()
            args.q = UnsafePointer(q.c)
            args.kv = UnsafePointer(cache.c)
            args.out = UnsafePointer(first.c)
            try ok(attention.run(args))
            args.kv = nil
            args.k = UnsafePointer(cache.view.select(0, along: 1).c)
            args.v = UnsafePointer(cache.view.select(1, along: 1).c)
            args.out = UnsafePointer(second.c)
            try ok(attention.run(args))
            #expect(first.values == second.values && first.values.allSatisfy { $0.isFinite })
            args.kv = UnsafePointer(cache.c)
            expect(attention.run(args), FI_INVALID_ARGUMENT, "kv is given besides k or v")
        }
    }

    /// Four query heads over two of 16 elements, float32.
    static var plain: fi_attention_options {
        var options = fi_attention_options()
        (options.num_qo_heads, options.num_kv_heads, options.head_dim_qk) = (4, 2, 16)
        options.q_dtype = DType.float32.dl
        return options
    }

    @Test func blockTablesAreThePageTable() throws {
        let device = try CDevice.cpu()
        let test = AttentionCase(pageSize: 5, lengths: [(1, 37), (4, 80), (0, 9), (3, 0), (2, 5)])
        let batch = try CBatch(AttentionBuffers(AttentionFixture(test), on: CPUDevice(threads: 1)))
        let (geometry, blocks) = (batch.fixture.problem.geometry, batch.fixture.problem.geometry.blocks)
        let attention = try CAttention(batch.options, on: device)
        let expected = try batch.run(attention)
        // Wild ids wherever a request has no page, and a row stride past the columns.
        let (columns, stride) = (17, 19)
        var table = [Int32](repeating: -7, count: blocks.requestCount * stride)
        for request in 0..<blocks.requestCount {
            for (column, index) in (blocks.indptr[request]..<blocks.indptr[request + 1]).enumerated() {
                table[request * stride + column] = blocks.indices[Int(index)]
            }
        }
        let flat = table.c
        let view = try TensorView(
            MemoryRegion(UnsafeRawBufferPointer(start: flat.pointee.data, count: 4 * table.count)), dtype: .int32,
            shape: [blocks.requestCount, columns], strides: [stride, 1])
        try batch.buffers.poisonResults()
        for pages in [Int64(blocks.blockLimit), 0] {
            try ok(
                fi_attention_plan_block_tables(
                    attention.handle, nil, geometry.queryIndptr.c, view.c, blocks.lengths.c, 5, pages))
            try ok(attention.run(batch.args))
            #expect(try batch.buffers.results() == expected)
        }
        var long = blocks.lengths
        long[1] = Int32(columns * 5 + 1)
        expect(
            fi_attention_plan_block_tables(attention.handle, nil, geometry.queryIndptr.c, view.c, long.c, 5, 0),
            FI_INVALID_REQUEST, "request 1", "86", "17 pages of 5")
    }

    @Test func oneRequestIsABatchOfOne() throws {
        let device = try CDevice.cpu()
        let test = AttentionCase(layout: .raggedHND, feature: .causalWindow, lengths: [(9, 50)])
        let batch = try CBatch(AttentionBuffers(AttentionFixture(test), on: CPUDevice(threads: 1)))
        let attention = try CAttention(batch.options, on: device)
        let expected = try batch.run(attention)
        try batch.buffers.poisonResults()
        try ok(fi_attention_plan_single(attention.handle, nil, 9, 50))
        try ok(attention.run(batch.args))
        #expect(try batch.buffers.results() == expected)
    }

    @Test func scalesMultiplyAndTheLogarithmIsChosen() throws {
        let device = try CDevice.cpu()
        var test = AttentionCase(feature: .causal)
        let batch = try CBatch(AttentionBuffers(AttentionFixture(test), on: CPUDevice(threads: 1)))
        let attention = try CAttention(batch.options, on: device)
        // 2 · 0.5 · 0.25 · 8 for the scores, as one sm_scale of twice the default.
        test.seed = 1
        var args = batch.args
        (args.q_scale, args.k_scale) = (2, 0.5)
        args.sm_scale = 2 / Float(64).squareRoot()
        (args.v_scale, args.o_scale) = (3, 0.5)
        args.lse_natural = 1
        try batch.buffers.poisonResults()
        try ok(batch.plan(attention))
        try ok(attention.run(args))
        let found = try batch.buffers.results()
        var options = batch.options
        options.sm_scale = 2 / Float(64).squareRoot()
        let direct = try batch.run(CAttention(options, on: device))
        for (scaled, plain) in zip(found.output, direct.output) {
            #expect(abs(scaled - 1.5 * plain) <= 0x1p-21 * max(abs(plain), 1))
        }
        for (natural, binary) in zip(found.logSumExp, direct.logSumExp) {
            let exact = binary * 0.693147180559945309
            #expect(natural == exact || abs(natural - exact) <= 0x1p-21 * max(abs(exact), 1))
        }
    }

    @Test func boundsAreKept() throws {
        let device = try CDevice.cpu()
        let test = AttentionCase(lengths: [(1, 37), (1, 80)])
        let batch = try CBatch(AttentionBuffers(AttentionFixture(test), on: CPUDevice(threads: 1)))
        var options = batch.options
        (options.max_requests, options.max_queries, options.max_request_queries, options.max_pages) = (2, 2, 1, 8)
        let attention = try CAttention(options, on: device)
        batch.expectClose(try batch.run(attention), batch.fixture.oracle.evaluate())
        var info = fi_attention_plan_info.sized
        try ok(fi_attention_get_plan_info(attention.handle, &info))
        #expect(info.queries == 2 && info.requests == 2 && info.work_items > 0 && info.mask_bytes == 0)
        let larger = try CBatch(
            AttentionBuffers(
                AttentionFixture(AttentionCase(lengths: [(1, 37), (1, 80), (1, 3)])), on: CPUDevice(threads: 1)))
        expect(larger.plan(attention), FI_CAPACITY_EXCEEDED, "capacity")
        // The plan before is still in force.
        batch.expectClose(try batch.run(attention), batch.fixture.oracle.evaluate())
    }

    @Test func otherOptionsNeedAnotherPlan() throws {
        let device = try CDevice.cpu()
        let batch = try CBatch(AttentionBuffers(AttentionFixture(AttentionCase()), on: CPUDevice(threads: 1)))
        let attention = try CAttention(batch.options, on: device)
        expect(attention.run(batch.args), FI_PLAN_MISMATCH, "nothing yet")
        _ = try batch.run(attention)
        let other = try CBatch(
            AttentionBuffers(
                AttentionFixture(AttentionCase(layout: .splitHND, feature: .cap, dimQK: 72, dimVO: 40)),
                on: CPUDevice(threads: 1)))
        var options = other.options
        options.struct_size = UInt64(MemoryLayout<fi_attention_options>.size)
        try ok(fi_attention_configure(attention.handle, &options))
        expect(attention.run(batch.args), FI_PLAN_MISMATCH, "nothing yet")
        other.expectClose(try other.run(attention), other.fixture.oracle.evaluate())
    }

    @Test(arguments: [FI_NHD, FI_HND], [false, true])
    func blockSparse(_ layout: Int, _ isCausal: Bool) throws {
        let device = try CDevice.cpu()
        let (rows, columns, rowBlock, columnBlock) = (11, 24, 4, 3)
        let (indptr, indices): ([Int32], [Int32]) = ([0, 3, 3, 5], [7, 0, 2, 1, 6])
        var random = OpsRandom(9)
        let q = try OpsTensor(.float32, [rows, 4, 16], values: random.normals(rows * 64))
        let shape = layout == FI_NHD ? [columns, 2, 16] : [2, columns, 16]
        let k = try OpsTensor(.float32, shape, values: random.normals(columns * 32))
        let v = try OpsTensor(.float32, shape, values: random.normals(columns * 32))
        let (out, lse) = try (OpsTensor(.float32, [rows, 4, 16]), OpsTensor(.float32, [rows, 4]))
        var options = Self.plain
        options.kv_layout = Int32(layout)
        options.mask_mode = Int32(isCausal ? FI_MASK_CAUSAL : FI_MASK_NONE)
        let attention = try CAttention(options, on: device)
        try ok(
            fi_attention_plan_block_sparse(
                attention.handle, nil, Int64(rows), Int64(columns), Int64(rowBlock), Int64(columnBlock), indptr.c,
                indices.c))
        var args = fi_attention_run_args()
        (args.q, args.k, args.v) = (UnsafePointer(q.c), UnsafePointer(k.c), UnsafePointer(v.c))
        (args.out, args.lse) = (UnsafePointer(out.c), UnsafePointer(lse.c))
        try ok(attention.run(args))
        func place(_ column: Int, _ head: Int, _ d: Int) -> Int {
            (layout == FI_NHD ? column * 2 + head : head * columns + column) * 16 + d
        }
        let problem = try AttentionProblem(
            geometry: .blockSparse(
                rows: rows, columns: columns, rowBlock: rowBlock, columnBlock: columnBlock, indptr: indptr,
                indices: indices),
            shape: AttentionShape(queryHeads: 4, kvHeads: 2, headDimQK: 16), variant: isCausal ? .causal : .full,
            queryType: .float32, kvType: .float32)
        func column(_ request: Int, _ j: Int) -> Int {
            Int(indices[Int(indptr[request]) + j / columnBlock]) * columnBlock + j % columnBlock
        }
        let oracle = AttentionOracle(
            problem: problem, query: { q[($0 * 4 + $1) * 16 + $2] },
            key: { k[place(column($0, $1), $2, $3)] }, value: { v[place(column($0, $1), $2, $3)] })
        let mismatch = AttentionTolerance(products: .float32).mismatch(
            AttentionResult(output: out.values, logSumExp: lse.values), oracle.evaluate(), problem)
        #expect(mismatch == nil)
    }

    @Test func aCustomMaskMayBeBool() throws {
        let device = try CDevice.cpu()
        let batch = try CBatch(
            AttentionBuffers(AttentionFixture(AttentionCase(feature: .custom)), on: CPUDevice(threads: 1)))
        let attention = try CAttention(batch.options, on: device)
        let expected = try batch.run(attention)
        let args = batch.args
        UnsafeMutablePointer(mutating: args.mask!).pointee.dtype = fi_data_type(code: UInt8(FI_BOOL), bits: 8, lanes: 1)
        try batch.buffers.poisonResults()
        try ok(attention.run(args))
        #expect(try batch.buffers.results() == expected)
    }
}
