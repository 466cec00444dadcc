internal import FlashInferCore

/// One specialisation of the attention kernel: all that its text is compiled for.
package struct AttentionKernel: Hashable {
    /// What becomes of scores: `Logits` of `portable/attention_tile.cuh`.
    enum Logits: String {
        /// Scaled by the softmax.
        case plain
        /// Scaled before, where the scale may be negative or differs by head.
        case scaled
        case capped
        case alibi
        /// By the variant's own expressions, where their logits or weights are none of these.
        case variant
    }

    var heads: AttentionHeads
    var tile: AttentionTile
    var queryType: DType
    var kvType: DType
    var outputType: DType
    var logits: Logits
    var mask: VariantForm.FusedMask
    /// The text of expressions that the kernel has no words for.
    var variant: VariantText?
    var pairing: RoPEParameters.Pairing?
    /// Which positions of keys are read from a table: of columns, or of places; sequential for none.
    var keyPositions: KVBlockTable.KeyPositions
    /// Whether each key/value head has a block table of its own.
    var hasHeadTables: Bool
    var isQueued: Bool
    /// Bytes that addresses and strides of keys and values are multiples of: 16, 8, 4 or 1.
    var chunk: Int

    /// Whether products are of 8 bits.
    private var isFloat8: Bool { tile.isHopper && heads.isFloat8 && tile.cluster == 0 }
    /// Whether it is `hopper/latent.cuh` or `latent_short.cuh`, whose block has all columns of the values.
    private var isHopperLatent: Bool { tile.cluster > 0 }

    /// The type that 8-bit elements are widened to before products of 16 bits.
    static func halfType(query: DType, cache: DType) -> DType {
        query != .float8E4M3 ? query : cache == .float16 ? .float16 : .bfloat16
    }

    /// The kernel of one of a plan's tiles.
    init(_ problem: AttentionProblem, tile: AttentionTile, isQueued: Bool, chunk: Int, isScaled: Bool) {
        heads = AttentionHeads(problem)
        self.tile = tile
        queryType = problem.queryType
        kvType = problem.kvType
        outputType = problem.outputType
        let variant = problem.variant
        logits =
            variant.form.logits != nil || variant.form.weights != nil
            ? .variant
            : variant.logitsSoftCap != nil ? .capped : variant.form.isALiBi ? .alibi : isScaled ? .scaled : .plain
        self.variant = variant.form.isFused ? nil : VariantText(variant)
        mask = variant.form.mask
        if case .rope(let rope) = variant.positionEncoding { pairing = rope.pairing }
        keyPositions = problem.readsColumns ? problem.geometry.blocks.keyPositions : .sequential
        hasHeadTables = problem.geometry.blocks.headStride > 0
        self.isQueued = isQueued
        self.chunk = chunk
        // The 8-bit kernel takes any scale.
        if isFloat8, logits == .scaled { logits = .plain }
    }

    /// The largest of 16, 8, 4 and 1 that divides a number of bytes, or all of several that were ORed.
    static func chunk(dividing bits: Int) -> Int { bits & 15 == 0 ? 16 : bits & 7 == 0 ? 8 : bits & 3 == 0 ? 4 : 1 }

    /// The largest chunk that heads of these dimensions can be copied in, however well they are aligned.
    static func largestChunk(_ heads: AttentionHeads) -> Int {
        chunk(dividing: (heads.dimQK | heads.dimVO | heads.sliceVO) * heads.elementBytes)
    }

    /// How it is compiled and launched.
    var spec: KernelSpec {
        let half = Self.halfType(query: queryType, cache: kvType)
        // Registers of a thread that brings; those that compute outputs of 256 elements need all others, and three groups have 160 each.
        let bringerRegisters = tile.warpsM == 12 ? 32 : heads.boxedVO > 128 && tile.keys > 64 ? 24 : 40
        return KernelSpec(
            file: text.file, entry: text.entry,
            defines: [
                .init("FI_HALF", "Half::\(half == .float16 ? "float16" : "bfloat16")"),
                .init("FI_NARROW", "Narrow::\(narrow)"), .init("FI_NARROW_QUERIES", queryType.byteCount == 1),
                .init("FI_OUTPUT", outputType == .float32 ? 0 : outputType == .float16 ? 1 : 2),
                .init("FI_HEAD_DIM_QK", heads.dimQK), .init("FI_HEAD_DIM_VO", heads.dimVO),
                .init("FI_VO_SLICE", isHopperLatent ? heads.dimVO : heads.sliceVO), .init("FI_ROWS", tile.rows),
                .init("FI_KEYS", tile.keys),
                .init("FI_WARPS_M", tile.warpsM), .init("FI_WARPS_N", tile.warpsN), .init("FI_STAGES", tile.stages),
                .init("FI_QUERY_REGISTERS", tile.queryRegisters), .init("FI_CHUNK", chunk),
                .init("FI_LOGITS", "Logits::\(logits.rawValue)"), .init("FI_MASK", "Mask::\(maskName)"),
                .init("FI_ROPE", "Rope::\(ropeName)"), .init("FI_RAGGED", heads.isRagged),
                .init("FI_COLUMNS", columns), .init("FI_QUEUE", isQueued),
                .init("FI_SHARED_BYTES", tile.sharedByteCount(heads)), .init("FI_LATENT", heads.latentRope),
            ]
                + (isHopperLatent
                    ? [
                        .init("FI_CLUSTER", tile.cluster), .init("FI_GATHER", heads.gathersRows),
                    ] : [])
                + (tile.isHopper && !isHopperLatent
                    ? [
                        .init("FI_RAW_STAGES", tile.rawStages), .init("FI_CLUSTER", tile.isPaired ? 2 : 1),
                        .init("FI_GATHER", heads.gathersRows),
                    ] : [])
                + (tile.stagesOfValues.map { [.init("FI_VALUE_STAGES", $0)] } ?? [])
                + (tile.runsLists ? [.init("FI_MIXED", 1)] : [])
                + (isFloat8 ? [.init("FI_BRINGER_REGISTERS", bringerRegisters)] : [])
                + (hasHeadTables ? [.init("FI_HEAD_TABLES", 1)] : []),
            threads: tile.threads,
            sharedByteCount: tile.sharedByteCount(heads),
            blocksPerProcessor: tile.blocksPerProcessor, label: label, variant: variant?.text,
            splice: isFloat8 || isHopperLatent ? nil : variant?.splice)
    }

    private var text: (file: String, entry: String) {
        if tile.isShortLatent { return ("hopper/latent_short.cuh", "fi_hopper_latent_short") }
        if isHopperLatent { return ("hopper/latent.cuh", "fi_hopper_latent_attention") }
        if isFloat8 { return ("hopper/attention_fp8.cuh", "fi_hopper_attention_fp8") }
        if tile.isHopper { return ("hopper/attention.cuh", "fi_hopper_attention") }
        return ("portable/attention.cuh", "fi_attention")
    }

    private var narrow: String {
        switch kvType {
        case .float8E4M3: "e4m3"
        case .float8E5M2: "e5m2"
        case .int8: "int8"
        default: "none"
        }
    }

    private var columns: Int {
        switch keyPositions {
        case .sequential: 0
        case .columns: 1
        case .places: 2
        }
    }

    private var maskName: String {
        switch mask {
        case .none, .causal: "none"
        case .custom: "bytes"
        case .customPacked: "bits"
        }
    }

    private var ropeName: String {
        switch pairing {
        case nil: "none"
        case .halfSplit: "half_split"
        case .interleaved: "interleaved"
        }
    }

    private var label: String {
        var label = tile.isHopper ? "hopper " : ""
        label += heads.latentRope > 0 ? "latent attention " : "attention "
        if tile.cluster > 1 { label += "\(tile.cluster) blocks of " }
        if tile.isPaired { label += "pairs of " }
        label +=
            "\(tile.rows)x\(tile.keys) \(tile.cluster > 0 ? 12 : tile.warpsM * tile.warpsN) warps \(tile.stages) stages "
        label +=
            "\(tile.blocksPerProcessor) a processor, q \(queryType) kv \(kvType) out \(outputType) D \(heads.dimQK)"
        if heads.dimVO != heads.dimQK { label += "/\(heads.dimVO)" }
        if heads.isRagged { label += " ragged" }
        if tile.runsLists { label += " beside lists" }
        if tile.isHopper, heads.gathersRows { label += " small pages" }
        if logits != .plain { label += " \(logits.rawValue)" }
        if variant != nil, logits != .variant { label += " with a variant" }
        if maskName != "none" { label += " mask \(maskName)" }
        if pairing != nil { label += " rope \(ropeName)" }
        if keyPositions == .columns { label += " columns" }
        if keyPositions == .places { label += " places" }
        if hasHeadTables { label += " head tables" }
        // Tiles of so few rows have lists otherwise.
        if isQueued, heads.sharesColumns, tile.rows == 16 { label += " queued" }
        if chunk != 16 { label += " chunk \(chunk)" }
        return label
    }

    /// The kernel of a problem's longest requests, as an architecture would run it.
    package static func longestSpec(
        of problem: AttentionProblem, on architecture: Architecture
    ) throws(FlashInferError) -> KernelSpec {
        try spec(of: problem, on: architecture) { AttentionTuning.tiles($0, $1)?.last?.tile }
    }

    /// The portable kernel of the last tile of a problem, as an architecture would run it.
    package static func spec(
        of problem: AttentionProblem, on architecture: Architecture
    ) throws(FlashInferError) -> KernelSpec {
        try spec(of: problem, on: architecture, AttentionTuning.portable)
    }

    /// The queued kernel of a tile, with tensors as well aligned as can be.
    private static func spec(
        of problem: AttentionProblem, on architecture: Architecture,
        _ choose: (AttentionHeads, AttentionTuning.Limits) -> AttentionTile?
    ) throws(FlashInferError) -> KernelSpec {
        let heads = AttentionHeads(problem)
        guard let tile = choose(heads, AttentionTuning.Limits(architecture)) else {
            throw .unsupported(
                "heads of \(heads.dimQK) and \(heads.dimVO) elements", device: "\(architecture)",
                nearest: "heads of at most 256 elements")
        }
        return AttentionKernel(problem, tile: tile, isQueued: true, chunk: largestChunk(heads), isScaled: false).spec
    }
}
