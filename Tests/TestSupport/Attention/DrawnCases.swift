package import FlashInferCore

extension CascadeFixture.Case {
    /// A tree of anything, from `seed` alone.
    package static func drawn(from seed: UInt64, types: [(DType, DType)]) -> Self {
        var g = SeededGenerator(seed: seed &* 31 &+ 5)
        let (query, drawnCache) = g.pick(types)
        // Trees have no scales, which int8 needs.
        let cache = drawnCache == .int8 ? query : drawnCache
        let variant = AttentionVariant(
            mask: g.pick([.none, .causal, .causal]), logitsSoftCap: g.pick([nil, nil, 2]),
            scale: g.pick([nil, nil, 0.4, 1.5]), hasSinks: g.pick([false, false, true]))
        return CascadeFixture.Case(
            queryType: query, cacheType: cache, outputType: g.pick([nil, nil, .float32]),
            headDim: g.pick([8, 32, 64, 40, 128]), kvHeads: g.pick([1, 1, 2, 3]),
            group: g.pick([1, 2, 3, 4, 5, 7, 8, 16]), pageSize: g.pick([1, 2, 3, 4, 5, 8, 16, 64]), variant: variant,
            levels: g.pick([2, 2, 3, 4, 5]), sequences: g.pick([1, 2, 3, 7, 14, 33]),
            queries: g.pick([1, 1, 2, 5, 17]), nodePages: g.pick([1, 3, 9, 25]), ownPages: g.pick([1, 1, 2, 8]),
            seed: seed)
    }
}

extension BlockSparseFixture.Case {
    /// A matrix of anything, from `seed` alone.
    package static func drawn(from seed: UInt64, types: [DType]) -> Self {
        var g = SeededGenerator(seed: seed &* 37 &+ 7)
        let position: AttentionVariant.PositionEncoding = g.pick([
            .none, .none, .none, .alibi, .rope(RoPEParameters(theta: 300)),
        ])
        let variant = AttentionVariant(
            mask: g.pick([.none, .causal, .custom]), windowLeft: g.pick([nil, nil, 0, 9, 60]),
            logitsSoftCap: position == .alibi ? nil : g.pick([nil, nil, 1.5]), scale: g.pick([nil, nil, 0.3, 2]),
            positionEncoding: position)
        return BlockSparseFixture.Case(
            g.pick([1, 2, 3, 7, 16, 64, 128, 200]), g.pick([1, 1, 2, 3, 5, 8, 16, 48, 64, 128, 130]), variant,
            type: g.pick(types), headDim: g.pick([8, 64, 64, 128, 40]), kvHeads: g.pick([1, 2, 3]),
            group: g.pick([1, 1, 2, 3, 4, 8]), rows: g.pick([1, 2, 17, 64, 100, 260]),
            columns: g.pick([1, 5, 64, 100, 310, 700]), maximumBlocks: g.pick([.max, 1, 3, 30]), seed: seed)
    }
}

extension MLACase {
    /// A latent batch of anything, from `seed` alone.
    package static func drawn(from seed: UInt64) -> MLACase {
        var g = SeededGenerator(seed: seed &* 41 &+ 9)
        var lengths: [(queries: Int, keys: Int)] = []
        for _ in 0..<g.pick([1, 2, 4]) {
            let queries = g.pick([0, 1, 1, 2, 3, 5])
            lengths.append((queries, g.pick([0, 1, 3, 16, 63, 64, 65, 130, Int.random(in: 0...400, using: &g)])))
        }
        return MLACase(lengths: lengths, heads: g.pick([1, 2, 5, 8, 16, 16, 24, 128, 32])) {
            ($0.latentDim, $0.ropeDim) = g.pick([(512, 64), (512, 64), (512, 64), (256, 32), (64, 8)])
            $0.pageSize = g.pick([1, 2, 3, 8, 16, 32, 48, 64, 64])
            ($0.type, $0.cacheType) = g.pick([
                (.bfloat16, nil), (.float16, nil), (.bfloat16, .float8E4M3), (.float16, .float8E4M3),
            ])
            ($0.isCausal, $0.isCombined) = (g.pick([true, true, false]), g.pick([true, false]))
            ($0.latentScale, $0.ropeScale) = g.pick([(1, 1), (0.5, 0.5), (0.5, 0.4), (2, 0.25)])
            $0.steepness = g.pick([1, 1, 6])
            $0.seed = seed
        }
    }
}

extension SelectedPlacesFixture.Case {
    /// A choice of pages of anything, from `seed` alone.
    package static func drawn(from seed: UInt64, types: [DType]) -> Self {
        var g = SeededGenerator(seed: seed &* 43 &+ 11)
        let rope = AttentionVariant(mask: .causal, positionEncoding: .rope(RoPEParameters(theta: 100)))
        let places = g.pick([true, true, false])
        let positional = [
            AttentionVariant(mask: .causal, windowLeft: g.pick([0, 7, 50, 90])), rope,
            AttentionVariant(mask: .causal, positionEncoding: .alibi), .causal,
        ]
        let plain = [AttentionVariant.causal, AttentionVariant(mask: .causal, logitsSoftCap: 2)]
        let queryLength = g.pick([1, 1, 1, 2, 5, 33])
        let pageSize = g.pick([1, 2, 5, 8, 16, 32])
        // The newest pages are chosen always, and must fit.
        let k = (queryLength - 1 + pageSize - 1) / pageSize + 1 + g.pick([0, 1, 3, 8])
        return SelectedPlacesFixture.Case(
            g.pick(types), pageSize: pageSize, queryLength: queryLength, g.pick(places ? positional : plain),
            hasHeadTables: g.pick([true, false]), keyPositions: places ? .places : .sequential,
            reduction: g.pick([.maximum, .sum]), k: k, group: g.pick([1, 2, 3, 8]), dim: g.pick([8, 64, 128]),
            lengths: (0..<g.pick([1, 3, 6])).map { _ in Int.random(in: 1...220, using: &g) })
    }
}
