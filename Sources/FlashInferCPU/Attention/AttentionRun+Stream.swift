internal import CFlashInferCPU
internal import FlashInferCore

extension AttentionRun {
    /// A tile of few rows: the cache is read in place, all heads of a token together, and the next block fetched meanwhile.
    func stream(_ tile: AttentionTile, _ scratch: AttentionScratch) {
        let rows = Int32(tile.rows.count)
        let stride = Int64(CPUAttention.tileKeys)
        loadQueries(tile, scratch)
        start(tile.totalRows, scratch)
        prepareProgram(tile, scratch)
        // Two sets of offsets: this block's and the next one's.
        var (now, next) = (0, CPUAttention.tileKeys)
        var known = 0..<0
        forEachBlock(tile.keys, step: CPUAttention.blockKeys) { block in
            let kind = kind(tile, block)
            if kind == .empty {
                known = block.upperBound..<block.upperBound
                return
            }
            if known.isEmpty { locate(tile, block, at: now, scratch) }
            known = block.upperBound..<min(block.upperBound + CPUAttention.blockKeys, tile.keys.upperBound)
            locate(tile, known, at: next, scratch)

            var k = fi_attn_stream()
            k.base = keys.base + tile.heads.lowerBound * keys.head
            k.offsets = UnsafePointer(scratch.keyOffsets + now)
            k.head_stride = Int64(keys.head)
            (k.count, k.heads, k.type) = (Int32(block.count), Int32(tile.heads.count), cacheType)
            var v = k
            v.base = values.base + tile.heads.lowerBound * values.head
            v.offsets = UnsafePointer(scratch.valueOffsets + now)
            v.head_stride = Int64(values.head)
            prefetch(&k, v, count: block.count, width: shape.headDimVO)
            var later = k
            later.offsets = UnsafePointer(scratch.keyOffsets + next)
            prefetch(&v, later, count: known.count, width: shape.headDimQK)

            let ranges = visible(tile, block, scratch)
            format.stream_scores(
                scratch.scores, stride, scratch.queries, Int64(size.queryStride), rows, &k, Int32(shape.headDimQK))
            softmax(tile, block, ranges, kind, stride: stride, scratch)
            format.stream_values(
                scratch.output, Int64(size.outputStride), weights(scratch), stride, rows, &v, Int32(shape.headDimVO))
            swap(&now, &next)
        }
        finish(tile, scratch)
    }

    private func locate(_ tile: AttentionTile, _ block: Range<Int>, at place: Int, _ scratch: AttentionScratch) {
        blocks.locate(
            tile.request, head: tile.heads.lowerBound, from: block.lowerBound, count: block.count, in: keys,
            into: scratch.keyOffsets + place)
        blocks.locate(
            tile.request, head: tile.heads.lowerBound, from: block.lowerBound, count: block.count, in: values,
            into: scratch.valueOffsets + place)
    }

    /// Lets `stream` fetch the first `count` tokens of `wanted` while it is used.
    private func prefetch(_ stream: inout fi_attn_stream, _ wanted: fi_attn_stream, count: Int, width: Int) {
        stream.next_count = Int32(count)
        stream.next_base = wanted.base
        stream.next_offsets = wanted.offsets
        stream.next_head_stride = wanted.head_stride
        stream.next_bytes = Int32(width * elementSize)
    }

    private var elementSize: Int {
        switch cacheType {
        case FI_ATTN_F32: 4
        case FI_ATTN_F16, FI_ATTN_BF16: 2
        default: 1
        }
    }
}
