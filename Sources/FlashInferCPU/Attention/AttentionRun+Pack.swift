internal import CFlashInferCPU
internal import FlashInferCore

extension AttentionRun {
    /// One head of a tile of many rows: keys and values are packed once a tile of keys, and used by all rows.
    func pack(_ tile: AttentionTile, _ scratch: AttentionScratch) {
        let rows = tile.totalRows
        let head = tile.heads.lowerBound
        loadQueries(tile, scratch)
        start(rows, scratch)
        prepareProgram(tile, scratch)
        forEachBlock(tile.keys, step: CPUAttention.tileKeys) { keys in
            let kind = kind(tile, keys)
            if kind == .empty { return }
            let count = Int32(keys.count)
            packKeys(tile, head, keys, scratch)
            let ranges = visible(tile, keys, scratch)
            let stride = Int64(CPUAttention.tileKeys)
            format.scores(
                scratch.scores, stride, scratch.queries, Int64(size.queryStride), scratch.keyPanels, Int32(rows), count,
                Int32(shape.headDimQK), ranges)
            softmax(tile, keys, ranges, kind, stride: stride, scratch)
            packValues(tile, head, keys, scratch)
            format.values(
                scratch.output, Int64(size.outputStride), weights(scratch), stride, scratch.valuePanels, Int32(rows),
                count, Int32(shape.headDimVO), ranges)
        }
        finish(tile, scratch)
    }

    /// Where a tile's weights are: float32 weights overwrite the scores.
    func weights(_ scratch: AttentionScratch) -> UnsafeMutableRawPointer {
        format.element == FI_ATTN_F32 ? UnsafeMutableRawPointer(scratch.scores) : scratch.weights
    }

    /// Calls `body` with blocks of keys that start at multiples of `step`, whatever the first key is.
    ///
    /// The first block starts at a multiple of 16 at or before the first key (ranges hide what was added): a key's lane and
    /// its partner in a pair are then the same in every tile, and so is every rounding.
    func forEachBlock(_ keys: Range<Int>, step: Int, _ body: (Range<Int>) -> Void) {
        if keys.isEmpty { return }
        var start = keys.lowerBound & ~15
        while start < keys.upperBound {
            let end = min(start / step * step + step, keys.upperBound)
            body(start..<end)
            start = end
        }
    }

    /// Nothing seen: maximum −∞, sum 0, output 0. Weights that are not the softmax's have no sum: 1, and its logarithm.
    func start(_ rows: Int, _ scratch: AttentionScratch) {
        scratch.rowMax.update(repeating: isSoftmax ? -.infinity : 0, count: rows)
        scratch.rowSum.update(repeating: isSoftmax ? 0 : 1, count: rows)
        scratch.output.update(repeating: 0, count: rows * size.outputStride)
    }

    /// The tile's queries in the work format, turned where that is wanted.
    func loadQueries(_ tile: AttentionTile, _ scratch: AttentionScratch) {
        let rows = tile.totalRows
        let first = tile.queryStart
        tile.forEachRow(group: group) { row, query, head in
            scratch.rowOffsets[row] = Int64(queries.offset(first + query, head))
        }
        let source = fi_attn_rows(
            base: queries.base, offsets: scratch.rowOffsets, count: Int32(rows), type: queryType)
        let (stride, width) = (Int64(size.queryStride), Int32(shape.headDimQK))
        if let latent { return loadLatentQueries(tile, latent, source, scratch) }
        guard let rope else { return format.gather(scratch.queries, stride, source, width) }
        kernels.f32.gather(scratch.rotated, stride, source, width)
        let base = firstPosition(tile)
        tile.forEachRow(group: group) { row, query, _ in
            scratch.cosines[row] = rope.cosine(base + query)
            scratch.sines[row] = rope.sine(base + query)
        }
        rotate(scratch.rotated, rows, rope, scratch)
        for row in 0..<rows { scratch.rowOffsets[row] = Int64(row * size.queryStride * 4) }
        format.gather(
            scratch.queries, stride,
            fi_attn_rows(base: scratch.rotated, offsets: scratch.rowOffsets, count: Int32(rows), type: FI_ATTN_F32),
            width)
    }

    /// Keys of one head into panels, turned where that is wanted.
    private func packKeys(_ tile: AttentionTile, _ head: Int, _ range: Range<Int>, _ scratch: AttentionScratch) {
        blocks.locate(
            tile.request, head: tile.heads.lowerBound, from: range.lowerBound, count: range.count, in: keys,
            into: scratch.keyOffsets)
        let source = fi_attn_rows(
            base: keys.base + head * keys.head, offsets: scratch.keyOffsets, count: Int32(range.count), type: cacheType)
        let (stride, width) = (Int64(size.queryStride), Int32(shape.headDimQK))
        if let latent { return packLatentKeys(tile, range, latent, source, scratch) }
        guard let rope else { return format.pack_keys(scratch.keyPanels, source, width) }
        kernels.f32.gather(scratch.rotated, stride, source, width)
        locatePositions(tile, range, scratch)
        for key in 0..<range.count {
            scratch.cosines[key] = rope.cosine(Int(scratch.positions[key]))
            scratch.sines[key] = rope.sine(Int(scratch.positions[key]))
        }
        rotate(scratch.rotated, range.count, rope, scratch)
        let rows = panelRows(scratch.rotated, range.count, stride, width, narrowedTo: scratch.narrowed, scratch)
        format.pack_keys(scratch.keyPanels, rows, width)
    }

    /// Values of one head into panels, changed where the variant says so.
    private func packValues(_ tile: AttentionTile, _ head: Int, _ range: Range<Int>, _ scratch: AttentionScratch) {
        blocks.locate(
            tile.request, head: tile.heads.lowerBound, from: range.lowerBound, count: range.count, in: values,
            into: scratch.valueOffsets)
        let source = fi_attn_rows(
            base: values.base + head * values.head, offsets: scratch.valueOffsets, count: Int32(range.count),
            type: cacheType)
        let (stride, width) = (Int64(size.outputStride), Int32(shape.headDimVO))
        if programs.values == nil { return format.pack_values(scratch.valuePanels, source, width) }
        kernels.f32.gather(scratch.valueRows, stride, source, width)
        changeValues(tile, head, range, scratch)
        let rows = panelRows(scratch.valueRows, range.count, stride, width, narrowedTo: scratch.narrowValues, scratch)
        format.pack_values(scratch.valuePanels, rows, width)
    }

    /// Rows of float32, `stride` elements apart in a buffer, as panels are packed from: where panels have shorter elements, narrowed into
    /// another buffer.
    private func panelRows(
        _ buffer: UnsafeMutablePointer<Float>, _ count: Int, _ stride: Int64, _ width: Int32,
        narrowedTo narrow: UnsafeMutableRawPointer, _ scratch: AttentionScratch
    ) -> fi_attn_rows {
        for key in 0..<count { scratch.bufferOffsets[key] = Int64(key) * stride * 4 }
        var rows = fi_attn_rows(base: buffer, offsets: scratch.bufferOffsets, count: Int32(count), type: FI_ATTN_F32)
        if format.element != FI_ATTN_F32 {
            format.gather(narrow, stride, rows, width)
            for key in 0..<count { scratch.bufferOffsets[key] /= 2 }
            rows.base = UnsafeRawPointer(narrow)
            rows.type = format.element
        }
        return rows
    }

    private func rotate(
        _ rows: UnsafeMutablePointer<Float>, _ count: Int, _ rope: AttentionRoPETable.Rows, _ scratch: AttentionScratch
    ) {
        guard let parameters = variant.rope else { return }
        kernels.rotate(
            rows, Int64(size.queryStride), scratch.cosines, scratch.sines, Int32(count), Int32(rope.rotaryDim),
            parameters.pairing == .interleaved)
    }

    /// The position of each key of a tile, as masks and rotations see it.
    func locatePositions(_ tile: AttentionTile, _ keys: Range<Int>, _ scratch: AttentionScratch) {
        if !isSequential {
            blocks.positions(
                tile.request, head: tile.heads.lowerBound, from: keys.lowerBound, count: keys.count,
                into: scratch.positions)
        } else {
            for key in 0..<keys.count { scratch.positions[key] = Int32(truncatingIfNeeded: keys.lowerBound + key) }
        }
    }
}
