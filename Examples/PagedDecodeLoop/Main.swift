// The loop at the heart of a server: a paged cache, new tokens appended, attention replanned as lengths grow.
//
//   swift run -c release PagedDecodeLoop

import FlashInfer

@main
enum PagedDecodeLoop {
    static func main() throws {
        let device = try Devices.makeDefault()
        let (layers, heads, kvHeads, headDim, pageSize) = (2, 8, 2, 64, 16)
        let cache = try PagedKVCache(
            on: device, layers: layers, pages: 64, pageSize: pageSize, heads: kvHeads, headDim: headDim,
            dtype: .bfloat16)
        print("device: \(device.name), cache: \(cache.byteCount) bytes, \(cache.byteCountPerToken) a token")

        // Three sequences of different lengths; each owns pages of the pool, in any order.
        var lengths = [5, 40, 17]
        var freePages = Array((0..<Int32(64)).reversed())
        var pages: [[Int32]] = lengths.map { length in
            (0..<(length + pageSize - 1) / pageSize).map { _ in freePages.removeLast() }
        }

        let shape = try AttentionShape(queryHeads: heads, kvHeads: kvHeads, headDimQK: headDim)
        let queries = try DeviceBuffer(on: device, dtype: .float32, shape: [lengths.count, heads, headDim])
        let keys = try DeviceBuffer(on: device, dtype: .float32, shape: [lengths.count, kvHeads, headDim])
        let values = try DeviceBuffer(on: device, dtype: .float32, shape: [lengths.count, kvHeads, headDim])
        let output = try DeviceBuffer(on: device, dtype: .float32, shape: [lengths.count, heads, headDim])

        for step in 0..<20 {
            // One more token each; a page from the pool where the last one is full.
            for index in lengths.indices {
                if lengths[index] % pageSize == 0 { pages[index].append(freePages.removeLast()) }
                lengths[index] += 1
            }
            let geometry = try BatchGeometry.paged(
                pageIndptr: pages.reduce(into: [0]) { $0.append($0.last! + Int32($1.count)) },
                pageIndices: pages.flatMap { $0 },
                lastPageLengths: lengths.map { Int32(($0 - 1) % pageSize + 1) }, pageSize: pageSize,
                pageCount: cache.pageCount)
            let attention = try PlannedAttention(
                AttentionProblem(
                    geometry: geometry, shape: shape, variant: .causal, queryType: .float32, kvType: .bfloat16),
                on: device)
            let slots = try KVSlots(geometry)

            // One plan and one list of slots serve every layer.
            for layer in 0..<layers {
                let seed = Float(step * layers + layer)
                try queries.write(numbers(lengths.count * heads * headDim, seed))
                try keys.write(numbers(lengths.count * kvHeads * headDim, seed + 0.3))
                try values.write(numbers(lengths.count * kvHeads * headDim, seed + 0.6))
                try device.run(
                    .appendKV(
                        AppendKVOperation(
                            keys: keys.view, values: values.view, cache: cache.view(ofLayer: layer), slots: slots)))
                try attention.run(queries.view, cache.view(ofLayer: layer), into: output.view)
            }
            if step % 5 == 4 {
                let result: [Float] = try output.read()
                print("step \(step): lengths \(lengths), output[0, 0, 0 ..< 3] = \(result[0 ..< 3])")
            }
        }
    }

    /// What a model's projections would give.
    private static func numbers(_ count: Int, _ seed: Float) -> [Float] {
        (0..<count).map { (Float($0) * 0.37 + seed).truncatingRemainder(dividingBy: 1) - 0.5 }
    }
}
