internal import CFlashInferCPU
internal import FlashInferCore

extension AttentionRun {
    /// Which keys of a tile each row sees by causality, window and the item's own range; no ranges where all see all.
    func visible(_ tile: AttentionTile, _ keys: Range<Int>, _ scratch: AttentionScratch) -> fi_attn_ranges {
        let offset = tile.keyLength - tile.queryLength
        let begin = max(tile.keys.lowerBound - keys.lowerBound, 0)
        let hasPositions = isSequential
        let isCausal = variant.form.mask == .causal && hasPositions
        let window = hasPositions ? variant.windowLeft : nil
        let firstQuery = tile.rows.lowerBound / group
        let lastQuery = (tile.rows.upperBound - 1) / group
        let cutsEnd = isCausal && firstQuery + offset + 1 < keys.upperBound
        let cutsStart = window.map { $0 < lastQuery + offset - keys.lowerBound } ?? false
        guard begin > 0 || cutsEnd || cutsStart else { return fi_attn_ranges(first: nil, last: nil) }
        let count = keys.count
        tile.forEachRow(group: group) { row, query, _ in
            let position = query + offset - keys.lowerBound
            let last = isCausal ? min(max(position + 1, 0), count) : count
            var first = begin
            if let window, window < position { first = max(first, position - window) }
            let isEmpty = first >= last
            scratch.first[row] = isEmpty ? 0 : Int32(truncatingIfNeeded: first)
            scratch.last[row] = isEmpty ? 0 : Int32(truncatingIfNeeded: last)
        }
        return fi_attn_ranges(first: scratch.first, last: scratch.last)
    }

    /// Turns raw scores into weights and brings the rows' states up to date.
    func softmax(
        _ tile: AttentionTile, _ keys: Range<Int>, _ ranges: fi_attn_ranges, _ kind: BlockKind, stride: Int64,
        _ scratch: AttentionScratch
    ) {
        scaleHeads(tile, keys.count, stride: Int(stride), scratch)
        if programs.scores != nil {
            runProgram(tile, keys, isMasked: kind != .full, scratch)
            var step = step(tile, keys, ranges, 0..<tile.totalRows, stride: stride, scratch)
            step.scale = 1.442_695_04
            if isSoftmax { format.softmax(&step) } else { format.weigh(&step) }
            return
        }
        // One scale for all rows, unless heads have their own.
        if keyScales == nil || tile.heads.count == 1 {
            let rows = 0..<tile.totalRows
            softmax(
                tile, keys, ranges, rows, scale * (keyScales?[tile.heads.lowerBound] ?? 1), stride: stride, scratch)
            return
        }
        for (index, head) in tile.heads.enumerated() {
            let rows = index * tile.rows.count..<(index + 1) * tile.rows.count
            softmax(tile, keys, ranges, rows, scale * (keyScales?[head] ?? 1), stride: stride, scratch)
        }
    }

    /// Multiplies scores by their query head's own scale. Each row by itself, as packed rows are of different heads.
    private func scaleHeads(_ tile: AttentionTile, _ count: Int, stride: Int, _ scratch: AttentionScratch) {
        guard let queryScales else { return }
        tile.forEachRow(group: group) { row, _, head in
            let scores = scratch.scores + row * stride
            for key in 0..<count { scores[key] *= queryScales[head] }
        }
    }

    private func softmax(
        _ tile: AttentionTile, _ keys: Range<Int>, _ ranges: fi_attn_ranges, _ rows: Range<Int>, _ scale: Float,
        stride: Int64, _ scratch: AttentionScratch
    ) {
        let isTransformed = transform(tile, keys, rows, scale, stride: stride, scratch)
        var step = step(tile, keys, ranges, rows, stride: stride, scratch)
        step.scale = isTransformed ? 1 : scale * 1.442_695_04
        format.softmax(&step)
    }

    /// A step of the softmax, but for its scale.
    private func step(
        _ tile: AttentionTile, _ keys: Range<Int>, _ ranges: fi_attn_ranges, _ rows: Range<Int>, stride: Int64,
        _ scratch: AttentionScratch
    ) -> fi_attn_softmax {
        let first = rows.lowerBound
        var step = fi_attn_softmax()
        step.scores = scratch.scores + first * Int(stride)
        step.stride = stride
        step.weights = weights(scratch) + first * Int(stride) * (format.element == FI_ATTN_F32 ? 4 : 2)
        step.weight_stride = stride
        (step.rows, step.columns) = (Int32(rows.count), Int32(keys.count))
        if let start = ranges.first, let end = ranges.last {
            step.ranges = fi_attn_ranges(first: start + first, last: end + first)
        }
        (step.row_max, step.row_sum) = (scratch.rowMax + first, scratch.rowSum + first)
        step.output = scratch.output + first * size.outputStride
        step.output_stride = Int64(size.outputStride)
        step.width = Int32((shape.headDimVO + 15) & ~15)
        return step
    }

    /// Applies cap, ALiBi, element masks and a scale that is not positive. Whether there was any of these: scores are base-2 logits then.
    private func transform(
        _ tile: AttentionTile, _ keys: Range<Int>, _ rows: Range<Int>, _ scale: Float, stride: Int64,
        _ scratch: AttentionScratch
    ) -> Bool {
        let hidesColumns = !isSequential && (variant.form.mask == .causal || variant.windowLeft != nil)
        // The softmax hides keys by a score of −∞ and scales afterwards. A scale of 0 or less would show them again, so it comes first.
        guard variant.logitsSoftCap != nil || slopes != nil || mask != nil || hidesColumns || !(scale > 0) else {
            return false
        }
        let first = rows.lowerBound
        var change = fi_attn_transform()
        change.scores = scratch.scores + first * Int(stride)
        change.stride = stride
        (change.rows, change.columns) = (Int32(rows.count), Int32(keys.count))
        change.scale = scale
        change.cap = variant.logitsSoftCap ?? 0
        if let slopes, isSequential {
            tile.forEachRow(group: group) { row, query, head in
                scratch.slopes[row] = slopes[head * slopeStride]
                scratch.distance[row] = Int32(truncatingIfNeeded: keys.lowerBound - query)
            }
            change.slopes = UnsafePointer(scratch.slopes + first)
            change.distance = UnsafePointer(scratch.distance + first)
        }
        if hidesColumns {
            markVisible(tile, keys, stride: Int(stride), scratch)
            change.mask = UnsafePointer(scratch.mask)
            change.mask_start = UnsafePointer(scratch.maskStarts + first)
        } else if let mask {
            tile.forEachRow(group: group) { row, query, _ in
                scratch.maskStarts[row] = Int64(query * tile.keyLength + keys.lowerBound)
            }
            change.mask = mask + maskStarts[tile.request]
            change.mask_start = UnsafePointer(scratch.maskStarts + first)
            change.mask_is_packed = variant.form.mask == .customPacked
        }
        kernels.transform(&change)
        if slopes != nil, !isSequential { addColumnBiases(tile, keys, rows, stride: Int(stride), scratch) }
        return true
    }

    /// ALiBi's biases where keys have positions of their own (columns, places), on base-2 logits.
    private func addColumnBiases(
        _ tile: AttentionTile, _ keys: Range<Int>, _ rows: Range<Int>, stride: Int, _ scratch: AttentionScratch
    ) {
        guard let slopes else { return }
        locatePositions(tile, keys, scratch)
        let positions = scratch.positions
        tile.forEachRow(group: group) { row, query, head in
            guard rows.contains(row) else { return }
            let slope = slopes[head * slopeStride] * 1.442_695_04
            let scores = scratch.scores + row * stride
            for key in 0..<keys.count { scores[key] += slope * Float(Int(positions[key]) - query) }
        }
    }

    /// A mask byte for each row and key of a tile whose keys have positions of their own (columns, places).
    private func markVisible(_ tile: AttentionTile, _ keys: Range<Int>, stride: Int, _ scratch: AttentionScratch) {
        let first = firstPosition(tile)
        locatePositions(tile, keys, scratch)
        tile.forEachRow(group: group) { row, query, _ in
            let position = first + query
            let bytes = scratch.mask + row * stride
            scratch.maskStarts[row] = Int64(row * stride)
            for key in 0..<keys.count {
                let column = Int(scratch.positions[key])
                var isVisible = variant.form.mask != .causal || column <= position
                if let window = variant.windowLeft, window < position - column { isVisible = false }
                if isVisible { isVisible = isMarked(tile, query, keys.lowerBound + key) }
                bytes[key] = isVisible ? 1 : 0
            }
        }
    }

    /// Whether the run's own mask, if any, shows a key to a query.
    private func isMarked(_ tile: AttentionTile, _ query: Int, _ key: Int) -> Bool {
        guard let mask else { return true }
        let (start, element) = (mask + maskStarts[tile.request], query * tile.keyLength + key)
        return variant.form.mask == .customPacked ? start[element / 8] >> (element % 8) & 1 == 1 : start[element] != 0
    }
}
