package import CUDAKernels
package import FlashInferCore

/// The kernels that bound the keys of pages.
package enum PageBoundsKernel {
    private static let threads = 128
    private static let table = SpecTable(count: 6 * 3)

    private static func spec(_ keys: DType, _ bounds: DType) -> KernelSpec {
        table.spec(keys.kernelNumber * 3 + bounds.kernelNumber) {
            KernelSpec(
                file: "portable/page_bounds.cuh", entry: "page_bounds",
                defines: [.init("FI_INPUT", keys.kernelNumber), .init("FI_OUTPUT", bounds.kernelNumber)],
                threads: threads, blocksPerProcessor: 4, label: "page bounds \(keys.label) as \(bounds.label)")
        }
    }

    /// The specialisations that ship: bounds that ``ScorePagesKernel`` takes.
    package static func shipped() -> [KernelSpec] {
        [(.float16, .float16), (.bfloat16, .bfloat16), (.float8E4M3, .bfloat16)].map { spec($0, $1) }
    }

    /// The launch of an operation.
    package static func lower(
        _ operation: UpdatePageBoundsOperation
    ) throws(FlashInferError) -> KernelLaunch<fi_page_bounds_params>? {
        let (keys, bounds, table) = (operation.keys, operation.bounds, operation.table)
        let (requests, places) = (table.shape[0], operation.maximumAppended == 0 ? 0 : operation.maximumPages)
        guard requests > 0, places > 0, keys.headDim > 0, keys.headCount > 0 else { return nil }
        try keys.view.checkAlignment("keys")
        try bounds.checkAlignment("bounds")
        try table.checkAlignment("table")
        try operation.lengths.checkAlignment("lengths")
        try operation.appended.checkAlignment("appended")
        let vector = 16 / max(keys.dtype.byteCount, bounds.dtype.byteCount)
        let isVectorised =
            keys.headDim % vector == 0 && keys.view.hasAlignedRows(vector: vector)
            && bounds.hasAlignedRows(vector: vector)
        let vectors = keys.headCount * keys.headDim / (isVectorised ? vector : 1)
        let pageBlocks = (vectors + threads - 1) / threads
        let (blocks, overflow) = (requests * places).multipliedReportingOverflow(by: pageBlocks)
        guard !overflow, blocks <= Int(Int32.max) else { throw .overflow("blocks of page bounds") }
        var parameters = fi_page_bounds_params()
        parameters.keys = UInt64(keys.view.address)
        parameters.key_page = Int64(keys.blockStride)
        parameters.key_token = Int64(keys.tokenStride)
        parameters.key_head = Int64(keys.headStride)
        parameters.bounds = UInt64(bounds.address)
        parameters.bound_page = Int64(bounds.strides[0])
        parameters.bound_side = Int64(bounds.strides[1])
        parameters.bound_head = Int64(bounds.strides[2])
        parameters.table = UInt64(table.address)
        parameters.table_stride = Int64(table.strides[0])
        parameters.lengths = UInt64(operation.lengths.address)
        parameters.appended = UInt64(operation.appended.address)
        parameters.width = UInt32(clamping: table.shape[1])
        parameters.page_size = UInt32(clamping: keys.blockSize ?? 1)
        parameters.page_count = UInt32(clamping: keys.blockCount)
        parameters.maximum_appended = UInt32(clamping: operation.maximumAppended)
        parameters.places = UInt32(clamping: places)
        parameters.page_blocks = UInt32(clamping: pageBlocks)
        parameters.heads = UInt32(clamping: keys.headCount)
        parameters.head_dim = UInt32(clamping: keys.headDim)
        parameters.vectorised = isVectorised ? 1 : 0
        return KernelLaunch(spec(keys.dtype, bounds.dtype), blocks: blocks, parameters)
    }
}

/// The kernels that score pages by their bounds, on tensor cores.
package enum ScorePagesKernel {
    /// Pages of a warp.
    private static let pageRows = 16
    /// Tiles of a warp in shared memory: one is computed on while the other is under way. More blocks are worth more than more of these.
    private static let stages = 2
    /// Blocks that go on from tile to tile on each processor, where it has room for them.
    private static let blocksPerProcessor = 3

    /// Four chunks of 16 bytes of a head, one for each lane of a quad.
    private static func fours(_ headDim: Int) -> Int { (headDim + 31) / 32 }

    /// Warps of a block: as many as have room in 64 KB, of which Hopper has three.
    private static func warps(_ headDim: Int) -> Int {
        switch fours(headDim) {
        case ...4: 4
        case ...8: 2
        default: 1
        }
    }

    private static let largestHeadDim = 512
    /// By type and head dim, which is a multiple of 8.
    private static let table = SpecTable(count: 2 * (largestHeadDim / 8 + 1))

    private static func spec(_ type: DType, headDim: Int) -> KernelSpec {
        table.spec(headDim / 8 * 2 + (type == .float16 ? 0 : 1)) {
            KernelSpec(
                file: "portable/score_pages.cuh", entry: "score_pages",
                defines: [
                    .init("FI_HALF", "Half::\(type == .float16 ? "float16" : "bfloat16")"),
                    .init("FI_HEAD_DIM", headDim), .init("FI_STAGES", stages),
                ],
                threads: warps(headDim) * 32,
                sharedByteCount: warps(headDim) * stages * fours(headDim) * 4 * 16 * 32,
                blocksPerProcessor: blocksPerProcessor, label: "score pages \(type.label) D \(headDim)")
        }
    }

    /// The specialisations that ship.
    package static func shipped() -> [KernelSpec] {
        [DType.float16, .bfloat16].flatMap { type in [64, 128, 256].map { spec(type, headDim: $0) } }
    }

    /// The launch of an operation.
    ///
    /// - Throws: ``FlashInferError/unsupported(_:device:nearest:)`` for types other than 16 bits' and heads that are no whole 16 bytes.
    package static func lower(
        _ operation: ScorePagesOperation, deviceName: String, processors: Int
    ) throws(FlashInferError) -> KernelLaunch<fi_score_pages_params>? {
        let (queries, bounds, table, scores) = (operation.queries, operation.bounds, operation.table, operation.scores)
        let (requests, width, heads, dim) = (table.shape[0], table.shape[1], bounds.shape[2], queries.shape[2])
        guard requests > 0, width > 0, dim > 0 else { return nil }
        guard bounds.dtype == queries.dtype, bounds.dtype.byteCount == 2 else {
            throw .unsupported(
                "page scores of \(queries.dtype) queries and \(bounds.dtype) bounds", device: deviceName,
                nearest: "both of float16, or both of bfloat16")
        }
        guard dim % 8 == 0, dim <= largestHeadDim, bounds.hasAlignedRows, queries.hasAlignedRows else {
            throw .unsupported(
                "page scores of heads of \(dim) elements, or of rows that do not start at multiples of 16 bytes",
                device: deviceName, nearest: "aligned heads of a multiple of 8 elements, 512 at most")
        }
        try table.checkAlignment("table")
        try scores.checkAlignment("scores")
        try operation.lengths.checkAlignment("lengths")
        let warps = warps(dim)
        var headWarps = 1
        while headWarps < min(heads, warps) { headWarps *= 2 }
        let pagesPerBlock = warps / headWarps * pageRows
        let requestTiles = (width + pagesPerBlock - 1) / pagesPerBlock
        let (tiles, overflow) = requests.multipliedReportingOverflow(by: requestTiles)
        guard !overflow, tiles <= Int(Int32.max) else { throw .overflow("tiles of page scores") }
        var parameters = fi_score_pages_params()
        parameters.queries = UInt64(queries.address)
        parameters.query_token = Int64(queries.strides[0])
        parameters.query_head = Int64(queries.strides[1])
        parameters.bounds = UInt64(bounds.address)
        parameters.bound_page = Int64(bounds.strides[0])
        parameters.bound_side = Int64(bounds.strides[1])
        parameters.bound_head = Int64(bounds.strides[2])
        parameters.table = UInt64(table.address)
        parameters.table_stride = Int64(table.strides[0])
        parameters.lengths = UInt64(operation.lengths.address)
        parameters.scores = UInt64(scores.address)
        parameters.score_request = Int64(scores.strides[0])
        parameters.score_head = operation.isPerHead ? Int64(scores.strides[1]) : 0
        parameters.width = UInt32(clamping: width)
        parameters.page_count = UInt32(clamping: bounds.shape[0])
        parameters.heads = UInt32(clamping: heads)
        parameters.rows = UInt32(clamping: operation.rowsPerRequest)
        parameters.group = UInt32(clamping: operation.group)
        parameters.tiles = UInt32(clamping: tiles)
        parameters.request_tiles = UInt32(clamping: requestTiles)
        parameters.head_warps = UInt32(clamping: headWarps)
        parameters.is_per_head = operation.isPerHead ? 1 : 0
        parameters.is_sum = operation.reduction == .sum ? 1 : 0
        let blocks = min(tiles, blocksPerProcessor * processors)
        return KernelLaunch(spec(queries.dtype, headDim: dim), blocks: blocks, parameters)
    }
}
