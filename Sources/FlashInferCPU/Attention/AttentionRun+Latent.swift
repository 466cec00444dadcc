internal import CFlashInferCPU
internal import FlashInferCore

/// The rest of latent attention's queries and keys, behind the elements that keys share with values.
struct LatentRows {
    let queries: AttentionRun.Rows
    let keys: KVStrides
    /// Multiplies their products.
    let scale: Float

    init(_ part: LatentPart) {
        (queries, keys, scale) = (AttentionRun.Rows(part.queries), KVStrides(part.keys), part.scale)
    }
}

extension AttentionRun {
    private var elementBytes: Int { format.element == FI_ATTN_F32 ? 4 : 2 }

    /// The tile's queries in the work format, both parts side by side; `source` has the first parts.
    func loadLatentQueries(
        _ tile: AttentionTile, _ latent: LatentRows, _ source: fi_attn_rows, _ scratch: AttentionScratch
    ) {
        let rows = tile.totalRows
        format.gather(scratch.queries, Int64(size.queryStride), source, Int32(shape.headDimVO))
        tile.forEachRow(group: group) { row, query, head in
            scratch.rowOffsets[row] = Int64(latent.queries.offset(tile.queryStart + query, head))
        }
        let rest = fi_attn_rows(
            base: latent.queries.base, offsets: scratch.rowOffsets, count: Int32(rows), type: queryType)
        let parts = UnsafeMutableRawPointer(scratch.rotated)
        append(rest, by: parts, to: scratch.queries)
        guard latent.scale != 1 else { return }
        // The work format is float32 then.
        let elements = scratch.queries.assumingMemoryBound(to: Float.self)
        for row in 0..<rows {
            for column in shape.headDimVO..<shape.headDimQK {
                elements[row * size.queryStride + column] *= latent.scale
            }
        }
    }

    /// Keys into panels, both parts side by side; `source` has the first parts.
    func packLatentKeys(
        _ tile: AttentionTile, _ range: Range<Int>, _ latent: LatentRows, _ source: fi_attn_rows,
        _ scratch: AttentionScratch
    ) {
        let whole = format.element == FI_ATTN_F32 ? UnsafeMutableRawPointer(scratch.rotated) : scratch.narrowed
        format.gather(whole, Int64(size.queryStride), source, Int32(shape.headDimVO))
        blocks.locate(
            tile.request, head: tile.heads.lowerBound, from: range.lowerBound, count: range.count, in: latent.keys,
            into: scratch.bufferOffsets)
        let rest = fi_attn_rows(
            base: latent.keys.base, offsets: scratch.bufferOffsets, count: Int32(range.count), type: cacheType)
        // The panels are not written yet.
        append(rest, by: scratch.keyPanels, to: whole)
        for key in 0..<range.count { scratch.bufferOffsets[key] = Int64(key * size.queryStride * elementBytes) }
        format.pack_keys(
            scratch.keyPanels,
            fi_attn_rows(
                base: UnsafeRawPointer(whole), offsets: scratch.bufferOffsets, count: Int32(range.count),
                type: format.element),
            Int32(shape.headDimQK))
    }

    /// Second parts of rows behind the first ones, by way of `parts`, which has room for as many rows: rows are gathered whole, with
    /// zeros up to their stride.
    private func append(_ rest: fi_attn_rows, by parts: UnsafeMutableRawPointer, to rows: UnsafeMutableRawPointer) {
        let width = shape.latentRopeDim, stride = (width + 31) & ~31
        format.gather(parts, Int64(stride), rest, Int32(width))
        for row in 0..<Int(rest.count) {
            (rows + (row * size.queryStride + shape.headDimVO) * elementBytes).copyMemory(
                from: parts + row * stride * elementBytes, byteCount: width * elementBytes)
        }
    }
}
