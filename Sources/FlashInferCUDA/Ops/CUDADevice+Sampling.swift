internal import CUDAKernels
internal import FlashInferCore

extension CUDADevice {
    /// Samples one token from each row.
    func execute(_ operation: SampleOperation) throws(FlashInferError) {
        let width = operation.input.width
        // A block alone would read its row again and again for one of these.
        let hasGreatTopK = operation.rows.contains { $0.topK > RowTeam.manyTopK && $0.topK < width }
        let team = filteringTeam(width: width, streamedRows: hasGreatTopK ? 0 : operation.input.rowCount)
        try withRows(operation.rows, operation.packedRows, "sampling", { fi_sampling_row($0) }) {
            (address) throws(FlashInferError) in
            try enqueue(SampleKernel.lower(operation, rows: address, team: team))
        }
    }

    /// Keeps what top-k, top-p and min-p keep of each row.
    func execute(_ operation: FilterOperation) throws(FlashInferError) {
        let count = operation.input.shape[0]
        let width = operation.input.width
        // Few of the greatest or top-p alone: a block alone would read its row too often for others.
        let isStreamed = operation.rows.allSatisfy {
            $0.topK > 0 && $0.topK < width ? $0.topK <= RowTeam.fewTopK : $0.topP < 1
        }
        let team = filteringTeam(width: width, streamedRows: isStreamed ? count : 0)
        let rows = operation.rows.count == 1 ? Array(repeating: operation.rows[0], count: count) : operation.rows
        try withRows(rows, operation.packedRows, "filters", { fi_sampling_row($0) }) {
            (address) throws(FlashInferError) in
            try enqueue(FilterKernel.lower(operation, rows: address, team: team))
        }
    }

    /// The greatest entries of each row.
    func execute(_ operation: TopKOperation) throws(FlashInferError) {
        let rows = operation.count <= RowTeam.manyTopK ? operation.input.rowCount : 0
        let many = operation.count > RowTeam.fewTopK ? RowTeam.manyListedRows : RowTeam.manyRows
        let team = self.team(width: operation.input.width, streamedRows: rows, manyRows: many)
        try enqueue(TopKKernel.lower(operation, team: team))
    }

    /// The pages of the greatest scores of each row.
    func execute(_ operation: SelectPagesOperation) throws(FlashInferError) {
        try enqueue(SelectPagesKernel.lower(operation))
    }

    /// The bounds of the pages that new keys have come to.
    func execute(_ operation: UpdatePageBoundsOperation) throws(FlashInferError) {
        try enqueue(PageBoundsKernel.lower(operation))
    }

    /// Scores of pages by their bounds.
    func execute(_ operation: ScorePagesOperation) throws(FlashInferError) {
        try enqueue(ScorePagesKernel.lower(operation, deviceName: name, processors: limits.processors))
    }

    /// Biases, penalties and masks on rows of logits.
    func execute(_ operation: AdjustLogitsOperation) throws(FlashInferError) {
        try withRows(operation.rows, nil, "penalties", { fi_logit_adjustment($0) }) {
            (address) throws(FlashInferError) in
            try enqueue(AdjustLogitsKernel.lower(operation, rows: address))
        }
    }

    /// Says which drafted tokens stand.
    func execute(_ operation: VerifyDraftsOperation) throws(FlashInferError) {
        // A chain has one distribution to draw from, which is read once; a tree may look at one again after each rejection.
        let isChain = if case .chain = operation.tree { true } else { false }
        let team = self.team(width: operation.target.width, streamedRows: isChain ? operation.target.shape[0] : 0)
        try withRows(
            operation.draws, operation.packedDraws, "speculative sampling", { fi_draw(seed: $0.seed, step: $0.step) }
        ) {
            (address) throws(FlashInferError) in
            try enqueue(VerifyDraftsKernel.lower(operation, draws: address, team: team))
        }
    }

    /// Calls `body` with the address of the rows' parameters, as kernels read them: `packed`, or a copy of the host's.
    private func withRows<Row, Parameters: BitwiseCopyable>(
        _ rows: [Row], _ packed: TensorView?, _ what: String, _ convert: (Row) -> Parameters,
        _ body: (UInt) throws(FlashInferError) -> Void
    ) throws(FlashInferError) {
        if let packed { return try body(packed.address) }
        if rows.isEmpty { return }
        try refuseHostArrays("\(what) with parameters of the host", instead: "parameters in a packed tensor")
        try operations.withStaged(byteCount: MemoryLayout<Parameters>.stride * rows.count) { bytes in
            let parameters = bytes.bindMemory(to: Parameters.self)
            for (index, row) in rows.enumerated() { parameters.initializeElement(at: index, to: convert(row)) }
        } _: { (address) throws(FlashInferError) in
            try body(address)
        }
    }
}
