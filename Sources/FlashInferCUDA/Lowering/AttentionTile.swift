internal import FlashInferCore

/// The shape of one thread block's work in the attention kernels, and what it takes of a processor.
///
/// The same names as the macros of `portable/attention_tile.cuh`.
struct AttentionTile: Hashable {
    /// Packed query rows.
    var rows: Int
    /// Keys of a stage.
    var keys: Int
    /// Warps along the rows.
    var warpsM: Int
    /// Warps along a stage's keys.
    var warpsN: Int
    /// Stages of keys and values in flight.
    var stages: Int
    /// Stages of values, in Hopper's kernels, where they are fewer than those of keys, which are wanted and given back earlier.
    var stagesOfValues: Int?
    /// Blocks that a processor holds at a time.
    var blocksPerProcessor: Int
    /// Queries are kept in registers where a thread's share is at most this many.
    var queryRegisters = 32
    /// Stages of 8-bit elements on their way to be widened or transposed, in Hopper's kernels.
    var rawStages = 1
    /// Whether this is the shape of `hopper/attention.cuh` or `attention_fp8.cuh`: four warps more bring what the others compute on.
    var isHopper = false
    /// Whether four warps more run lists beside the others' queue (`hopper/attention_lists.cuh`).
    var runsLists = false
    /// Whether two blocks of a cluster take items of `hopper/attention.cuh` side by side, and bring each other the keys that both read.
    var isPaired = false
    /// Blocks that share an item's keys, of `hopper/latent.cuh` or `latent_short.cuh`, whose shape this is then; 0 for other kernels.
    var cluster = 0

    /// Whether it is `latent_short.cuh`, whose products have the rows as columns.
    var isShortLatent: Bool { cluster > 0 && rows == 16 }

    var threads: Int {
        cluster > 0 ? 384 : warpsM * warpsN * 32 + (isHopper ? 128 : 0) + (runsLists ? Self.listWarps * 32 : 0)
    }

    /// Warps that run lists beside a queue, each with two stages of 16 keys.
    private static let listWarps = 4, listKeys = 16, listStages = 2

    /// Bytes of shared memory, as `Shared::size` counts them.
    func sharedByteCount(_ heads: AttentionHeads) -> Int {
        if isShortLatent {
            // Five halves of 64 keys' values and four rests, queries, and weights of two tiles; of each row, for each of eight warps, a
            // maximum and a sum, and two references and what a merge needs; and a word of each warp.
            return ((5 * heads.dimVO / 2 + 4 * heads.latentRope) * keys + rows * (heads.dimQK + 2 * keys)) * 2
                + rows * 88 + 8 * 4
        }
        if cluster > 0 {
            // Stages, queries but for the rest, which registers hold, and weights of two stages; and of each row two references, two
            // sums, and what a merge needs.
            return (stages * keys * heads.dimQK + rows * heads.dimVO + 2 * rows * keys) * 2 + rows * 32
        }
        if isHopper, heads.isFloat8 {
            // Queries of two items, stages, values as they come, and outputs of earlier keys where there is room.
            let kept = heads.boxedVO <= 128 && warpsM <= 8 ? rows * heads.boxedVO * 4 : 0
            return 2 * rows * heads.boxedQK + stages * keys * (heads.boxedQK + heads.boxedVO) + rawStages * keys
                * heads.boxedVO + kept + rows * 16
        }
        if isHopper {
            // Queries of one or two items, stages, 8-bit rows on their way, and where a merge's rows go.
            let holdsQueries = heads.boxedQK / 4 <= queryRegisters
            let widest = heads.boxedVO <= 128 ? 128 : 192
            let slots = heads.boxedQK <= widest && !heads.isNarrow && !holdsQueries && !runsLists ? 2 : 1
            let listKeys = runsLists ? Self.listWarps * Self.listStages * Self.listKeys : 0
            let raw = heads.isNarrow ? rawStages * keys * max(heads.dimQK, heads.sliceVO) : 0
            return slots * rows * heads.boxedQK * 2
                + (stages * keys + listKeys) * heads.boxedQK * 2
                + ((stagesOfValues ?? stages) * keys + listKeys) * heads.boxedVO * 2 + raw + rows * 16
        }
        let queries = rows * heads.rowStride(heads.paddedQK, bytes: 2)
        let stage =
            keys
            * (heads.rowStride(heads.paddedQK, bytes: heads.elementBytes)
                + (heads.latentRope > 0 ? 0 : heads.rowStride(heads.paddedVO, bytes: heads.elementBytes)))
        let turned = heads.hasRoPE ? keys * heads.rowStride(heads.paddedQK, bytes: 2) : 0
        // Addresses of the keys and values of two times four stages.
        let places = heads.isRagged ? 0 : 2 * 4 * keys * 16
        let staged = queries + stages * stage + turned + places
        let meeting = warpsN * rows * ((heads.paddedVO + 4) * 4 + 8) + rows * 8
        return max(staged, meeting)
    }
}

/// What the shape of a tile depends on: head dimensions and the bytes of a cached element.
struct AttentionHeads: Hashable {
    /// Elements of a query and key head.
    var dimQK: Int
    /// Elements of a value head.
    var dimVO: Int
    /// Whether the cache has 8-bit elements.
    var isNarrow: Bool
    /// Whether keys are turned on their way.
    var hasRoPE: Bool
    /// Whether a request's keys are one after another.
    var isRagged: Bool
    /// Whether queries, keys and values are all e4m3, so that Hopper's products are of 8 bits.
    var isFloat8 = false
    /// Whether scores are only scaled, and hidden by simple conditions, before the softmax: what else becomes of them takes registers.
    var hasPlainScores = true
    /// Whether the kernels have words for all of the variant: no text of its own is compiled.
    var isFused = true
    /// Whether the portable kernel's weights go by sums, which takes registers: see `weighs_by_sums`.
    var weighsBySums = false
    /// Whether Hopper's kernel can have the keys brought, and the outputs can leave as it has them.
    var allowsHopper = false
    /// Whether threads copy keys and values on Hopper: blocks have too few rows for boxes, or for the copy engine to keep up.
    var gathersRows = false
    /// Whether 16 keys from a multiple of 16 on may lie in more than one block: then the kernel that runs lists beside a queue cannot look one block up for them.
    var cutsSixteens = false
    /// Whether tiles of up to 64 rows are worth Hopper's kernel: where they have many keys, as in block-sparse matrices and shared prefixes.
    var hasLongShortTiles = false
    /// Whether tiles of the fewest rows read columns that many other block rows read too: then the order in which they do counts, head after
    /// head, for which they are queued.
    var sharesColumns = false

    /// Whether rows see their request's keys from the first on, up to their own or some of them, as far as a mask says: neighbouring tiles
    /// then read the same ones. Where scores are capped or biased by the kernels' own words it is not told.
    var seesFromFirst = false

    /// Elements of latent keys that are no part of their values; 0 for keys and values of their own.
    var latentRope = 0
    /// Query heads of a latent key, by which its tiles are chosen.
    var latentGroup = 0

    /// 1 or 2.
    var elementBytes: Int { isNarrow ? 1 : 2 }

    /// How many blocks share a head's values: outputs of more than 256 elements do not fit in a warp's registers.
    var slices: Int { Self.slices(ofHeadDim: dimVO) }
    /// Elements of a value head that one block computes.
    var sliceVO: Int { dimVO / slices }

    /// The fewest equal parts of at most 256 elements.
    static func slices(ofHeadDim dimVO: Int) -> Int {
        var slices = max((dimVO + 255) / 256, 1)
        while dimVO % slices != 0 { slices += 1 }
        return slices
    }

    var paddedQK: Int { (dimQK + 15) & ~15 }
    var paddedVO: Int { (sliceVO + 15) & ~15 }

    /// Whether the copy engine's boxes have whole rows of keys or values of so many elements: see `StageTiles`.
    func hasWideBoxes(_ dim: Int) -> Bool {
        !isRagged && !isNarrow && !gathersRows && latentRope == 0 && AttentionBoxes.haveWholeRows(dim)
    }

    /// Elements as the copy engine's boxes have them: rows of 128 bytes.
    var boxedQK: Int { (dimQK + 63) & ~63 }
    var boxedVO: Int { (sliceVO + 63) & ~63 }

    /// Bytes between rows of shared memory, as `Rows::stride` has them.
    func rowStride(_ elements: Int, bytes: Int) -> Int {
        let chunks = elements * bytes / 16
        return (chunks % 8 == 0 ? chunks : chunks | 1) * 16
    }
}

extension VariantForm.FusedMask {
    /// Whether elements of a mask are read.
    var isCustom: Bool {
        switch self {
        case .none, .causal: false
        case .custom, .customPacked: true
        }
    }
}

extension AttentionProblem {
    /// Whether the kernel must know the columns of a block-sparse matrix's keys, or the places of pages: else blocks are pages one after
    /// another.
    var readsColumns: Bool {
        let form = variant.form
        return geometry.blocks.keyPositions != .sequential
            && (form.mask == .causal || form.windowLeft != nil || form.isALiBi || variant.rope != nil || !form.isFused)
    }
}

extension AttentionHeads {
    /// Whether threads copy rows of blocks: those have too few for boxes, or the copy engine would not keep up with so many boxes.
    ///
    /// Of 128 keys and their values (H200, D 128) it brings 8 boxes of 32 whole rows in 2,330 cycles, 16 of 16 in 2,260 and 32 of 8 in 3,080, or
    /// half of that where two blocks share them; the products take 2,700, and threads need 3,300 whatever the block. Boxes of 128 bytes of
    /// each row cost as much each: 16 are brought in 2,520, 32 in 3,080. 8-bit rows are widened by those threads; wider heads have longer products.
    private static func gathersRows(_ problem: AttentionProblem) -> Bool {
        guard let rows = AttentionBoxes.rows(ofBlocks: problem.geometry.blocks.blockSize) else { return true }
        let shape = problem.shape
        let dims = [shape.headDimQK, shape.headDimVO]
        guard problem.kvType.byteCount == 2, !shape.isLatent, dims.max()! <= 128 else { return false }
        if dims.allSatisfy(AttentionBoxes.haveWholeRows) { return false }
        return dims.reduce(0) { $0 + 128 / rows * (AttentionBoxes.haveWholeRows($1) ? 1 : ($1 + 63) / 64) } > 16
    }

    /// Block rows from which on they are more than a GPU computes at a time, though each has heads.
    static let manyBlockRows = 128

    init(_ problem: AttentionProblem) {
        dimQK = problem.shape.headDimQK
        dimVO = problem.shape.headDimVO
        isNarrow = problem.kvType.byteCount == 1
        if case .rope = problem.variant.positionEncoding { hasRoPE = true } else { hasRoPE = false }
        let blocks = problem.geometry.blocks
        isRagged = blocks.blocksAreRows && blocks.keyPositions == .sequential
        isFloat8 = problem.queryType == .float8E4M3 && problem.kvType == .float8E4M3
        gathersRows = !isRagged && Self.gathersRows(problem)
        cutsSixteens = !isRagged && blocks.blockSize % 16 != 0
        hasLongShortTiles = blocks.keyPositions == .columns || problem.geometry.levelCount > 1
        sharesColumns =
            blocks.keyPositions == .columns && problem.geometry.requestCount >= Self.manyBlockRows
        let form = problem.variant.form
        hasPlainScores =
            form.logits == nil && form.weights == nil && (form.values == nil || form.valueFactor != nil)
            && form.maskTensor == nil
            && !problem.readsColumns && form.softCap == nil && !form.isALiBi
        // The kernel of 8-bit products knows no compiled variants and no masks of the caller's.
        let isOrdinary = form.isFused && !form.mask.isCustom
        // Values meet the weights in shared memory as the copy engine brings them: factors go into the weights, nothing else can.
        let hasOrdinaryValues = form.values == nil || form.valueFactor != nil
        allowsHopper =
            !hasRoPE && hasOrdinaryValues && problem.outputType.byteCount == 2
            && !(isNarrow && gathersRows)
            && (isFloat8 ? isOrdinary && !problem.readsColumns : problem.queryType != .float8E4M3)
        isFused = form.isFused
        let hasOwnScores =
            (form.logits != nil || form.weights != nil) && form.maskTensor == nil && !problem.readsColumns
        seesFromFirst =
            (hasPlainScores || hasOwnScores) && form.restMayReachFirstKey && form.windowLeft == nil
            && blocks.keyPositions == .sequential && problem.geometry.levelCount == 1
        weighsBySums =
            isFused && AttentionKernel.halfType(query: problem.queryType, cache: problem.kvType) == .bfloat16
        if problem.shape.isLatent { (latentRope, latentGroup) = (problem.shape.latentRopeDim, problem.shape.group) }
    }
}
