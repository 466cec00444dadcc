internal import CFlashInferCPU
internal import FlashInferCore

extension AttentionRun {
    /// What a block's keys come to: nothing, all, or some of them, as far as ranges do not say it already.
    func kind(_ tile: AttentionTile, _ keys: Range<Int>) -> BlockKind {
        guard let program = programs.scores else { return .full }
        guard let analysis else { return program.canSkipMask ? .full : .partial }
        let kind = analysis.kind(
            SiteBlock(
                request: tile.request, heads: tile.heads.lowerBound * group..<tile.heads.upperBound * group,
                queries: tile.rows.lowerBound / group..<(tile.rows.upperBound - 1) / group + 1,
                keys: max(keys.lowerBound, tile.keys.lowerBound)..<keys.upperBound))
        return kind == .full && !program.canSkipMask ? .partial : kind
    }

    /// Computes what the scores' program needs of an item and its rows.
    func prepareProgram(_ tile: AttentionTile, _ scratch: AttentionScratch) {
        guard let variantScratch = scratch.variant, let program = programs.scores else { return }
        prepare(program, variantScratch, tile)
        let scales = variantScratch.scales
        tile.forEachRow(group: group) { row, _, head in scales[row] = scale * (keyScales?[head / group] ?? 1) }
        variantScratch.prepare(.item, count: 1, kernels)
        variantScratch.prepare(.row, count: tile.totalRows, kernels)
    }

    /// Makes the finished rows of a tile what the variant's output says: `rowScale` becomes 1.
    func changeOutput(_ tile: AttentionTile, _ scratch: AttentionScratch) {
        guard let variantScratch = scratch.outputs, let program = programs.output else { return }
        prepareRows(program, variantScratch, tile)
        let width = CPUAttention.tileKeys
        for first in stride(from: 0, to: shape.headDimVO, by: width) {
            let count = min(shape.headDimVO - first, width)
            for row in 0..<tile.totalRows {
                let (from, to) = (scratch.output + row * size.outputStride + first, scratch.scores + row * width)
                for d in 0..<count { to[d] = from[d] * scratch.rowScale[row] }
            }
            variantScratch.evaluate(rows: tile.totalRows, columns: count, scratch.maskStarts, kernels)
            for row in 0..<tile.totalRows {
                (scratch.output + row * size.outputStride + first).update(
                    from: scratch.scores + row * width, count: count)
            }
        }
        scratch.rowScale.update(repeating: 1, count: tile.totalRows)
    }

    /// Makes `valueRows` of a head's keys what the variant has; the cache's scales are in them from here on.
    func changeValues(_ tile: AttentionTile, _ head: Int, _ keys: Range<Int>, _ scratch: AttentionScratch) {
        guard let variantScratch = scratch.values, let program = programs.values else { return }
        setTables(program, variantScratch, tile)
        locatePositions(tile, keys, scratch)
        for (register, field) in program.sites {
            let numbers = variantScratch.numbers(register)
            switch field {
            case .request: numbers[0] = Int32(truncatingIfNeeded: tile.request)
            case .kvHead: numbers[0] = Int32(truncatingIfNeeded: head)
            case .queryLength: numbers[0] = Int32(truncatingIfNeeded: tile.queryLength)
            case .keyLength: numbers[0] = Int32(truncatingIfNeeded: siteKeyLength(tile))
            case .keyPosition: numbers.update(from: scratch.positions, count: keys.count)
            case .head, .queryIndex, .queryPosition: break
            }
        }
        variantScratch.prepare(.item, count: 1, kernels)
        variantScratch.prepare(.row, count: keys.count, kernels)
        let (width, factor) = (CPUAttention.tileKeys, valueScale * (valueScales?[head] ?? 1))
        for first in stride(from: 0, to: shape.headDimVO, by: width) {
            let count = min(shape.headDimVO - first, width)
            for key in 0..<keys.count {
                let (from, to) = (
                    scratch.valueRows + key * size.outputStride + first, scratch.elements + key * width
                )
                for d in 0..<count { to[d] = from[d] * factor }
            }
            variantScratch.evaluate(rows: keys.count, columns: count, scratch.maskStarts, kernels)
            for key in 0..<keys.count {
                (scratch.valueRows + key * size.outputStride + first).update(
                    from: scratch.elements + key * width, count: count)
            }
        }
    }

    /// Computes the rows' own sinks, base 2, where the variant has a rule for them.
    func computeSinks(_ tile: AttentionTile, _ scratch: AttentionScratch) {
        guard let variantScratch = scratch.sinks, let program = programs.sink else { return }
        prepareRows(program, variantScratch, tile)
        variantScratch.evaluate(rows: tile.totalRows, columns: 1, scratch.maskStarts, kernels)
        for row in 0..<tile.totalRows {
            scratch.rowSink[row] = scratch.scores[row * CPUAttention.tileKeys] * 1.442_695_04
        }
    }

    /// Makes finished rows' log-sum-exp, and with it their scales, what the variant's normalizer says.
    func normalize(_ tile: AttentionTile, _ scratch: AttentionScratch) {
        guard let variantScratch = scratch.sums, let program = programs.normalizer else { return }
        prepareRows(program, variantScratch, tile)
        for row in 0..<tile.totalRows {
            scratch.scores[row * CPUAttention.tileKeys] = scratch.rowLSE[row] * 0.693_147_181
        }
        variantScratch.evaluate(rows: tile.totalRows, columns: 1, scratch.maskStarts, kernels)
        for row in 0..<tile.totalRows where scratch.rowLSE[row] != -.infinity {
            let next = scratch.scores[row * CPUAttention.tileKeys] * 1.442_695_04
            scratch.rowScale[row] *= Float(
                ElementaryFunctions.pow(2, Double(scratch.rowLSE[row]) - Double(next)))
            scratch.rowLSE[row] = next
        }
    }

    /// Computes what a program of rows needs of an item and its rows.
    private func prepareRows(_ program: VariantProgram, _ variantScratch: VariantScratch, _ tile: AttentionTile) {
        prepare(program, variantScratch, tile)
        variantScratch.prepare(.item, count: 1, kernels)
        variantScratch.prepare(.row, count: tile.totalRows, kernels)
    }

    private func setTables(_ program: VariantProgram, _ variantScratch: VariantScratch, _ tile: AttentionTile) {
        let first = programs.firstParameter(of: program)
        for (index, parameter) in program.parameters.enumerated() {
            variantScratch.setTable(index, table(parameter, first + index, tile.request))
        }
    }

    /// Sets tables and the site's numbers, but for the keys'.
    private func prepare(_ program: VariantProgram, _ variantScratch: VariantScratch, _ tile: AttentionTile) {
        setTables(program, variantScratch, tile)
        let position = firstPosition(tile)
        for (register, field) in program.sites {
            let numbers = variantScratch.numbers(register)
            switch field {
            case .request: numbers[0] = Int32(truncatingIfNeeded: tile.request)
            case .queryLength: numbers[0] = Int32(truncatingIfNeeded: tile.queryLength)
            case .keyLength: numbers[0] = Int32(truncatingIfNeeded: siteKeyLength(tile))
            case .keyPosition: break
            case .head: tile.forEachRow(group: group) { numbers[$0] = Int32(truncatingIfNeeded: $2) }
            case .kvHead: tile.forEachRow(group: group) { numbers[$0] = Int32(truncatingIfNeeded: $2 / group) }
            case .queryIndex:
                tile.forEachRow(group: group) { row, query, _ in numbers[row] = Int32(truncatingIfNeeded: query) }
            case .queryPosition:
                tile.forEachRow(group: group) { row, query, _ in
                    numbers[row] = Int32(truncatingIfNeeded: query + position)
                }
            }
        }
    }

    /// Turns a tile's scores into logits (natural scale), or weights where they are not the softmax's.
    func runProgram(_ tile: AttentionTile, _ keys: Range<Int>, isMasked: Bool, _ scratch: AttentionScratch) {
        guard let variantScratch = scratch.variant, let program = programs.scores else { return }
        for (register, field) in program.sites where field == .keyPosition {
            locatePositions(tile, keys, scratch)
            variantScratch.numbers(register).update(from: scratch.positions, count: keys.count)
        }
        variantScratch.prepare(.key, count: keys.count, kernels)
        var start = mask
        if let base = mask {
            tile.forEachRow(group: group) { row, query, _ in
                scratch.maskStarts[row] = Int64(query * tile.keyLength + keys.lowerBound)
            }
            start = base + maskStarts[tile.request]
        }
        variantScratch.evaluate(
            rows: tile.totalRows, keys: keys.count, isMasked: isMasked, mask: start, maskStarts: scratch.maskStarts,
            maskIsPacked: variant.form.maskTensor?.extent == .maskBits, kernels)
    }

    /// Where a parameter's elements are for a request.
    private func table(_ parameter: ParameterDeclaration, _ index: Int, _ request: Int) -> fi_expr_table {
        var table = tables[index]
        if parameter == .alibiSlopes, table.base == nil { table.base = UnsafeRawPointer(ownSlopes) }
        if parameter.extent == .perPosition {
            table.base = table.base.map { $0 + request * Int(table.columns) * 4 }
            table.rows = 1
        }
        return table
    }
}
