internal import CFlashInferCPU
internal import FlashInferCore

extension AttentionRun {
    /// What a block's keys come to: nothing, all, or some of them, as far as ranges do not say it already.
    func kind(_ tile: AttentionTile, _ keys: Range<Int>) -> BlockKind {
        guard let program else { return .full }
        guard let analysis else { return program.canSkipMask ? .full : .partial }
        let kind = analysis.kind(
            SiteBlock(
                request: tile.request, heads: tile.heads.lowerBound * group..<tile.heads.upperBound * group,
                queries: tile.rows.lowerBound / group..<(tile.rows.upperBound - 1) / group + 1,
                keys: max(keys.lowerBound, tile.keys.lowerBound)..<keys.upperBound))
        return kind == .full && !program.canSkipMask ? .partial : kind
    }

    /// Computes what a program needs of an item and its rows.
    func prepareProgram(_ tile: AttentionTile, _ scratch: AttentionScratch) {
        guard let variantScratch = scratch.variant, let program else { return }
        for (index, parameter) in program.parameters.enumerated() {
            variantScratch.setTable(index, table(parameter, index, tile.request))
        }
        let position = columnOffset.map { $0 + tile.queryStart } ?? tile.keyLength - tile.queryLength
        for (register, field) in program.sites {
            let numbers = variantScratch.numbers(register)
            switch field {
            case .request: numbers[0] = Int32(truncatingIfNeeded: tile.request)
            case .queryLength: numbers[0] = Int32(truncatingIfNeeded: tile.queryLength)
            case .keyLength: numbers[0] = Int32(truncatingIfNeeded: tile.keyLength)
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
        let scales = variantScratch.scales
        tile.forEachRow(group: group) { row, _, head in scales[row] = scale * (keyScales?[head / group] ?? 1) }
        variantScratch.prepare(.item, count: 1, kernels)
        variantScratch.prepare(.row, count: tile.totalRows, kernels)
    }

    /// Turns a tile's scores into logits (natural scale), or weights where they are not the softmax's.
    func runProgram(_ tile: AttentionTile, _ keys: Range<Int>, isMasked: Bool, _ scratch: AttentionScratch) {
        guard let variantScratch = scratch.variant, let program else { return }
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
