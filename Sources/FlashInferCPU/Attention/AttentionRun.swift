internal import CFlashInferCPU
internal import FlashInferCore

/// One execution of a plan, as plain pointers and numbers that every thread reads.
struct AttentionRun {
    let items: UnsafeBufferPointer<WorkItem>
    let itemIndptr: UnsafeBufferPointer<Int32>
    let merges: UnsafeBufferPointer<MergeItem>
    let queryIndptr: UnsafeBufferPointer<Int32>
    /// Query rows of the batch, where `queryIndptr` counts them once for each of several levels; else `nil`.
    private let levelRows: Int?
    /// Rows of requests before this see all keys.
    private let sharedRequests: Int
    let blocks: KeyLocator
    let maskStarts: UnsafeBufferPointer<Int>
    let rope: AttentionRoPETable.Rows?

    let kernels: fi_attention_kernels
    /// The work format: bfloat16 pairs where nothing is lost by it, else float32.
    let format: fi_attn_format
    let queryType: fi_attn_type
    let cacheType: fi_attn_type
    let outputType: fi_attn_type

    let variant: AttentionVariant
    let shape: AttentionShape
    let group: Int
    let size: AttentionScratchSize
    /// Whether keys stand one after another, so that key `j` has position `j`.
    let isSequential: Bool
    /// The position of query row 0 of the whole batch in a block-sparse matrix; `nil` for sequences.
    private let columnOffset: Int?
    /// By request: keys of the whole sequences of which there are some pages; `nil` for others.
    private let sequenceLengths: [Int32]?

    /// What no kernel was written for.
    let programs: VariantPrograms
    /// By the parameters of the programs, one after the other.
    let tables: UnsafeBufferPointer<fi_expr_table>
    /// Which blocks the program hides or shows whole.
    let analysis: BlockAnalysis?
    /// ALiBi's own slopes, for programs that a run gives none.
    let ownSlopes: UnsafePointer<Float>?
    /// Whether the weights are the softmax's.
    let isSoftmax: Bool

    let queries: Rows
    let output: Rows
    let logSumExp: Rows?
    let keys: KVStrides
    let values: KVStrides
    /// The rest of latent attention's queries and keys.
    let latent: LatentRows?
    let mask: UnsafePointer<UInt8>?
    let slopes: UnsafePointer<Float>?
    let slopeStride: Int
    let sinks: UnsafePointer<Float>?
    let sinkStride: Int
    /// The sink of all heads, base 2.
    let commonSink: Float?
    /// Multiplies q · k, the queries' and the cache's scales included; `queryScales` and `keyScales` on top, by head.
    let scale: Float
    let queryScales: UnsafePointer<Float>?
    let keyScales: UnsafePointer<Float>?
    let valueScale: Float
    let valueScales: UnsafePointer<Float>?
    /// `[partial rows][headDimVO]`
    let partialOutput: UnsafeMutablePointer<Float>?
    /// `[partial rows]`
    let partialLSE: UnsafeMutablePointer<Float>?

    /// Where rows of a tensor `[tokens, heads, …]` lie, in bytes.
    struct Rows {
        let base: UnsafeMutableRawPointer?
        let token: Int
        let head: Int

        init(_ view: TensorView) {
            base = view.pointer
            token = view.strides[0] * view.dtype.byteCount
            head = view.strides[1] * view.dtype.byteCount
        }

        @inline(__always)
        func offset(_ token: Int, _ head: Int) -> Int { token * self.token + head * self.head }
    }

    init(
        _ operation: AttentionOperation, _ kernels: fi_attention_kernels, items: UnsafeBufferPointer<WorkItem>,
        itemIndptr: UnsafeBufferPointer<Int32>, merges: UnsafeBufferPointer<MergeItem>,
        queryIndptr: UnsafeBufferPointer<Int32>, blocks: KeyLocator, slopes: UnsafePointer<Float>?,
        maskStarts: UnsafeBufferPointer<Int>, rope: AttentionRoPETable.Rows?, programs: VariantPrograms,
        tables: UnsafeBufferPointer<fi_expr_table>
    ) {
        let (plan, problem) = (operation.plan, operation.plan.problem)
        (self.items, self.itemIndptr, self.merges) = (items, itemIndptr, merges)
        (self.queryIndptr, self.blocks, self.maskStarts) = (queryIndptr, blocks, maskStarts)
        self.kernels = kernels
        variant = problem.variant
        shape = problem.shape
        group = shape.group
        size = AttentionScratchSize(plan)
        queryType = problem.queryType.attentionType
        cacheType = problem.kvType.attentionType
        outputType = problem.outputType.attentionType
        // float32 and float16 caches would lose digits as bfloat16; 8-bit types fit it exactly.
        let hasShortQueries = problem.queryType == .bfloat16 || problem.queryType == .float8E4M3
        let isNarrow = hasShortQueries && problem.kvType != .float32 && problem.kvType != .float16
        let latent = operation.latent.map(LatentRows.init)
        self.latent = latent
        // A scale of one part of the keys is applied to queries, which only float32 takes without a rounding.
        if isNarrow, latent?.scale ?? 1 == 1, let narrow = kernels.bf16 {
            format = narrow.pointee
        } else {
            format = kernels.f32
        }
        self.rope = variant.rope == nil ? nil : rope
        (self.programs, self.tables, analysis) = (programs, tables, plan.analysis)
        isSoftmax = variant.form.weights == nil
        ownSlopes = slopes

        let geometry = problem.geometry
        levelRows = geometry.levelCount > 1 ? geometry.queryCount : nil
        sharedRequests = geometry.requests(ofLevel: geometry.levelCount - 1).lowerBound
        columnOffset =
            geometry.blocks.keyPositions == .columns
            ? geometry.blocks.blockLimit * geometry.blocks.blockSize - geometry.queryCount : nil
        isSequential = geometry.blocks.keyPositions == .sequential
        sequenceLengths = geometry.blocks.keyPositions == .places ? geometry.blocks.sequenceLengths : nil
        queries = Rows(operation.queries)
        output = Rows(operation.output)
        logSumExp = operation.logSumExp.map { Rows($0) }
        keys = KVStrides(operation.cache.keys)
        values = KVStrides(operation.cache.values)
        mask = operation.mask.flatMap { $0.elements(as: UInt8.self) }.map { UnsafePointer($0) }
        if variant.form.isALiBi {
            let given = operation.alibiSlopes.flatMap { $0.elements(as: Float.self) }.map { UnsafePointer($0) }
            self.slopes = given ?? slopes
            slopeStride = operation.alibiSlopes.map { $0.strides[0] } ?? 1
        } else {
            self.slopes = nil
            slopeStride = 1
        }
        sinks = operation.sinks.flatMap { $0.elements(as: Float.self) }.map { UnsafePointer($0) }
        sinkStride = operation.sinks.map { $0.strides[0] } ?? 1
        if case .logit(let logit) = variant.sink { commonSink = logit * 1.442_695_04 } else { commonSink = nil }
        let scales = operation.cache.scales
        scale = (variant.scale ?? 1 / Float(shape.headDimQK).squareRoot()) * scales.key * operation.queryScale
        queryScales = operation.queryScalePerHead.flatMap { $0.elements(as: Float.self) }.map { UnsafePointer($0) }
        keyScales = scales.keyPerHead.flatMap { $0.elements(as: Float.self) }.map { UnsafePointer($0) }
        valueScale = scales.value
        valueScales = scales.valuePerHead.flatMap { $0.elements(as: Float.self) }.map { UnsafePointer($0) }
        if plan.partialRowCount > 0, let memory = UnsafeMutableRawPointer(bitPattern: operation.workspace.address) {
            partialOutput = memory.assumingMemoryBound(to: Float.self)
            partialLSE = (memory + plan.size.partialOutputByteCount).assumingMemoryBound(to: Float.self)
        } else {
            partialOutput = nil
            partialLSE = nil
        }
    }

    /// The first query row of a request that has any.
    @inline(__always)
    func firstQuery(_ request: Int) -> Int {
        let first = Int(queryIndptr[request])
        guard let levelRows, first >= levelRows else { return first }
        return levelRows > 0 ? first % levelRows : 0
    }

    /// The keys of a request of `queryLength` rows, as masks count them: where its rows see all, they come before the first row.
    @inline(__always)
    func keyLength(_ request: Int, _ queryLength: Int) -> Int {
        Int(blocks.lengths[request]) + (request < sharedRequests ? queryLength : 0)
    }

    /// The keys of a tile's request as a variant's hooks are told of them: of the whole sequence, where there are some pages of it.
    @inline(__always)
    func siteKeyLength(_ tile: AttentionTile) -> Int {
        sequenceLengths.map { Int($0[tile.request]) } ?? tile.keyLength
    }

    /// The position of the first query row of a tile's request.
    @inline(__always)
    func firstPosition(_ tile: AttentionTile) -> Int {
        columnOffset.map { $0 + tile.queryStart } ?? siteKeyLength(tile) - tile.queryLength
    }

    /// One thread's share: its own list of items, then whatever the others have left.
    func work(_ worker: Int, _ scratch: AttentionScratch, _ cursor: ItemCursor) {
        let lists = itemIndptr.count - 1
        for step in 0..<lists {
            let list = (worker + step) % lists
            let (start, end) = (Int(itemIndptr[list]), Int(itemIndptr[list + 1]))
            while true {
                let index = start + cursor.take(list)
                if index >= end { break }
                execute(items[index], scratch)
            }
        }
    }

    private func execute(_ item: WorkItem, _ scratch: AttentionScratch) {
        let tile = AttentionTile(item, self)
        // By the request's rows, not the tile's: how a row is computed must not depend on how its request was cut.
        if tile.queryLength * group <= CPUAttention.streamRows, rope == nil, latent == nil, programs.values == nil {
            if blocks.headStride == 0 { return stream(tile, scratch) }
            for head in tile.heads { stream(tile.only(head), scratch) }
        } else {
            for head in tile.heads { pack(tile.only(head), scratch) }
        }
    }
}

/// A work item, with what is known of its request.
struct AttentionTile {
    let request: Int
    let queryStart: Int
    let queryLength: Int
    /// Keys of the request, as masks count them.
    let keyLength: Int
    let rows: Range<Int>
    let keys: Range<Int>
    /// The key/value heads worked on at once; their rows follow one another, `[heads][rows]`.
    var heads: Range<Int>
    /// The workspace row of the first head's first row, or −1.
    var partialRow: Int

    init(_ item: WorkItem, _ run: AttentionRun) {
        request = Int(item.request)
        queryStart = run.firstQuery(request)
        queryLength = Int(run.queryIndptr[request + 1]) - Int(run.queryIndptr[request])
        keyLength = run.keyLength(request, queryLength)
        rows = Int(item.rowStart)..<Int(item.rowStart) + Int(item.rowCount)
        keys = Int(item.keyStart)..<Int(item.keyStart) + Int(item.keyCount)
        heads = Int(item.headStart)..<Int(item.headStart) + Int(item.headCount)
        partialRow = Int(item.partialRow)
    }

    /// One row of a merge.
    init(_ item: MergeItem, head: Int, row: Int, _ run: AttentionRun) {
        request = Int(item.request)
        queryStart = run.firstQuery(request)
        queryLength = Int(run.queryIndptr[request + 1]) - Int(run.queryIndptr[request])
        keyLength = run.keyLength(request, queryLength)
        (rows, keys, heads, partialRow) = (row..<row + 1, 0..<keyLength, head..<head + 1, -1)
    }

    /// Rows of all heads.
    var totalRows: Int { rows.count * heads.count }

    /// The part of one head.
    func only(_ head: Int) -> AttentionTile {
        var part = self
        part.heads = head..<head + 1
        if partialRow >= 0 { part.partialRow += (head - heads.lowerBound) * rows.count }
        return part
    }

    /// Calls `body` with each row: its place in the tile, its query row in the request, its query head.
    @inline(__always)
    func forEachRow(group: Int, _ body: (_ row: Int, _ query: Int, _ head: Int) -> Void) {
        var row = 0
        for head in heads {
            var (query, member) = rows.lowerBound.quotientAndRemainder(dividingBy: group)
            for _ in 0..<rows.count {
                body(row, query, head * group + member)
                row += 1
                member += 1
                if member == group { (query, member) = (query + 1, 0) }
            }
        }
    }
}

extension DType {
    /// The attention kernels' name of the type.
    ///
    /// - Precondition: a type of queries, caches or outputs.
    var attentionType: fi_attn_type {
        switch self {
        case .float32: FI_ATTN_F32
        case .float16: FI_ATTN_F16
        case .bfloat16: FI_ATTN_BF16
        case .float8E4M3: FI_ATTN_E4M3
        case .float8E5M2: FI_ATTN_E5M2
        case .int8: FI_ATTN_INT8
        case .uint8, .int32: preconditionFailure("attention has no \(self)")
        }
    }
}
