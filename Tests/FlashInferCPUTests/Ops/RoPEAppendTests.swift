import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

/// Rotary embedding with an append: against the two operations one after the other, bit by bit, and against the definition.
@Suite struct RoPEAppendTests {
    @Test(arguments: instructionSets, RoPEAppendCase.all)
    func isTheSeparateOperations(set: InstructionSet, test: RoPEAppendCase) throws {
        let ops = makeOps(set)
        for cacheType in DType.allCases where cacheType.isCacheType {
            for input in [DType.float32, .float16, .bfloat16] {
                for queryType in [nil, .bfloat16, .float8E4M3, .int8] as [DType?] {
                    let fixture = try RoPEAppendFixture(test, input: input, queryType: queryType, cacheType: cacheType)
                    let (fused, separate) = (try fixture.tensors(), try fixture.tensors())
                    let operation = try fixture.operation(fused, slots: fixture.slots)
                    try operation.validate()
                    ops.execute(operation)
                    for operation in try fixture.separateOperations(separate, slots: fixture.slots) {
                        try operation.validate()
                        switch operation {
                        case .rope(let operation): ops.execute(operation)
                        case .convert(let operation): ops.execute(operation)
                        case .appendKV(let operation): ops.execute(operation)
                        default: Issue.record("\(operation)")
                        }
                    }
                    let name: Comment = "\(input) to \(cacheType), queries \(queryType as Any)"
                    #expect(fused.keyCache.isIdentical(to: separate.keyCache), name)
                    #expect(fused.valueCache.isIdentical(to: separate.valueCache), name)
                    #expect(fused.queryOutput.isIdentical(to: separate.queryOutput), name)
                    #expect(fused.keys.isIdentical(to: separate.keys), name)
                    #expect(fixture.firstProblem(fused) == nil, name)
                }
            }
        }
    }

    @Test func raggedCachesAndManyTokensOnSeveralThreads() throws {
        let ops = makeOps(.detected, threads: 3)
        var random = OpsRandom(52)
        let (tokens, heads, dim) = (300, 4, 64)
        let queries = try OpsTensor(.float32, [tokens, heads, dim], values: random.normals(tokens * heads * dim))
        let keys = try OpsTensor(.float32, [tokens, heads, dim], values: random.normals(tokens * heads * dim))
        let positions = try OpsTensor(.int32, [tokens], values: (0..<tokens).map { Double(7 * $0) })
        let geometry = try BatchGeometry.ragged(
            queryIndptr: [0, Int32(tokens)], kvIndptr: [0, Int32(tokens)])
        var results: [[OpsTensor]] = []
        for isFused in [true, false] {
            let cache = try (0..<2).map { _ in try OpsTensor(.bfloat16, [tokens, heads, dim]) }
            let view = try KVCacheView.ragged(keys: cache[0].view, values: cache[1].view)
            let output = try OpsTensor(.float16, [tokens, heads, dim])
            let turned = try OpsTensor(.float32, [tokens, heads, dim])
            let slots = try KVSlots(geometry)
            if isFused {
                let operation = RoPEAppendKVOperation(
                    queries: queries.view, keys: keys.view, values: keys.view, queryOutput: output.view,
                    positions: positions.view, parameters: RoPEParameters(), cache: view, slots: slots)
                try operation.validate()
                ops.execute(operation)
            } else {
                ops.execute(
                    RoPEOperation(
                        queries: queries.view, keys: keys.view, queryOutput: output.view, keyOutput: turned.view,
                        positions: positions.view, parameters: RoPEParameters()))
                ops.execute(
                    AppendKVOperation(keys: turned.view, values: keys.view, cache: view, slots: slots))
            }
            results.append(cache + [output])
        }
        for (fused, separate) in zip(results[0], results[1]) { #expect(fused.isIdentical(to: separate)) }
    }

    /// Queries, keys and values as slices of one projection, the queries in place: as decoders have them.
    @Test func slicesOfOneProjection() throws {
        let ops = makeOps(.detected)
        let width = (3 + 2 * 1) * 8
        let projection = try OpsTensor(.float32, [2, width], values: OpsRandom.fixed(2 * width))
        let before = projection.values
        func heads(_ range: Range<Int>) throws -> TensorView {
            try projection.view.slice(8 * range.lowerBound..<8 * range.upperBound, along: 1)
                .split(heads: range.count)
        }
        let cache = try OpsTensor(.float16, [2, 2, 4, 1, 8])
        let positions = try OpsTensor(.int32, [2], values: [3, 900])
        let operation = RoPEAppendKVOperation(
            queries: try heads(0..<3), keys: try heads(3..<4), values: try heads(4..<5), positions: positions.view,
            parameters: RoPEParameters(), cache: try .paged(combined: cache.view),
            slots: try KVSlots(slots: [6, 1], pageSize: 4))
        try operation.validate()
        ops.execute(operation)
        for token in 0..<2 {
            for head in 0..<3 {
                let start = token * width + head * 8
                let exact = OpsOracle.rope(
                    Array(before[start..<start + 8]), position: positions[token], RoPEParameters())
                for d in 0..<8 { #expect(abs(projection[start + d] - exact[d]) < 1e-5) }
            }
            let rest = token * width + 24..<(token + 1) * width
            #expect(projection.values[rest] == before[rest])
        }
        #expect((0..<16).filter { !cache[$0 * 8].isNaN } == [1, 5, 10, 14])
        // Queries that turn into the next head would read what another thread has written.
        var shifted = operation
        shifted.queryOutput = try heads(1..<4)
        #expect(throws: FlashInferError.self) { try shifted.validate() }
    }

    @Test func badArgumentsAreNamed() throws {
        let queries = try OpsTensor(.float32, [2, 3, 8], values: OpsRandom.fixed(48))
        let keys = try OpsTensor(.float32, [2, 1, 8], values: OpsRandom.fixed(16))
        let cache = try OpsTensor(.float8E4M3, [2, 2, 4, 1, 8])
        let positions = try OpsTensor(.int32, [2], values: [0, 1])
        let good = RoPEAppendKVOperation(
            queries: queries.view, keys: keys.view, values: keys.view, positions: positions.view,
            parameters: RoPEParameters(), cache: try .paged(combined: cache.view),
            slots: try KVSlots(slots: [0, 7], pageSize: 4))
        try good.validate()
        // What is read must live.
        let wrongPositions = try OpsTensor(.int32, [2], values: [0, -1])
        let wrongScale = try OpsTensor(.float32, [1], values: [0])
        func error(_ change: (inout RoPEAppendKVOperation) throws -> Void) throws -> FlashInferError? {
            var operation = good
            try change(&operation)
            do throws(FlashInferError) { try operation.validate() } catch { return error }
            return nil
        }
        #expect(try error { $0.queries = try OpsTensor(.float32, [2, 24]).view } != nil)
        #expect(try error { $0.queries = try OpsTensor(.int8, [2, 3, 8]).view } != nil)
        #expect(try error { $0.queries = try OpsTensor(.float32, [3, 3, 8]).view } != nil)
        #expect(
            try error { $0.keys = try OpsTensor(.float16, [2, 1, 8]).view }
                == .invalidArgument("keys", found: "float16", expected: "float32, as the queries"))
        #expect(try error { $0.keys = try OpsTensor(.float32, [2, 2, 8]).view } != nil)
        #expect(try error { $0.values = try OpsTensor(.float32, [2, 1, 9]).view } != nil)
        #expect(try error { $0.values = try OpsTensor(.float32, [1, 1, 8]).view } != nil)
        #expect(try error { $0.queryOutput = try OpsTensor(.float32, [2, 3, 9]).view } != nil)
        #expect(try error { $0.queryOutput = try OpsTensor(.int32, [2, 3, 8]).view } != nil)
        #expect(
            try error { $0.queryScale = 2 }
                == .invalidArgument("query scale", found: "2.0", expected: "1, as the query output is float32"))
        #expect(
            try error {
                $0.queryOutput = try OpsTensor(.int8, [2, 3, 8]).view
                $0.queryScale = 0
            } != nil)
        #expect(try error { $0.parameters.rotaryDim = 10 } != nil)
        #expect(try error { $0.positions = try OpsTensor(.int32, [3], values: [0, 0, 0]).view } != nil)
        #expect(
            try error { $0.positions = wrongPositions.view }
                == .invalidArgument("positions[1]", found: "-1", expected: "in 0 ..< 2147483648"))
        #expect(
            try error { $0.slots = try KVSlots(slots: [0, 8], pageSize: 4) }
                == .invalidArgument("page of token 1", found: "2", expected: "in 0 ..< 2"))
        #expect(
            try error { $0.slots = try KVSlots(slots: [0], pageSize: 4) }
                == .lengthMismatch("slots", found: 1, expected: 2))
        #expect(
            try error { $0.cache = try .paged(combined: try OpsTensor(.int8, [2, 2, 4, 1, 16]).view) }
                == .lengthMismatch("head dimension of the cache's keys", found: 16, expected: 8))
        #expect(try error { $0.cache.scales.key = -1 } != nil)
        #expect(try error { $0.cache.scales.valuePerHead = wrongScale.view } != nil)
        // The cache over the keys.
        #expect(
            try error {
                $0.cache = try .paged(combined: queries.view.reshaped([48]).slice(0..<32).reshaped([2, 2, 1, 1, 8]))
            }
                != nil)
    }
}

extension TensorView {
    /// `[tokens, heads · dim]` as `[tokens, heads, dim]`, the tokens where they are.
    fileprivate func split(heads: Int) throws(FlashInferError) -> TensorView {
        let dim = shape[1] / heads
        return try TensorView(
            region, byteOffset: byteOffset, dtype: dtype, shape: [shape[0], heads, dim], strides: [strides[0], dim, 1])
    }
}
