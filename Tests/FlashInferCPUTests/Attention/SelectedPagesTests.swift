import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

@Suite struct SelectedPagesTests {
    private let device = CPUDevice(threads: 2)

    @Test(arguments: SelectedPagesFixture.Case.all(.float32)) func matchesPlannedPages(
        _ test: SelectedPagesFixture.Case
    ) throws {
        #expect(try SelectedPagesFixture(test, on: device).mismatches { run in run } == [])
    }

    @Test(arguments: SelectedPlacesFixture.Case.all(.float32) + SelectedPlacesFixture.Case.all(.bfloat16))
    func matchesDenseAttentionWithAMask(_ test: SelectedPlacesFixture.Case) throws {
        #expect(try SelectedPlacesFixture(test, on: device).mismatches { run in run } == [])
    }

    @Test(arguments: [DType.float8E4M3, .int8]) func boundsKeysOf8Bits(_ type: DType) throws {
        let test = SelectedPlacesFixture.Case(.bfloat16, kvType: type, pageSize: 8, .causal, keyPositions: .sequential)
        #expect(try SelectedPlacesFixture(test, on: device).mismatches { run in run } == [])
    }

    @Test(arguments: [DType.float32, .float16, .bfloat16, .float8E4M3, .float8E5M2, .int8])
    func boundsFollowAppends(_ type: DType) throws {
        #expect(try PageBoundsFixture(type, on: device).mismatches { run in run } == [])
    }

    @Test func tablesOfHeadsAreThoseOfTheProblem() throws {
        func problem(_ heads: Int, _ variant: AttentionVariant = .causal) throws -> AttentionProblem {
            try AttentionProblem(
                geometry: .selectedPages(
                    kvLengths: [15], pagesPerRequest: 2, pageSize: 4, pageCount: 4, keyPositions: .places,
                    tableHeads: heads),
                shape: AttentionShape(queryHeads: 4, kvHeads: 2, headDimQK: 16), variant: variant, queryType: .float32,
                kvType: .float32)
        }
        #expect(try problem(2).geometry.sequenceLength(0) == 15)
        for (heads, variant, text) in [
            (3, AttentionVariant.causal, "heads with tables"), (0, .causal, "heads with tables"),
            (2, AttentionVariant(mask: .custom), "mask tensor"),
        ] {
            let error = #expect(throws: FlashInferError.self) { try problem(heads, variant) }
            #expect(error.map { "\($0)".contains(text) } ?? false, "\(text): \(String(describing: error))")
        }
    }

    @Test func scoresNameWhatDoesNotFit() throws {
        let queries = try OpsTensor(.float32, [2, 4, 8]), bounds = try OpsTensor(.float32, [3, 2, 2, 8])
        let table = try OpsTensor(.int32, [2, 2], values: [0, 1, 2, 0]), scores = try OpsTensor(.float32, [2, 2, 2])
        let lengths = try OpsTensor(.int32, [2], values: [2, 1])
        let good = ScorePagesOperation(
            queries: queries.view, bounds: bounds.view, table: table.view, lengths: lengths.view, scores: scores.view)
        try good.validate()
        func expect(_ name: String, _ change: (inout ScorePagesOperation) throws -> Void) throws {
            var operation = good
            try change(&operation)
            let error = #expect(throws: FlashInferError.self) { try operation.validate() }
            #expect(error.map { "\($0)".contains(name) } ?? false, "\(name): \(String(describing: error))")
        }
        let wild = try OpsTensor(.int32, [2, 2], values: [0, 3, 2, 0])
        try expect("is page 3") { $0.table = wild.view }
        try expect("bounds") { $0.bounds = try OpsTensor(.float32, [3, 2, 3, 8]).view }
        try expect("queries") { $0.queries = try OpsTensor(.float32, [3, 4, 8]).view }
        try expect("scores") { $0.scores = try OpsTensor(.float32, [2, 4, 2]).view }
        try expect("lengths[0]") { $0.lengths = try OpsTensor(.int32, [2], values: [3, 1]).view }
    }

    @Test func lengthsAreThoseOfTheChosenPages() throws {
        let geometry = try BatchGeometry.selectedPages(
            kvLengths: [0, 1, 16, 17, 48, 100], pagesPerRequest: 3, pageSize: 16, pageCount: 9)
        #expect(geometry.blocks.lengths == [0, 1, 16, 17, 48, 36])
        #expect(geometry.blocks.indptr == [0, 3, 6, 9, 12, 15, 18])
        #expect(throws: FlashInferError.self) {
            try BatchGeometry.selectedPages(kvLengths: [5, -1], pagesPerRequest: 3, pageSize: 16, pageCount: 9)
        }
        #expect(throws: FlashInferError.self) {
            try BatchGeometry.selectedPages(kvLengths: [5], pagesPerRequest: 0, pageSize: 16, pageCount: 9)
        }
    }

    @Test func whatDoesNotFitIsNamed() throws {
        func operation(
            _ variant: AttentionVariant, pages: [Int32], sparse: Bool = false
        ) throws -> AttentionOperation {
            let geometry =
                sparse
                ? try BatchGeometry.blockSparse(
                    rows: 1, columns: 16, rowBlock: 1, columnBlock: 4, indptr: [0, 2], indices: [0, 1])
                : try BatchGeometry.selectedPages(kvLengths: [15], pagesPerRequest: 2, pageSize: 4, pageCount: 4)
            let problem = try AttentionProblem(
                geometry: geometry, shape: AttentionShape(queryHeads: 2, kvHeads: 2, headDimQK: 16), variant: variant,
                queryType: .float32, kvType: .float32)
            let plan = try Planner.plan(problem, traits: device.kernelTraits(for: problem), processors: 2)
            func tensor(_ dtype: DType, _ shape: [Int], _ values: [Double]? = nil) throws -> TensorView {
                let tensor = try OpsTensor(
                    dtype, shape, values: values ?? [Double](repeating: 0, count: shape.reduce(1, *)))
                kept.append(tensor)
                return tensor.view
            }
            return try AttentionOperation(
                queries: tensor(.float32, [1, 2, 16]),
                cache: .paged(keys: tensor(.float32, [4, 4, 2, 16]), values: tensor(.float32, [4, 4, 2, 16])),
                output: tensor(.float32, [1, 2, 16]),
                pageIndices: tensor(.int32, [pages.count], pages.map(Double.init)),
                plan: plan, workspace: tensor(.uint8, [max(device.workspaceByteCount(for: plan.size), 1)]).region)
        }
        var kept: [OpsTensor] = []
        try operation(.causal, pages: [3, 0]).validate()
        try operation(AttentionVariant(positionEncoding: .alibi), pages: [3, 0], sparse: true).validate()
        for (variant, pages, sparse, text) in [
            (AttentionVariant.causal, [3], false, "page indices"), (.causal, [3, 4], false, "page 4"),
            (.causal, [-1, 2], false, "-1"), (AttentionVariant(windowLeft: 3), [3, 0], false, "positions"),
            (AttentionVariant(positionEncoding: .alibi), [3, 0], false, "positions"),
            (.causal, [3, 0], true, "mask by columns"),
        ] as [(AttentionVariant, [Int32], Bool, String)] {
            let bad = try operation(variant, pages: pages, sparse: sparse)
            let error = #expect(throws: FlashInferError.self) { try bad.validate() }
            #expect(error.map { "\($0)".contains(text) } ?? false, "\(text): \(String(describing: error))")
        }
    }
}
