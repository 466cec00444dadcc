import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Rotary embedding with an append on the GPU: bit by bit against the separate operations there, and against the definition.
@Suite(.enabled(if: OpsGPU.isThere, "no CUDA device")) struct RoPEAppendGPUTests {
    private let gpu = GPUScope()

    /// Copies of a run's tensors; a tensor that is there twice, as queries in place are, is one copy.
    private func copies(_ tensors: RoPEAppendTensors) throws -> [GPUTensor] {
        var copies: [GPUTensor] = []
        for tensor in tensors.all {
            copies.append(try copies.first { $0.host === tensor } ?? gpu.tensor(tensor))
        }
        return copies
    }

    @Test(arguments: RoPEAppendCase.all, DType.allCases.filter(\.isCacheType))
    func isTheSeparateOperations(test: RoPEAppendCase, cacheType: DType) throws {
        for input in [DType.float32, .float16, .bfloat16] {
            for (index, queryType) in ([nil, .bfloat16, .float8E4M3, .int8] as [DType?]).enumerated() {
                let fixture = try RoPEAppendFixture(test, input: input, queryType: queryType, cacheType: cacheType)
                let hostSlots = fixture.slots
                let table = try gpu.tensor(
                    .int32, [2, hostSlots.count], values: (hostSlots.blocks + hostSlots.rows).map(Double.init))
                // Host arrays and device tables in turn.
                let slots = index % 2 == 0 ? hostSlots : try KVSlots(table: table.view)
                let (fused, separate) = (try fixture.tensors(), try fixture.tensors())
                let fusedCopies = try copies(fused)
                try runOnGPU(
                    .ropeAppendKV(fixture.operation(fused, views: fusedCopies.map(\.view), slots: slots)))
                let separateCopies = try copies(separate)
                for operation in try fixture.separateOperations(
                    separate, views: separateCopies.map(\.view), slots: slots)
                {
                    try runOnGPU(operation)
                }
                for copy in fusedCopies + separateCopies { try copy.fetch() }
                let name: Comment = "\(input), queries \(queryType as Any)"
                #expect(fused.keyCache.isIdentical(to: separate.keyCache), name)
                #expect(fused.valueCache.isIdentical(to: separate.valueCache), name)
                #expect(fused.queryOutput.isIdentical(to: separate.queryOutput), name)
                #expect(fused.keys.isIdentical(to: separate.keys), name)
                #expect(fixture.firstProblem(fused) == nil, name)
            }
        }
    }

    /// So many tokens that a block takes several, the last block fewer.
    @Test(arguments: [DType.float16, .float8E4M3]) func manyTokens(cacheType: DType) throws {
        var random = OpsRandom(44)
        let (pageSize, pages, tokens, dim) = (8, 140, 1_027, 16)
        let slots = try KVSlots(
            slots: (0..<tokens).map { $0 % 100 == 7 ? -1 : Int32($0 * 37 % (pages * pageSize)) }, pageSize: pageSize)
        let positions = try gpu.tensor(.int32, [tokens], values: (0..<tokens).map { Double($0 * 11 % 5_000) }).view
        let sources = try [3, 1, 1].map { heads in
            try gpu.tensor(.float16, [tokens, heads, dim], values: random.normals(tokens * heads * dim, scale: 4)).view
        }
        let wide = try [3, 1].map { heads in try gpu.tensor(.float32, [tokens, heads, dim]).view }
        let turned = try (0..<2).map { _ in try gpu.tensor(.float16, [tokens, 3, dim]) }
        let caches = try (0..<4).map { _ in try gpu.tensor(cacheType, [pages, pageSize, 1, dim]) }
        let separate = try KVCacheView.paged(keys: caches[0].view, values: caches[1].view)
        let fused = try KVCacheView.paged(keys: caches[2].view, values: caches[3].view)
        let parameters = RoPEParameters()
        for index in 0..<2 {
            try runOnGPU(
                .rope(
                    RoPEOperation(
                        queries: sources[index], queryOutput: wide[index], positions: positions, parameters: parameters)
                ))
        }
        try runOnGPU(.convert(ConvertOperation(input: wide[0], output: turned[0].view)))
        try runOnGPU(.appendKV(AppendKVOperation(keys: wide[1], values: sources[2], cache: separate, slots: slots)))
        try runOnGPU(
            .ropeAppendKV(
                RoPEAppendKVOperation(
                    queries: sources[0], keys: sources[1], values: sources[2], queryOutput: turned[1].view,
                    positions: positions, parameters: parameters, cache: fused, slots: slots)))
        for copy in turned + caches { try copy.fetch() }
        #expect(turned[1].host.isIdentical(to: turned[0].host))
        #expect(caches[2].host.isIdentical(to: caches[0].host))
        #expect(caches[3].host.isIdentical(to: caches[1].host))
    }

    @Test func slotsOutsideOfTheCacheAreNotStored() throws {
        let wild: [Int32] = [0, .max, 3, -1, 2, .min, 1, 0]
        let rows: [Int32] = [4, 0, -1, 0, .max, 0, 2, .min]
        let table = try gpu.tensor(.int32, [2, 8], values: (wild + rows).map(Double.init))
        let source = try gpu.tensor(.float32, [8, 1, 8], values: [Double](repeating: 5, count: 64))
        let queries = try gpu.tensor(.float32, [8, 2, 8], values: [Double](repeating: 1, count: 128))
        let positions = try gpu.tensor(.int32, [8], values: [Double](repeating: 0, count: 8))
        let (keys, values) = (try gpu.tensor(.float16, [3, 4, 1, 8]), try gpu.tensor(.float16, [3, 4, 1, 8]))
        func operation(_ cache: KVCacheView) throws -> RoPEAppendKVOperation {
            RoPEAppendKVOperation(
                queries: queries.view, keys: source.view, values: source.view, positions: positions.view,
                parameters: RoPEParameters(), cache: cache, slots: try KVSlots(table: table.view))
        }
        try runOnGPU(.ropeAppendKV(operation(.paged(keys: keys.view, values: values.view))))
        for tensor in [keys, values] {
            let found = try tensor.fetch()
            // Only page 1, row 2 is inside.
            #expect(
                found.enumerated().allSatisfy { (48..<56).contains($0.offset) ? $0.element == 5 : $0.element.isNaN })
            #expect(tensor.host.paddingIsIntact)
        }
        #expect(try queries.fetch().allSatisfy { $0 == 1 })
        // A ragged cache of six rows: 0 + 4 and 1 + 2 are inside.
        let ragged = try (0..<2).map { _ in try gpu.tensor(.int8, [6, 1, 8]) }
        try runOnGPU(.ropeAppendKV(operation(.ragged(keys: ragged[0].view, values: ragged[1].view))))
        for tensor in ragged {
            let found = try tensor.fetch()
            #expect((0..<6).filter { found[8 * $0] == 5 } == [3, 4])
            #expect(tensor.host.paddingIsIntact)
        }
    }

    @Test func manyTokensAndNone() throws {
        var random = OpsRandom(53)
        for tokens in [0, 1, 3_000] {
            let queries = try gpu.tensor(.bfloat16, [tokens, 8, 64], values: random.normals(tokens * 512))
            let keys = try gpu.tensor(.bfloat16, [tokens, 2, 64], values: random.normals(tokens * 128))
            let places = (0..<tokens).map { Double($0) }
            let positions = try gpu.tensor(.int32, [tokens], values: places)
            let cache = try gpu.tensor(.bfloat16, [max(tokens, 1), 2, 1, 2, 64])
            let output = try gpu.tensor(.bfloat16, [tokens, 8, 64])
            try runOnGPU(
                .ropeAppendKV(
                    RoPEAppendKVOperation(
                        queries: queries.view, keys: keys.view, values: keys.view, queryOutput: output.view,
                        positions: positions.view, parameters: RoPEParameters(),
                        cache: try .paged(combined: cache.view),
                        slots: try KVSlots(slots: (0..<Int32(tokens)).map { $0 }, pageSize: 1))))
            let found = try cache.fetch()
            for token in 0..<tokens {
                let key = Array(keys.host.values[token * 128..<token * 128 + 64])
                let exact = OpsOracle.rope(key, position: places[token], RoPEParameters())
                for d in 0..<64 where abs(found[token * 256 + d] - exact[d]) > 0x1p-8 * 6 {
                    Issue.record("token \(token), element \(d): \(found[token * 256 + d]), exactly \(exact[d])")
                    return
                }
            }
            #expect(output.host.paddingIsIntact)
        }
    }

    /// A device of its own, as nobody else may use one that captures.
    @Test func aCapturedLaunchReadsItsTablesAtEachReplay() throws {
        let device = try CUDADevice()
        let gpu = GPUScope(on: device)
        let queries = try gpu.tensor(.float32, [1, 2, 8], values: [Double](repeating: 1, count: 16))
        let output = try gpu.tensor(.float16, [1, 2, 8])
        let keys = try gpu.tensor(.float32, [1, 1, 8], values: [Double](repeating: 1, count: 8))
        let (table, positions) = (
            try gpu.tensor(.int32, [2, 1], values: [0, 0]), try gpu.tensor(.int32, [1], values: [0])
        )
        let cache = try gpu.tensor(.float16, [2, 2, 2, 1, 8])
        let operation = FlashInferCore.Operation.ropeAppendKV(
            RoPEAppendKVOperation(
                queries: queries.view, keys: keys.view, values: keys.view, queryOutput: output.view,
                positions: positions.view, parameters: RoPEParameters(), cache: try .paged(combined: cache.view),
                slots: try KVSlots(table: table.view)))
        try operation.validate()
        try device.execute(operation)
        let graph = try #require(
            try device.capture { () throws(FlashInferError) in try device.execute(operation) })
        for (block, row, position) in [(1, 0, 3), (1, 1, 100)] {
            (table.host[0], table.host[1], positions.host[0]) = (Double(block), Double(row), Double(position))
            try device.upload(UnsafeRawBufferPointer(table.host.bytes), to: table.view.region)
            try device.upload(UnsafeRawBufferPointer(positions.host.bytes), to: positions.view.region)
            try graph.replay()
        }
        let found = try cache.fetch()
        // Keys of page 0, row 0 and of page 1; values beside them; nothing in page 0, row 1.
        #expect((0..<8).filter { !found[8 * $0].isNaN } == [0, 2, 4, 5, 6, 7])
        let exact = OpsOracle.rope([Double](repeating: 1, count: 8), position: 100, RoPEParameters())
        for d in 0..<8 { #expect(abs(found[8 * 5 + d] - exact[d]) < 0x1p-9) }
        let turned = try output.fetch()
        for d in 0..<8 { #expect(abs(turned[8 + d] - exact[d]) < 0x1p-9) }
    }
}
