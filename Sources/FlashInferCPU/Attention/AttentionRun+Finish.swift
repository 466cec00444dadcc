internal import CFlashInferCPU
internal import FlashInferCore

extension AttentionRun {
    /// Writes a tile's result: the output where it has all keys, else a partial state.
    func finish(_ tile: AttentionTile, _ scratch: AttentionScratch) {
        if tile.partialRow >= 0 { return savePartial(tile, scratch) }
        computeSinks(tile, scratch)
        tile.forEachRow(group: group) { row, query, head in
            let state = RowState(max: scratch.rowMax[row], sum: scratch.rowSum[row], sink: sink(head, row, scratch))
            scratch.rowScale[row] = state.scale * valueScale(head)
            scratch.rowOffsets[row] = Int64(output.offset(tile.queryStart + query, head))
            scratch.rowLSE[row] = state.logSumExp
        }
        normalize(tile, scratch)
        tile.forEachRow(group: group) { row, query, head in
            storeLSE(scratch.rowLSE[row], tile.queryStart + query, head)
        }
        changeOutput(tile, scratch)
        kernels.store(
            output.base, scratch.rowOffsets, outputType, scratch.output, Int64(size.outputStride), scratch.rowScale,
            Int32(tile.totalRows), Int32(shape.headDimVO))
    }

    private func savePartial(_ tile: AttentionTile, _ scratch: AttentionScratch) {
        guard let partialOutput, let partialLSE else { return }
        let rowBytes = shape.headDimVO * 4
        tile.forEachRow(group: group) { row, _, head in
            // The sink joins once, when the parts are merged.
            let state = RowState(max: scratch.rowMax[row], sum: scratch.rowSum[row], sink: nil)
            scratch.rowScale[row] = state.scale * valueScale(head)
            scratch.rowOffsets[row] = Int64((tile.partialRow + row) * rowBytes)
            partialLSE[tile.partialRow + row] = state.logSumExp
        }
        kernels.store(
            partialOutput, scratch.rowOffsets, FI_ATTN_F32, scratch.output, Int64(size.outputStride), scratch.rowScale,
            Int32(tile.totalRows), Int32(shape.headDimVO))
    }

    /// One thread's share of the merges.
    func merge(_ scratch: AttentionScratch, _ cursor: ItemCursor) {
        while true {
            let index = cursor.take(0)
            if index >= merges.count { return }
            merge(merges[index], scratch)
        }
    }

    /// Merges one tile's parts in their order, row by row.
    private func merge(_ item: MergeItem, _ scratch: AttentionScratch) {
        let (rowStart, rowCount) = (Int(item.rowStart), Int(item.rowCount))
        let partRows = Int(item.headCount) * rowCount
        let queryStart = firstQuery(Int(item.request))
        for index in 0..<partRows {
            let (head, packed) = (Int(item.headStart) + index / rowCount, rowStart + index % rowCount)
            let (token, queryHead) = (queryStart + packed / group, head * group + packed % group)
            let first = Int(item.partialRow) + index
            mergeRow(
                token, queryHead, AttentionTile(item, head: head, row: packed, self), count: Int(item.partCount),
                scratch
            ) { first + $0 * partRows }
        }
    }

    /// One thread's share of the lists of states that several levels left.
    func merge(_ lists: StateLists, _ scratch: AttentionScratch, _ cursor: ItemCursor) {
        while true {
            let index = cursor.take(0)
            if index >= lists.listCount { return }
            let states = lists.states[Int(lists.listIndptr[index])..<Int(lists.listIndptr[index + 1])]
            if states.isEmpty { continue }
            let (segment, head) = index.quotientAndRemainder(dividingBy: shape.kvHeads)
            let firstRow = Int(lists.segmentIndptr[segment])
            for row in firstRow..<Int(lists.segmentIndptr[segment + 1]) {
                // Variants with hooks have one level.
                mergeRow(row / group, head * group + row % group, nil, count: states.count, scratch) {
                    Int(states[states.startIndex + $0]) + row - firstRow
                }
            }
        }
    }

    /// Merges the states of one row, which lie at the workspace's rows `place(0)`, `place(1)`, … `tile` is the row, for hooks.
    private func mergeRow(
        _ token: Int, _ queryHead: Int, _ tile: AttentionTile?, count: Int, _ scratch: AttentionScratch,
        _ place: (Int) -> Int
    ) {
        guard let partialOutput, let partialLSE else { return }
        if let tile { computeSinks(tile, scratch) }
        let merged = StateMerge(count: count, sink: sink(queryHead, 0, scratch)) { partialLSE[place($0)] }
        scratch.output.update(repeating: 0, count: size.outputStride)
        for part in 0..<count {
            let row = place(part)
            let weight = merged.weight(partialLSE[row])
            if weight == 0 { continue }
            kernels.accumulate(scratch.output, partialOutput + row * shape.headDimVO, weight, Int32(shape.headDimVO))
        }
        // Weights of their own add up as they are.
        scratch.rowScale[0] = isSoftmax ? merged.scale : 1
        scratch.rowOffsets[0] = Int64(output.offset(token, queryHead))
        scratch.rowLSE[0] = merged.logSumExp
        if let tile { normalize(tile, scratch) }
        storeLSE(scratch.rowLSE[0], token, queryHead)
        if let tile { changeOutput(tile, scratch) }
        kernels.store(
            output.base, scratch.rowOffsets, outputType, scratch.output, Int64(size.outputStride), scratch.rowScale, 1,
            Int32(shape.headDimVO))
    }

    /// The sink of a row of a tile as a base-2 logit.
    private func sink(_ head: Int, _ row: Int, _ scratch: AttentionScratch) -> Float? {
        if programs.sink != nil { return scratch.rowSink[row] }
        return sinks.map { $0[head * sinkStride] * 1.442_695_04 } ?? commonSink
    }

    private func valueScale(_ head: Int) -> Float {
        // Values that a variant changes had theirs before.
        programs.values == nil ? valueScale * (valueScales?[head / group] ?? 1) : 1
    }

    private func storeLSE(_ value: Float, _ token: Int, _ head: Int) {
        guard let logSumExp, let base = logSumExp.base else { return }
        base.storeBytes(of: value, toByteOffset: logSumExp.offset(token, head), as: Float.self)
    }
}

/// What a row's maximum and sum come to.
struct RowState {
    /// Multiplies the unnormalised output; 0 for a row that saw nothing.
    let scale: Float
    /// Base 2; −∞ for a row that saw nothing.
    let logSumExp: Float

    init(max: Float, sum: Float, sink: Float?) {
        guard let sink, sink != -.infinity else {
            let isEmpty = max == -.infinity
            scale = isEmpty ? 0 : 1 / sum
            logSumExp = isEmpty ? -.infinity : max + Float(ElementaryFunctions.log2(Double(sum)))
            return
        }
        // The sink is one more term of the sum; both relative to the larger maximum.
        let top = Swift.max(max, sink)
        let shrink = ElementaryFunctions.pow(2, Double(max) - Double(top))
        let total = Double(sum) * shrink + ElementaryFunctions.pow(2, Double(sink) - Double(top))
        scale = Float(shrink / total)
        logSumExp = top + Float(ElementaryFunctions.log2(total))
    }
}

/// The weights of states that are merged: 2^(lse − the largest), over their sum.
struct StateMerge {
    /// Multiplies the weighted sum of the outputs; 0 where all states are empty.
    let scale: Float
    /// Base-2 log-sum-exp of the merged state.
    let logSumExp: Float
    private let top: Float

    init(count: Int, sink: Float? = nil, _ lse: (Int) -> Float) {
        var top = sink ?? -.infinity
        for index in 0..<count { top = Swift.max(top, lse(index)) }
        self.top = top
        if top == -.infinity {
            (scale, logSumExp) = (0, -.infinity)
            return
        }
        var total = sink.map { ElementaryFunctions.pow(2, Double($0) - Double(top)) } ?? 0
        for index in 0..<count { total += ElementaryFunctions.pow(2, Double(lse(index)) - Double(top)) }
        scale = Float(1 / total)
        logSumExp = top + Float(ElementaryFunctions.log2(total))
    }

    /// The weight of a state.
    func weight(_ lse: Float) -> Float {
        top == -.infinity ? 0 : Float(ElementaryFunctions.pow(2, Double(lse) - Double(top)))
    }
}
