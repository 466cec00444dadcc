import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

@Suite struct CacheOperationTests {
    /// Two requests of 5 and 2 pages, each appending its last tokens; a third with no pages.
    private func geometry(pageSize: Int) throws -> BatchGeometry {
        try .paged(
            queryIndptr: [0, Int32(pageSize + 1), Int32(pageSize + 2), Int32(pageSize + 2)], pageIndptr: [0, 5, 7, 7],
            pageIndices: [9, 3, 0, 7, 11, 2, 6, 2_147_483_647], lastPageLengths: [1, Int32(pageSize), 0],
            pageSize: pageSize, pageCount: 12)
    }

    @Test(arguments: instructionSets, [KVLayout.nhd, .hnd])
    func appendChangesItsSlotsOnly(set: InstructionSet, layout: KVLayout) throws {
        let ops = makeOps(set)
        var random = OpsRandom(9)
        let (heads, dimK, dimV, pageSize) = (3, 24, 111, 4)
        let geometry = try geometry(pageSize: pageSize)
        let tokens = geometry.queryCount
        for cacheType in DType.allCases where cacheType.isCacheType {
            for sourceType in DType.allCases where sourceType.isComputeType {
                let shape = { (dim: Int) in
                    layout == .nhd ? [12, pageSize, heads, dim] : [12, heads, pageSize, dim]
                }
                let keyCache = try OpsTensor(cacheType, shape(dimK), padding: 5)
                let valueCache = try OpsTensor(cacheType, shape(dimV), padding: 1)
                let (oldKeys, oldValues) = (
                    (0..<keyCache.count).map(keyCache.bits), (0..<valueCache.count).map(valueCache.bits)
                )
                let perHead = try OpsTensor(.float32, [heads], values: [0.5, 1, 4])
                let cache = try KVCacheView.paged(
                    keys: keyCache.view, values: valueCache.view, layout: layout,
                    scales: KVScales(key: 0.25, value: 2, keyPerHead: perHead.view))
                let keys = try OpsTensor(
                    sourceType, [tokens, heads, dimK], padding: 3,
                    values: random.normals(tokens * heads * dimK, scale: 40))
                let values = try OpsTensor(
                    sourceType, [tokens, heads, dimV], values: random.normals(tokens * heads * dimV, scale: 40))
                let operation = AppendKVOperation(
                    keys: keys.view, values: values.view, cache: cache, slots: try KVSlots(geometry))
                try operation.validate()
                ops.execute(operation)

                let scales = { (head: Int, isKey: Bool) in isKey ? 0.25 * perHead[head] : 2 }
                for (cache, old, source, dim, isKey) in [
                    (keyCache, oldKeys, keys, dimK, true), (valueCache, oldValues, values, dimV, false),
                ] {
                    var expected = old
                    for request in 0..<2 {
                        for index in 0..<geometry.queryLength(request) {
                            let token = Int(geometry.queryIndptr[request]) + index
                            let position = geometry.kvLength(request) - geometry.queryLength(request) + index
                            let page = Int([[9, 3, 0, 7, 11], [2, 6]][request][position / pageSize])
                            let row = position % pageSize
                            for head in 0..<heads {
                                let start =
                                    layout == .nhd
                                    ? ((page * pageSize + row) * heads + head) * dim
                                    : ((page * heads + head) * pageSize + row) * dim
                                let one = try OpsTensor(
                                    cacheType, [dim],
                                    values: (0..<dim).map {
                                        source[(token * heads + head) * dim + $0] / scales(head, isKey)
                                    })
                                for d in 0..<dim { expected[start + d] = one.bits(d) }
                            }
                        }
                    }
                    #expect((0..<cache.count).map(cache.bits) == expected, "\(sourceType) into \(cacheType)")
                    #expect(cache.paddingIsIntact)
                }
            }
        }
    }

    @Test func raggedAppendAndSkippedTokens() throws {
        let ops = makeOps(.detected)
        let geometry = try BatchGeometry.ragged(queryIndptr: [0, 2, 3], kvIndptr: [0, 4, 6])
        let keyCache = try OpsTensor(.float32, [6, 1, 8], values: [Double](repeating: -1, count: 48))
        let valueCache = try OpsTensor(.float32, [6, 1, 8], values: [Double](repeating: -1, count: 48))
        let cache = try KVCacheView.ragged(keys: keyCache.view, values: valueCache.view)
        let source = try OpsTensor(
            .float32, [4, 1, 8], values: (0..<4).flatMap { [Double](repeating: Double($0), count: 8) })
        let slots = try KVSlots(
            table: geometry.blocks, batchIndices: [0, -1, 1, 0], positions: [3, 77, 0, 0])
        let operation = AppendKVOperation(keys: source.view, values: source.view, cache: cache, slots: slots)
        try operation.validate()
        ops.execute(operation)
        #expect((0..<6).map { keyCache[$0 * 8] } == [3, -1, -1, 0, 2, -1])
        #expect(keyCache.values == valueCache.values)
        #expect(try KVSlots(geometry).blocks == [0, 0, 4])
        #expect(try KVSlots(geometry).rows == [2, 3, 1])
    }

    @Test func wrongSlotsAreNamed() throws {
        let table = try geometry(pageSize: 4).blocks
        func expectError(_ batch: [Int32], _ positions: [Int32]) {
            #expect(throws: FlashInferError.self) {
                try KVSlots(table: table, batchIndices: batch, positions: positions)
            }
        }
        expectError([0], [17])
        expectError([0], [-1])
        expectError([3], [0])
        expectError([-2], [0])
        expectError([2], [0])
        expectError([0], [])
        expectError([0, 1, 0], [2, 0, 2])
        #expect(throws: FlashInferError.self) { try KVSlots(slots: [3, 3], pageSize: 4) }
        #expect(throws: FlashInferError.self) { try KVSlots(slots: [3], pageSize: 0) }

        let cacheTensor = try OpsTensor(.float32, [2, 4, 1, 8])
        let cache = try KVCacheView.paged(keys: cacheTensor.view, values: OpsTensor(.float32, [2, 4, 1, 8]).view)
        let source = try OpsTensor(.float32, [1, 1, 8])
        func append(_ slot: Int32, _ cache: KVCacheView) throws {
            try AppendKVOperation(
                keys: source.view, values: source.view, cache: cache, slots: KVSlots(slots: [slot], pageSize: 4)
            ).validate()
        }
        try append(7, cache)
        #expect(throws: FlashInferError.invalidArgument("page of token 0", found: "2", expected: "in 0 ..< 2")) {
            try append(8, cache)
        }
        var scaled = cache
        scaled.scales.key = 0
        #expect(throws: FlashInferError.self) { try append(0, scaled) }
    }

    @Test(arguments: [KVLayout.nhd, .hnd], [0, 3])
    func copiesHappenAtOnce(layout: KVLayout, padding: Int) throws {
        let ops = makeOps(.detected)
        var random = OpsRandom(10)
        for trial in 0..<40 {
            let pages = 2 + trial % 7
            let shape = layout == .nhd ? [pages, 2, 3, 5, 4] : [pages, 2, 5, 3, 4]
            let memory = try OpsTensor(
                .bfloat16, shape, padding: padding, values: random.normals(pages * 2 * 15 * 4))
            let old = memory.values
            let destinations = (0..<Int32(pages)).filter { _ in random.uniform() < 0.8 }.sorted { _, _ in
                random.uniform() < 0.5
            }
            let sources = destinations.map { _ in Int32(random.uniform() * Double(pages)) }
            let operation = CopyPagesOperation(
                cache: try .paged(combined: memory.view, layout: layout), sources: sources,
                destinations: destinations)
            try operation.validate()
            ops.execute(operation)
            var expected = old
            for (from, to) in zip(sources, destinations) {
                for index in 0..<120 { expected[Int(to) * 120 + index] = old[Int(from) * 120 + index] }
            }
            #expect(memory.values == expected, "\(sources) to \(destinations)")
            #expect(memory.paddingIsIntact)
        }
    }

    @Test func largeCopiesOnSeveralThreads() throws {
        let ops = makeOps(.detected, threads: 3)
        let memory = try OpsTensor(.float32, [4, 2, 16, 8, 64], values: (0..<65_536).map { Double($0) })
        let old = memory.values
        let operation = CopyPagesOperation(
            cache: try .paged(combined: memory.view), sources: [1, 2, 0, 0], destinations: [0, 1, 2, 3])
        try operation.validate()
        ops.execute(operation)
        let page = 16_384
        for (to, from) in [1, 2, 0, 0].enumerated() {
            #expect(memory.values[to * page..<(to + 1) * page] == old[from * page..<(from + 1) * page])
        }
    }

    @Test func wrongPagesAreNamed() throws {
        let memory = try OpsTensor(.float32, [3, 2, 1, 1, 8])
        let cache = try KVCacheView.paged(combined: memory.view)
        for (sources, destinations) in [([0], [3]), ([-1], [0]), ([0, 1], [2, 2]), ([0, 1], [2])]
            as [([Int32], [Int32])]
        {
            #expect(throws: FlashInferError.self) {
                try CopyPagesOperation(cache: cache, sources: sources, destinations: destinations).validate()
            }
        }
    }

    @Test func lengthsAndPositions() throws {
        #expect(
            try KVPositions.sequenceLengths(pageIndptr: [0, 2, 2, 3], lastPageLengths: [3, 0, 16], pageSize: 16)
                == [19, 0, 16])
        let (batch, positions) = try KVPositions.batchIndicesPositions(
            appendIndptr: [0, 2, 2, 5], sequenceLengths: [19, 0, 3], count: 7)
        #expect(batch == [0, 0, 2, 2, 2, -1, -1])
        #expect(positions == [17, 18, 0, 1, 2, 0, 0])
        #expect(throws: FlashInferError.lastPageLengthOutOfRange(request: 0, length: 17, pageSize: 16)) {
            try KVPositions.sequenceLengths(pageIndptr: [0, 1], lastPageLengths: [17], pageSize: 16)
        }
        #expect(throws: FlashInferError.self) {
            try KVPositions.batchIndicesPositions(appendIndptr: [0, 3], sequenceLengths: [2])
        }
        #expect(throws: FlashInferError.self) {
            try KVPositions.batchIndicesPositions(appendIndptr: [0, 3], sequenceLengths: [3], count: 2)
        }
    }
}
