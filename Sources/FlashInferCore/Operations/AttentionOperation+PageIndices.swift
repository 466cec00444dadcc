extension AttentionOperation {
    /// Checks the page ids that a run is given in place of the plan's, and that the variant computes the same with them.
    func validatePageIndices() throws(FlashInferError) {
        guard let pageIndices else { return }
        let (problem, blocks) = (plan.problem, plan.problem.geometry.blocks)
        try TensorChecks(device: queries.device).vector(
            pageIndices, "page indices", .int32, pageIndices.rank == 1 ? pageIndices.shape[0] : 0)
        let count = Int(blocks.indptr[blocks.requestCount])
        guard pageIndices.shape[0] >= count else {
            throw .lengthMismatch("page indices", found: pageIndices.shape[0], expected: count)
        }
        func refuse(_ planned: String) -> FlashInferError {
            .planMismatch("page indices of a run", planned: planned, found: "ids that planning did not know")
        }
        guard !blocks.blocksAreRows else { throw refuse("ragged keys, which have no pages") }
        guard problem.geometry.levelCount == 1 else { throw refuse("several levels, whose pages are found before") }
        let (variant, form) = (problem.variant, problem.variant.form)
        guard form.isFused else {
            throw refuse("variant '\(variant.name)', whose blocks were looked at when it was planned")
        }
        switch blocks.keyPositions {
        case .sequential:
            guard variant.windowLeft == nil, !form.isALiBi, variant.rope == nil else {
                throw refuse(
                    "positions (a window, ALiBi or RoPE), which are the sequence's only in a block-sparse matrix")
            }
        case .columns:
            guard variant.windowLeft == nil, form.mask != .causal else {
                throw refuse("a mask by columns, by which blocks were left out; without one all keys are seen")
            }
        }
        guard queries.device == .cpu, let ids = pageIndices.pointer?.assumingMemoryBound(to: Int32.self) else { return }
        for request in 0..<blocks.requestCount {
            let first = Int(blocks.indptr[request])
            let used = (Int(blocks.lengths[request]) + blocks.blockSize - 1) / blocks.blockSize
            for position in 0..<used {
                let page = Int(ids[first + position])
                guard page >= 0, page < blocks.blockLimit else {
                    throw .pageOutOfRange(
                        request: request, position: position, page: page, pageCount: blocks.blockLimit)
                }
            }
        }
    }
}
