internal import FlashInferCore

extension AttentionKernel {
    /// The specialisations that ship, for all architectures: their tiles differ with the shared memory there is.
    package static func shipped() -> [KernelSpec] {
        var seen: Set<KernelSpec> = []
        return KernelCatalogue.architectures.flatMap { shippedByArchitecture[$0] ?? [] }.filter {
            seen.insert($0).inserted
        }
    }

    /// Whether a shipped specialisation is meant for an architecture.
    package static func isShipped(_ spec: KernelSpec, for architecture: Architecture) -> Bool {
        // Another minor version has the memory, and so the tiles, of one of these or is compiled for when it is met.
        (shippedByArchitecture[architecture] ?? []).contains(spec)
    }

    private static let shippedByArchitecture: [Architecture: [KernelSpec]] = Dictionary(
        uniqueKeysWithValues: KernelCatalogue.architectures.map { ($0, shipped(for: $0)) })

    private static func shipped(for architecture: Architecture) -> [KernelSpec] {
        let limits = AttentionTuning.Limits(architecture)
        // Processors that are measured get every variant; the others a few, which say whether the text compiles.
        let isMeasured = (architecture.major, architecture.minor) == (8, 0) || architecture.major == 9
        var specs: [KernelSpec] = []
        for entry in isMeasured ? common + variants : Array(common.prefix(3)) {
            var heads = AttentionHeads(
                dimQK: entry.dimQK, dimVO: entry.dimVO, isNarrow: entry.kvType.byteCount == 1,
                hasRoPE: entry.pairing != nil, isRagged: entry.isRagged)
            if entry.hasPositions { heads.isRagged = false }
            heads.gathersRows = entry.gathersRows
            (heads.latentRope, heads.latentGroup) = (entry.latentRope, entry.latentGroup)
            heads.isFloat8 = entry.queryType == .float8E4M3 && entry.kvType == .float8E4M3
            heads.hasLongShortTiles = entry.keyPositions == .columns || entry.hasLevels || entry.isBlockSparse
            heads.sharesColumns = entry.isBlockSparse
            heads.hasPlainScores =
                (entry.logits == .plain || entry.logits == .scaled) && !entry.mask.isCustom && !entry.hasPositions
            heads.seesFromFirst =
                heads.hasPlainScores && !entry.isBlockSparse && !entry.hasLevels && entry.latentRope == 0
            heads.weighsBySums = halfType(query: entry.queryType, cache: entry.kvType) == .bfloat16
            heads.allowsHopper =
                !heads.hasRoPE && !(entry.hasPositions && heads.isFloat8)
                && (entry.outputType ?? entry.queryType).byteCount == 2
                && (heads.isFloat8 ? !entry.mask.isCustom : entry.queryType != .float8E4M3)
            var tiles = (AttentionTuning.tiles(heads, limits) ?? []).enumerated().map { ($0, $1.tile) }
            let mixed = entry.logits == .plain ? AttentionTuning.mixed(heads, tiles.map { $1 }, limits) : nil
            // Unaligned tensors, take the portable kernel where there is Hopper's.
            if let (index, last) = tiles.last, last.isHopper, let portable = AttentionTuning.portable(heads, limits) {
                tiles.append((index, portable))
            }
            // Windows have tiles of their own.
            if let (index, last) = tiles.first(where: { $0.1.isPaired }) {
                var single = last
                single.isPaired = false
                tiles.append((index, single))
            }
            if let mixed { tiles.append((tiles.count, mixed)) }
            for (index, tile) in tiles {
                specs.append(
                    AttentionKernel(
                        heads: heads, tile: tile, queryType: entry.queryType, kvType: entry.kvType,
                        outputType: entry.outputType ?? entry.queryType, logits: entry.logits, mask: entry.mask,
                        pairing: entry.pairing, keyPositions: entry.keyPositions,
                        hasHeadTables: entry.hasHeadTables,
                        isQueued: (index > 0 || heads.sharesColumns) && entry.latentRope == 0,
                        chunk: largestChunk(heads)
                    ).spec)
            }
        }
        return specs
    }

    private struct Entry {
        var queryType = DType.bfloat16
        var kvType = DType.bfloat16
        var outputType: DType?
        var dimQK = 128
        var dimVO = 128
        var isRagged = false
        var gathersRows = false
        var logits = Logits.plain
        var mask = VariantForm.FusedMask.causal
        var pairing: RoPEParameters.Pairing?
        var keyPositions = KVBlockTable.KeyPositions.sequential
        var hasHeadTables = false
        /// Block-sparse, with a variant that does not ask for columns.
        var isBlockSparse = false
        var hasLevels = false
        var latentRope = 0
        var latentGroup = 0

        /// Whether positions of keys are read from a table.
        var hasPositions: Bool { keyPositions != .sequential }

        /// Latent attention of DeepSeek's dimensions.
        static func latent(group: Int, query: DType = .bfloat16, kv: DType? = nil) -> Entry {
            Entry(
                queryType: query, kvType: kv ?? query, dimQK: 576, dimVO: 512, latentRope: 64, latentGroup: group)
        }
    }

    /// What most models use.
    private static let common: [Entry] = {
        var entries: [Entry] = []
        for type in [DType.bfloat16, .float16] {
            for dim in [128, 64] {
                for isRagged in [false, true] {
                    entries.append(Entry(queryType: type, kvType: type, dimQK: dim, dimVO: dim, isRagged: isRagged))
                }
                entries.append(Entry(queryType: type, kvType: .float8E4M3, dimQK: dim, dimVO: dim))
            }
        }
        return entries
    }()

    /// One of each kind of everything else.
    private static let variants: [Entry] = {
        var entries: [Entry] = []
        for (dimQK, dimVO) in [(96, 96), (256, 256), (192, 128), (72, 40), (512, 512)] {
            entries.append(Entry(dimQK: dimQK, dimVO: dimVO))
            entries.append(Entry(kvType: .float8E4M3, dimQK: dimQK, dimVO: dimVO))
        }
        entries.append(Entry(dimQK: 256, dimVO: 256, isRagged: true))
        // The engine's: float32 out of float16 queries.
        for dim in [64, 128, 256] {
            entries.append(Entry(queryType: .float16, kvType: .float16, outputType: .float32, dimQK: dim, dimVO: dim))
        }
        for type in [DType.bfloat16, .float16] {
            entries.append(Entry(queryType: type, kvType: .float8E5M2))
            entries.append(Entry(queryType: type, kvType: .int8))
        }
        for logits in [Logits.scaled, .capped, .alibi] { entries.append(Entry(logits: logits)) }
        for (dimQK, dimVO) in [(64, 64), (128, 128), (256, 256), (192, 128)] {
            for isRagged in [false, true] {
                entries.append(
                    Entry(
                        queryType: .float8E4M3, kvType: .float8E4M3, outputType: .bfloat16, dimQK: dimQK, dimVO: dimVO,
                        isRagged: isRagged))
            }
        }
        for logits in [Logits.capped, .alibi] {
            for dim in [128, 256] {
                entries.append(
                    Entry(
                        queryType: .float8E4M3, kvType: .float8E4M3, outputType: .float16, dimQK: dim, dimVO: dim,
                        logits: logits))
            }
        }
        // Queries that are widened when they are loaded.
        entries.append(Entry(queryType: .float8E4M3, kvType: .bfloat16, outputType: .bfloat16))
        entries.append(Entry(queryType: .float8E4M3, kvType: .float8E4M3, outputType: .bfloat16, logits: .scaled))
        for mask in [VariantForm.FusedMask.custom, .customPacked] { entries.append(Entry(mask: mask)) }
        for pairing in [RoPEParameters.Pairing.halfSplit, .interleaved] {
            entries.append(Entry(pairing: pairing))
            entries.append(Entry(kvType: .float8E4M3, pairing: pairing))
        }
        entries.append(Entry(keyPositions: .columns))
        // Selected pages: with a window, and of each head.
        entries.append(Entry(keyPositions: .places))
        entries.append(Entry(hasHeadTables: true))
        for gathersRows in [false, true] {
            entries.append(Entry(gathersRows: gathersRows, mask: .none, isBlockSparse: true))
        }
        for dim in [64, 128, 256] { entries.append(Entry(dimQK: dim, dimVO: dim, gathersRows: true)) }
        // Levels of shared prefixes; also the engine's.
        for dim in [64, 128] {
            entries.append(Entry(dimQK: dim, dimVO: dim, hasLevels: true))
        }
        for group in [16, 128] {
            for type in [DType.bfloat16, .float16] {
                entries.append(.latent(group: group, query: type))
                entries.append(.latent(group: group, query: type, kv: .float8E4M3))
            }
        }
        return entries
    }()
}

extension AttentionKernel {
    private init(
        heads: AttentionHeads, tile: AttentionTile, queryType: DType, kvType: DType, outputType: DType, logits: Logits,
        mask: VariantForm.FusedMask, pairing: RoPEParameters.Pairing?,
        keyPositions: KVBlockTable.KeyPositions, hasHeadTables: Bool, isQueued: Bool, chunk: Int
    ) {
        self.heads = heads
        self.tile = tile
        self.queryType = queryType
        self.kvType = kvType
        self.outputType = outputType
        // The 8-bit kernel takes any scale.
        self.logits = heads.isFloat8 && tile.isHopper && logits == .scaled ? .plain : logits
        self.mask = mask
        self.pairing = pairing
        self.keyPositions = keyPositions
        self.hasHeadTables = hasHeadTables
        self.isQueued = isQueued
        self.chunk = chunk
    }
}
