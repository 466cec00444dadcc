import FlashInfer
import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Appends to a cache and copies of pages on the GPU.
@Suite(.enabled(if: OpsGPU.isThere, "no CUDA device")) struct CacheGPUTests {
    private let gpu = GPUScope()

    @Test(arguments: [KVLayout.nhd, .hnd], DType.allCases.filter(\.isCacheType))
    func appendIsTheCPUs(layout: KVLayout, cacheType: DType) throws {
        var random = OpsRandom(41)
        let cpu = CPUDevice(threads: 1)
        let (heads, pageSize, pages, tokens) = (3, 4, 12, 9)
        // Each token's page and row, without two alike; two are not stored.
        let slots: [Int32] = [9, -1, 3, 46, 0, 31, -5, 12, 47]
        for (dimK, dimV) in [(32, 64), (24, 111), (1, 16)] {
            for sources in GPUTypes.all {
                for tableIsOnGPU in [false, true] {
                    let shape = { (dim: Int) in
                        layout == .nhd ? [pages, pageSize, heads, dim] : [pages, heads, pageSize, dim]
                    }
                    let padding = dimK == 32 ? 0 : 5
                    let keyCache = try gpu.tensor(cacheType, shape(dimK), padding: padding)
                    let valueCache = try gpu.tensor(cacheType, shape(dimV), padding: padding)
                    let keys = try gpu.tensor(
                        sources.first, [tokens, heads, dimK], padding: padding,
                        values: random.normals(tokens * heads * dimK, scale: 40))
                    let values = try gpu.tensor(
                        sources.second, [tokens, heads, dimV], values: random.normals(tokens * heads * dimV, scale: 40))
                    let perHead = try gpu.tensor(.float32, [heads], values: [0.5, 1, 4])
                    let scales = { (view: TensorView?) in
                        dimK == 32 ? KVScales() : KVScales(key: 0.25, value: 2, keyPerHead: view)
                    }
                    let hostSlots = try KVSlots(slots: slots, pageSize: pageSize)
                    let table = try gpu.tensor(
                        .int32, [2, tokens], values: (hostSlots.blocks + hostSlots.rows).map(Double.init))
                    try runOnGPU(
                        .appendKV(
                            AppendKVOperation(
                                keys: keys.view, values: values.view,
                                cache: try .paged(
                                    keys: keyCache.view, values: valueCache.view, layout: layout,
                                    scales: scales(perHead.view)),
                                slots: tableIsOnGPU ? KVSlots(table: table.view) : hostSlots)))
                    let (expectedKeys, expectedValues) = (
                        try OpsTensor(cacheType, shape(dimK), padding: padding),
                        try OpsTensor(cacheType, shape(dimV), padding: padding)
                    )
                    let operation = AppendKVOperation(
                        keys: keys.host.view, values: values.host.view,
                        cache: try .paged(
                            keys: expectedKeys.view, values: expectedValues.view, layout: layout,
                            scales: scales(perHead.host.view)), slots: hostSlots)
                    try operation.validate()
                    try cpu.execute(.appendKV(operation))
                    // Every byte: elements stored, elements not stored, and what lies between.
                    try keyCache.fetch()
                    try valueCache.fetch()
                    #expect(keyCache.host.bytes.elementsEqual(expectedKeys.bytes), "\(sources), \(dimK)")
                    #expect(valueCache.host.bytes.elementsEqual(expectedValues.bytes), "\(sources), \(dimV)")
                }
            }
        }
    }

    /// So many that a block takes several tokens, the last block fewer.
    @Test(arguments: [DType.float16, .float8E4M3]) func manyTokens(cacheType: DType) throws {
        var random = OpsRandom(43)
        let (pageSize, pages, tokens, dim) = (8, 140, 1_027, 16)
        let slots = (0..<tokens).map { $0 % 100 == 7 ? Int32(-1) : Int32($0 * 37 % (pages * pageSize)) }
        let source = try gpu.tensor(.float16, [tokens, 1, dim], values: random.normals(tokens * dim, scale: 4))
        let caches = try (0..<2).map { _ in try gpu.tensor(cacheType, [pages, pageSize, 1, dim]) }
        let expected = try (0..<2).map { _ in try OpsTensor(cacheType, [pages, pageSize, 1, dim]) }
        let hostSlots = try KVSlots(slots: slots, pageSize: pageSize)
        try runOnGPU(
            .appendKV(
                AppendKVOperation(
                    keys: source.view, values: source.view,
                    cache: try .paged(keys: caches[0].view, values: caches[1].view), slots: hostSlots)))
        try CPUDevice(threads: 1).execute(
            .appendKV(
                AppendKVOperation(
                    keys: source.host.view, values: source.host.view,
                    cache: try .paged(keys: expected[0].view, values: expected[1].view), slots: hostSlots)))
        for (cache, expected) in zip(caches, expected) {
            try cache.fetch()
            #expect(cache.host.bytes.elementsEqual(expected.bytes))
        }
    }

    @Test func slotsOutsideOfTheCacheAreNotStored() throws {
        let wild: [Int32] = [0, .max, 3, -1, 2, .min, 1, 0]
        let rows: [Int32] = [4, 0, -1, 0, .max, 0, 2, .min]
        let table = try gpu.tensor(.int32, [2, 8], values: (wild + rows).map(Double.init))
        let source = try gpu.tensor(.float32, [8, 1, 8], values: [Double](repeating: 5, count: 64))
        let (keys, values) = (try gpu.tensor(.float32, [3, 4, 1, 8]), try gpu.tensor(.float32, [3, 4, 1, 8]))
        try runOnGPU(
            .appendKV(
                AppendKVOperation(
                    keys: source.view, values: source.view, cache: try .paged(keys: keys.view, values: values.view),
                    slots: try KVSlots(table: table.view))))
        for tensor in [keys, values] {
            let found = try tensor.fetch()
            // Only page 1, row 2 is inside.
            #expect(
                found.enumerated().allSatisfy { (48..<56).contains($0.offset) ? $0.element == 5 : $0.element.isNaN })
            #expect(tensor.host.paddingIsIntact)
        }
        // A ragged cache of six rows: block and row together say where.
        let ragged = try gpu.tensor(.float32, [6, 1, 8])
        let places = try gpu.tensor(.int32, [2, 3], values: [4, 4, 5, 1, 2, Double(Int32.max)])
        try runOnGPU(
            .appendKV(
                AppendKVOperation(
                    keys: source.view.slice(0..<3), values: source.view.slice(0..<3),
                    cache: try .ragged(keys: ragged.view, values: try gpu.tensor(.float32, [6, 1, 8]).view),
                    slots: try KVSlots(table: places.view))))
        #expect(try ragged.fetch().enumerated().allSatisfy { $0.offset >= 40 ? $0.element == 5 : $0.element.isNaN })
    }

    @Test func slotsOfALaterStepReplaceThoseKept() throws {
        let source = try gpu.tensor(.float32, [2, 1, 4], values: [1, 1, 1, 1, 2, 2, 2, 2])
        let (keys, values) = (try gpu.tensor(.float32, [4, 2, 1, 4]), try gpu.tensor(.float32, [4, 2, 1, 4]))
        let cache = try KVCacheView.paged(keys: keys.view, values: values.view)
        for slots in [[Int32(0), 7], [0, 7], [3, 5], [0, 7]] {
            try runOnGPU(
                .appendKV(
                    AppendKVOperation(
                        keys: source.view, values: source.view, cache: cache,
                        slots: try KVSlots(slots: slots, pageSize: 2))))
        }
        for tensor in [keys, values] {
            let found = try tensor.fetch()
            #expect((0..<8).map { found[4 * $0] }.map { $0.isNaN ? -1 : $0 } == [1, -1, -1, 1, -1, 2, -1, 2])
        }
    }

    @Test(arguments: [KVLayout.nhd, .hnd], [0, 3])
    func copiesHappenAtOnce(layout: KVLayout, padding: Int) throws {
        var random = OpsRandom(42)
        for trial in 0..<40 {
            let pages = 2 + trial % 7
            let dim = trial % 2 == 0 ? 4 : 16
            let shape = layout == .nhd ? [pages, 2, 3, 5, dim] : [pages, 2, 5, 3, dim]
            let page = 2 * 15 * dim
            let type: DType = trial % 3 == 0 ? .bfloat16 : trial % 3 == 1 ? .float32 : .int8
            let memory = try gpu.tensor(type, shape, padding: padding, values: random.normals(pages * page, scale: 20))
            let old = memory.host.values
            let destinations = (0..<Int32(pages)).filter { _ in random.uniform() < 0.8 }.sorted { _, _ in
                random.uniform() < 0.5
            }
            let sources = destinations.map { _ in Int32(random.uniform() * Double(pages)) }
            try runOnGPU(
                .copyPages(
                    CopyPagesOperation(
                        cache: try .paged(combined: memory.view, layout: layout), sources: sources,
                        destinations: destinations)))
            var expected = old
            for (from, to) in zip(sources, destinations) {
                for index in 0..<page { expected[Int(to) * page + index] = old[Int(from) * page + index] }
            }
            #expect(try memory.fetch() == expected, "\(sources) to \(destinations)")
            #expect(memory.host.paddingIsIntact)
        }
    }
}
