import FlashInferCore

/// Keys and values in a layout, with everything that no request owns poisoned.
struct AttentionCacheStore {
    let geometry: BatchGeometry
    let key: (Int, Int, Int, Int) -> Double
    let value: (Int, Int, Int, Int) -> Double
    /// Keys, and values where they do not share the keys' allocation.
    let tensors: [AttentionTensor]
    /// Scales a head of keys and values, or none.
    let headScales: [AttentionTensor]

    private let test: AttentionCase
    private let isCombined: Bool

    init(_ test: AttentionCase, _ shape: AttentionShape, _ g: inout SeededGenerator) throws {
        self.test = test
        let lengths = test.lengths.map { $0.1 }
        let indptr = test.lengths.reduce(into: [Int32(0)]) { $0.append($0[$0.count - 1] + Int32($1.0)) }
        if test.isRagged {
            let kvIndptr = lengths.reduce(into: [Int32(0)]) { $0.append($0[$0.count - 1] + Int32($1)) }
            geometry = try .ragged(queryIndptr: indptr, kvIndptr: kvIndptr)
            let count = lengths.reduce(0, +)
            isCombined = false
            tensors = try [shape.headDimQK, shape.headDimVO].map { dim in
                try AttentionTensor(
                    test.cacheType,
                    test.layout == .raggedNHD ? [count, test.kvHeads, dim] : [test.kvHeads, count, dim])
            }
        } else {
            let (table, pageCount) = try Self.pages(test, lengths, indptr, &g)
            geometry = table
            (tensors, isCombined) = try Self.paged(test, shape, pageCount)
        }
        headScales = test.hasHeadScales ? try (0..<2).map { _ in try AttentionTensor(.float32, [test.kvHeads]) } : []
        for tensor in headScales {
            for head in 0..<test.kvHeads { tensor.set(head, Double.random(in: 0.5..<2, using: &g)) }
        }
        let (keys, values) = try Self.parts(test, tensors.map(\.view), isCombined)
        let (keyMemory, valueMemory) = (tensors[0], tensors[tensors.count - 1])
        let blocks = geometry.blocks
        func offset(_ tensor: KVTensor, _ request: Int, _ j: Int, _ head: Int, _ d: Int) -> Int {
            let block = Int(blocks.indices[Int(blocks.indptr[request]) + j / blocks.blockSize])
            return tensor.view.byteOffset / tensor.dtype.byteCount + block * tensor.blockStride
                + j % blocks.blockSize * tensor.tokenStride + head * tensor.headStride + d
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
        let (scales, perHead) = (Self.scales(test), headScales)
        key = { request, j, head, d in
            keyMemory.get(offset(keys, request, j, head, d)) * Double(scales.key) * (perHead.first?.get(head) ?? 1)
        }
        value = { request, j, head, d in
            valueMemory.get(offset(values, request, j, head, d)) * Double(scales.value) * (perHead.last?.get(head) ?? 1)
        }
    }

    /// The cache in somebody's copies of `tensors` and `headScales`.
    func cache(_ views: [TensorView], _ headScales: [TensorView]) throws -> KVCacheView {
        var scales = Self.scales(test)
        if headScales.count == 2 { (scales.keyPerHead, scales.valuePerHead) = (headScales[0], headScales[1]) }
        let (keys, values) = try Self.parts(test, views, isCombined)
        return try KVCacheView(keys: keys, values: values, scales: scales)
    }

    private static func scales(_ test: AttentionCase) -> KVScales {
        test.cacheType == .int8 ? KVScales(key: 0.02, value: 0.03) : KVScales()
    }

    private static func parts(
        _ test: AttentionCase, _ views: [TensorView], _ isCombined: Bool
    ) throws -> (keys: KVTensor, values: KVTensor) {
        let isHND = [.combinedHND, .splitHND, .raggedHND].contains(test.layout)
        let layout = isHND ? KVLayout.hnd : .nhd
        if isCombined {
            let cache = try KVCacheView.paged(combined: views[0], layout: layout)
            return (cache.keys, cache.values)
        }
        if test.isRagged {
            return (try .ragged(views[0], layout: layout), try .ragged(views[1], layout: layout))
        }
        return (try .paged(views[0], layout: layout), try .paged(views[1], layout: layout))
    }

    /// Pages in random order, twice as many as needed, and wild ids after the last.
    private static func pages(
        _ test: AttentionCase, _ lengths: [Int], _ queryIndptr: [Int32], _ g: inout SeededGenerator
    ) throws -> (geometry: BatchGeometry, pageCount: Int) {
        let pageSize = test.pageSize
        let counts = lengths.map { ($0 + pageSize - 1) / pageSize }
        let total = counts.reduce(0, +)
        let pageCount = test.poolPages ?? 2 * total + 1
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
    ) throws -> (tensors: [AttentionTensor], isCombined: Bool) {
        let isHND = test.layout == .combinedHND || test.layout == .splitHND
        let (outer, inner) = isHND ? (test.kvHeads, test.pageSize) : (test.pageSize, test.kvHeads)
        let isCombined = test.layout == .combinedNHD || test.layout == .combinedHND
        if isCombined, shape.headDimQK == shape.headDimVO {
            return ([try AttentionTensor(test.cacheType, [pageCount, 2, outer, inner, shape.headDimQK])], true)
        }
        func make(_ dim: Int) throws -> AttentionTensor {
            // Strided: 3 elements between heads, so no row is aligned to anything.
            let row = test.layout == .strided ? dim + 3 : dim
            return try AttentionTensor(
                test.cacheType, [pageCount, outer, inner, dim], strides: [outer * inner * row + 5, inner * row, row, 1])
        }
        return ([try make(shape.headDimQK), try make(shape.headDimVO)], false)
    }
}
