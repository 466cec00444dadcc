import FlashInferCPU
import FlashInferCore
import TestSupport

/// The tensors of a case, poisoned wherever nothing may be read, and its oracle.
final class AttentionFixture {
    let problem: AttentionProblem
    let oracle: AttentionOracle
    private let queries: AttentionTensor
    private let cache: KVCacheView
    private let mask: AttentionTensor?
    private let slopes: AttentionTensor?
    private let sinks: AttentionTensor?
    private let owned: [AttentionTensor]

    init(_ test: AttentionCase) throws {
        var g = SeededGenerator(seed: test.seed)
        let shape = try AttentionShape(
            queryHeads: test.kvHeads * test.group, kvHeads: test.kvHeads, headDimQK: test.dimQK, headDimVO: test.dimVO)
        let store = try KVStore(test, shape, &g)
        problem = try AttentionProblem(
            geometry: store.geometry, shape: shape, variant: test.variant, queryType: test.queryType,
            kvType: test.cacheType, outputType: test.outputType)
        let tokens = store.geometry.queryCount
        // Rows of queries are not contiguous: as slices of a fused projection.
        let rowElements = shape.queryHeads * (test.dimQK + 8)
        let queries = try AttentionTensor(
            test.queryType, [tokens, shape.queryHeads, test.dimQK], strides: [rowElements, test.dimQK + 8, 1])
        let queryHead = test.dimQK + 8
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
        cache = store.cache
        owned = store.owned
        var oracle = AttentionOracle(
            problem: problem, query: { queries.get($0 * rowElements + $1 * queryHead + $2) }, key: store.key,
            value: store.value)
        mask = try Self.makeMask(problem, &g, &oracle)
        (slopes, sinks) = try Self.makeHeadTensors(problem, given: test.seed % 2 == 0, &g, &oracle)
        self.oracle = oracle
    }

    private static func makeMask(
        _ problem: AttentionProblem, _ g: inout SeededGenerator, _ oracle: inout AttentionOracle
    ) throws -> AttentionTensor? {
        let isPacked = problem.variant.mask == .customPacked
        guard isPacked || problem.variant.mask == .custom else { return nil }
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
        if problem.variant.positionEncoding == .alibi, given {
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

    /// Results of one run.
    struct Output: Equatable {
        var output: [Double]
        var logSumExp: [Double]
    }

    func run(
        _ attention: CPUAttention, mode: Planner.Mode = .balanced, processors: Int = 2, queryRows: Int? = nil
    ) throws -> Output {
        var traits = try attention.kernelTraits(for: problem)
        if let queryRows { traits.tiles[traits.tiles.count - 1].queryRows = queryRows }
        let plan = try Planner.plan(problem, traits: traits, processors: processors, mode: mode)
        let shape = problem.shape
        let tokens = problem.geometry.queryCount
        let output = try AttentionTensor(problem.outputType, [tokens, shape.queryHeads, shape.headDimVO])
        let lse = try AttentionTensor(.float32, [tokens, shape.queryHeads])
        let workspace = try AttentionTensor(.uint8, [plan.workspaceByteCount])
        let operation = AttentionOperation(
            queries: queries.view, cache: cache, output: output.view, logSumExp: lse.view, mask: mask?.view,
            alibiSlopes: slopes?.view, sinks: sinks?.view, plan: plan, workspace: workspace.view.region)
        try operation.validate()
        attention.execute(operation)
        return Output(output: output.elements, logSumExp: lse.elements)
    }
}

/// Keys and values in a layout, with everything that no request owns poisoned.
private struct KVStore {
    let geometry: BatchGeometry
    let cache: KVCacheView
    let key: (Int, Int, Int, Int) -> Double
    let value: (Int, Int, Int, Int) -> Double
    let owned: [AttentionTensor]

    init(_ test: AttentionCase, _ shape: AttentionShape, _ g: inout SeededGenerator) throws {
        let lengths = test.lengths.map { $0.1 }
        let indptr = test.lengths.reduce(into: [Int32(0)]) { $0.append($0[$0.count - 1] + Int32($1.0)) }
        let isRagged = test.layout == .raggedNHD || test.layout == .raggedHND
        let (keys, values): (KVTensor, KVTensor)
        var owned: [AttentionTensor] = []
        if isRagged {
            let kvIndptr = lengths.reduce(into: [Int32(0)]) { $0.append($0[$0.count - 1] + Int32($1)) }
            geometry = try .ragged(queryIndptr: indptr, kvIndptr: kvIndptr)
            let (count, layout) = (lengths.reduce(0, +), test.layout == .raggedNHD ? KVLayout.nhd : .hnd)
            func make(_ dim: Int) throws -> KVTensor {
                let shape: Shape = layout == .nhd ? [count, test.kvHeads, dim] : [test.kvHeads, count, dim]
                let tensor = try AttentionTensor(test.cacheType, shape)
                owned.append(tensor)
                return try .ragged(tensor.view, layout: layout)
            }
            (keys, values) = (try make(shape.headDimQK), try make(shape.headDimVO))
        } else {
            let (table, pageCount) = try Self.pages(lengths, indptr, test.pageSize, &g)
            geometry = table
            (keys, values, owned) = try Self.paged(test, shape, pageCount)
        }
        // In a combined cache keys and values share an allocation.
        let (keyMemory, valueMemory) = (owned[0], owned[owned.count - 1])
        let (blocks, isShared) = (geometry.blocks, owned.count == 1)
        func offset(_ tensor: KVTensor, _ request: Int, _ j: Int, _ head: Int, _ d: Int) -> Int {
            let block = Int(blocks.indices[Int(blocks.indptr[request]) + j / blocks.blockSize])
            let base = isShared ? tensor.view.byteOffset / tensor.dtype.byteCount : 0
            return base + block * tensor.blockStride + j % blocks.blockSize * tensor.tokenStride
                + head * tensor.headStride + d
        }
        let spread = test.cacheType == .int8 ? 40.0 : 1
        for (request, length) in lengths.enumerated() {
            var own = SeededGenerator(seed: test.seed &* 1000 &+ 500 &+ UInt64(request))
            for j in 0..<length {
                for head in 0..<test.kvHeads {
                    for d in 0..<shape.headDimQK {
                        let x = min(max(Double(own.normal()) * spread, -128), 127)
                        keyMemory.set(offset(keys, request, j, head, d), x)
                    }
                    for d in 0..<shape.headDimVO {
                        let x = min(max(Double(own.normal()) * spread, -128), 127)
                        valueMemory.set(offset(values, request, j, head, d), x)
                    }
                }
            }
        }
        var scales = KVScales()
        if test.cacheType == .int8 { scales = KVScales(key: 0.02, value: 0.03) }
        var perHead: [AttentionTensor] = []
        if test.hasHeadScales {
            perHead = [try AttentionTensor(.float32, [test.kvHeads]), try AttentionTensor(.float32, [test.kvHeads])]
            for tensor in perHead {
                for head in 0..<test.kvHeads { tensor.set(head, Double.random(in: 0.5..<2, using: &g)) }
            }
            (scales.keyPerHead, scales.valuePerHead) = (perHead[0].view, perHead[1].view)
        }
        let factors = (key: Double(scales.key), value: Double(scales.value), heads: perHead)
        key = { request, j, head, d in
            keyMemory.get(offset(keys, request, j, head, d)) * factors.key * (factors.heads.first?.get(head) ?? 1)
        }
        value = { request, j, head, d in
            valueMemory.get(offset(values, request, j, head, d)) * factors.value * (factors.heads.last?.get(head) ?? 1)
        }
        cache = try KVCacheView(keys: keys, values: values, scales: scales)
        self.owned = owned + perHead
    }

    /// Pages in random order, twice as many as needed, and wild ids after the last.
    private static func pages(
        _ lengths: [Int], _ queryIndptr: [Int32], _ pageSize: Int, _ g: inout SeededGenerator
    ) throws -> (geometry: BatchGeometry, pageCount: Int) {
        let counts = lengths.map { ($0 + pageSize - 1) / pageSize }
        let total = counts.reduce(0, +)
        let pageCount = 2 * total + 1
        let ids = (0..<Int32(pageCount)).shuffled(using: &g).prefix(total) + [.max, -5]
        let indptr = counts.reduce(into: [Int32(0)]) { $0.append($0[$0.count - 1] + Int32($1)) }
        let last = zip(lengths, counts).map { length, count in Int32(count == 0 ? 0 : length - (count - 1) * pageSize) }
        let geometry = try BatchGeometry.paged(
            queryIndptr: queryIndptr, pageIndptr: indptr, pageIndices: Array(ids), lastPageLengths: last,
            pageSize: pageSize, pageCount: pageCount)
        return (geometry, pageCount)
    }

    private static func paged(
        _ test: AttentionCase, _ shape: AttentionShape, _ pageCount: Int
    ) throws -> (keys: KVTensor, values: KVTensor, owned: [AttentionTensor]) {
        let isHND = test.layout == .combinedHND || test.layout == .splitHND
        let layout = isHND ? KVLayout.hnd : .nhd
        let (outer, inner) = isHND ? (test.kvHeads, test.pageSize) : (test.pageSize, test.kvHeads)
        let isCombined = test.layout == .combinedNHD || test.layout == .combinedHND
        if isCombined, shape.headDimQK == shape.headDimVO {
            let tensor = try AttentionTensor(test.cacheType, [pageCount, 2, outer, inner, shape.headDimQK])
            let cache = try KVCacheView.paged(combined: tensor.view, layout: layout)
            return (cache.keys, cache.values, [tensor])
        }
        func make(_ dim: Int) throws -> AttentionTensor {
            // Strided: 3 elements between heads, so no row is aligned to anything.
            let row = test.layout == .strided ? dim + 3 : dim
            return try AttentionTensor(
                test.cacheType, [pageCount, outer, inner, dim], strides: [outer * inner * row + 5, inner * row, row, 1])
        }
        let (k, v) = (try make(shape.headDimQK), try make(shape.headDimVO))
        return (try .paged(k.view, layout: layout), try .paged(v.view, layout: layout), [k, v])
    }
}
