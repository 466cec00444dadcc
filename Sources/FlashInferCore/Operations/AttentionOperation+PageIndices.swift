extension AttentionOperation {
    /// Checks the page ids, and their places, that a run is given in place of the plan's, and that the variant computes the same with them.
    func validatePageIndices() throws(FlashInferError) {
        let (problem, blocks) = (plan.problem, plan.problem.geometry.blocks)
        let hasPlaces = blocks.keyPositions == .places
        guard hasPlaces == (pagePositions != nil) else {
            throw .planMismatch(
                "page positions of a run", planned: hasPlaces ? "places in the sequences" : "none",
                found: hasPlaces ? "nil" : "some")
        }
        guard let pageIndices else {
            if !hasPlaces { return }
            throw .planMismatch("page indices of a run", planned: "pages with places", found: "nil")
        }
        try validate(pageIndices, "page indices")
        if let pagePositions { try validate(pagePositions, "page positions") }
        func refuse(_ planned: String) -> FlashInferError {
            .planMismatch("page indices of a run", planned: planned, found: "ids that planning did not know")
        }
        guard !blocks.blocksAreRows else { throw refuse("ragged keys, which have no pages") }
        guard problem.geometry.levelCount == 1 else { throw refuse("several levels, whose pages are found before") }
        let (variant, form) = (problem.variant, problem.variant.form)
        guard hasPlaces || form.isFused else {
            throw refuse("variant '\(variant.name)', whose blocks were looked at when it was planned")
        }
        switch blocks.keyPositions {
        case .sequential:
            guard variant.windowLeft == nil, !form.isALiBi, variant.rope == nil else {
                throw refuse(
                    """
                    positions (a window, ALiBi or RoPE), which are the sequence's in a block-sparse matrix, and where selected pages \
                    are planned with their places
                    """)
            }
        case .columns:
            guard variant.windowLeft == nil, form.mask != .causal else {
                throw refuse("a mask by columns, by which blocks were left out; without one all keys are seen")
            }
        case .places: break
        }
        guard queries.device == .cpu else { return }
        for request in 0..<blocks.requestCount { try validatePages(of: request) }
    }

    private func validate(_ view: TensorView, _ name: String) throws(FlashInferError) {
        let blocks = plan.problem.geometry.blocks
        try TensorChecks(device: queries.device).vector(view, name, .int32, view.rank == 1 ? view.shape[0] : 0)
        let count = Int(blocks.indptr[blocks.requestCount])
        guard view.shape[0] >= count else {
            throw .lengthMismatch(name, found: view.shape[0], expected: count)
        }
    }

    /// Checks the tables of one request: that its ids are the cache's, and that places ascend to the sequence's last page.
    private func validatePages(of request: Int) throws(FlashInferError) {
        let (geometry, blocks) = (plan.problem.geometry, plan.problem.geometry.blocks)
        let ids = pageIndices?.pointer?.assumingMemoryBound(to: Int32.self)
        let places = pagePositions?.pointer?.assumingMemoryBound(to: Int32.self)
        let (first, end) = (Int(blocks.indptr[request]), Int(blocks.indptr[request + 1]))
        let used = (geometry.kvLength(request) + blocks.blockSize - 1) / blocks.blockSize
        guard used > 0 else { return }
        let last = (geometry.sequenceLength(request) - 1) / blocks.blockSize
        for table in stride(from: first, to: blocks.headStride == 0 ? first + 1 : end, by: max(blocks.headStride, 1)) {
            var earlier = -1
            for position in 0..<used {
                if let ids {
                    let page = Int(ids[table + position])
                    guard page >= 0, page < blocks.blockLimit else {
                        throw .pageOutOfRange(
                            request: request, position: table - first + position, page: page,
                            pageCount: blocks.blockLimit)
                    }
                }
                guard let places else { continue }
                let place = Int(places[table + position])
                let isRight = position == used - 1 ? place == last : place > earlier && place < last
                guard isRight else {
                    throw .invalidRequest(
                        request, argument: "page positions[\(table + position)]", found: place,
                        expected: position == used - 1
                            ? "\(last), the sequence's last page" : "above \(earlier) and below \(last)")
                }
                earlier = place
            }
        }
    }
}
