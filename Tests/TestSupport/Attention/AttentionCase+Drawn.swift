internal import FlashInferCore

extension AttentionCase {
    /// A point of everything at once: options of the variant in any mix, and types, layouts, heads, pages and lengths with them, from
    /// `seed` alone. Where the matrix goes through what is usual, this goes where nobody looked.
    package static func drawn(from seed: UInt64) -> AttentionCase {
        var g = SeededGenerator(seed: seed &* 7919 &+ 13)
        let (query, cache) = g.pick(types)
        var test = drawn(query, cache, kernel: seed, seed: seed)
        test.dimQK = g.pick([8, 64, 128, Int.random(in: 1...40, using: &g), 8 * Int.random(in: 1...20, using: &g)])
        test.dimVO = g.pick([nil, nil, 64, Int.random(in: 1...40, using: &g), 8 * Int.random(in: 1...20, using: &g)])
        test.options = options(headDim: test.dimQK, &g)
        return test
    }

    /// The same for a GPU's kernels. Eight seeds in turn share what kernels are compiled for.
    package static func drawnForGPU(from seed: UInt64) -> AttentionCase {
        let kernel = seed / 8
        var g = SeededGenerator(seed: kernel &* 7919 &+ 17)
        let (query, cache) = g.pick(gpuTypes)
        var test = drawn(query, cache, kernel: kernel, seed: seed)
        (test.dimQK, test.dimVO) = g.pick(
            [(64, 64), (128, 128), (256, 256), (192, 128), (72, 40), (128, 64), (16, 16), (112, 112)])
        test.options = options(headDim: test.dimQK, &g)
        return test
    }

    /// What is neither head dims nor a variant: what a kernel is compiled for from `kernel`, all else from `seed`.
    private static func drawn(_ query: DType, _ cache: DType, kernel: UInt64, seed: UInt64) -> AttentionCase {
        var own = SeededGenerator(seed: kernel &* 104_729 &+ 3)
        var test = AttentionCase(queryType: query, cacheType: cache, layout: own.pick(Layout.allCases), seed: seed)
        test.outputType = own.pick([nil, nil, .float32, .float16, .bfloat16])
        test.group = own.pick([1, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 17])
        test.hasHeadScales = Int.random(in: 0..<4, using: &own) == 0
        test.pageSize = own.pick([1, 2, 3, 4, 7, 8, 16, 16, 32, 48, 64, 128, Int.random(in: 1...130, using: &own)])
        var g = SeededGenerator(seed: seed &* 1_299_709 &+ 29)
        test.kvHeads = g.pick([1, 1, 2, 3, 4, 5])
        test.lengths = lengths(group: test.kvHeads * test.group, &g)
        return test
    }

    /// Options of a variant in any mix that there may be.
    private static func options(headDim: Int, _ g: inout SeededGenerator) -> AttentionVariant {
        var position = AttentionVariant.PositionEncoding.none
        switch Int.random(in: 0..<6, using: &g) {
        case 0: position = .alibi
        case 1 where headDim % 2 == 0:
            let pairs = headDim / 2
            let scaling: [RoPEParameters.Scaling] = [
                .none, .linear(factor: 3),
                .llama3(factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext: 512),
            ]
            position = .rope(
                RoPEParameters(
                    theta: g.pick([10_000, 100, 500_000]),
                    rotaryDim: g.pick([nil, 2 * Int.random(in: 1...pairs, using: &g)]),
                    pairing: g.pick([.halfSplit, .interleaved]), scaling: g.pick(scaling)))
        default: break
        }
        let hasCap = position != .alibi && Int.random(in: 0..<4, using: &g) == 0
        return AttentionVariant(
            mask: g.pick([.none, .causal, .causal, .custom, .customPacked]),
            windowLeft: g.pick([nil, nil, nil, 0, 1, 7, 15, 16, 63, 64, Int.random(in: 0...200, using: &g)]),
            logitsSoftCap: hasCap ? g.pick([0.5, 3, 30]) : nil,
            scale: g.pick([nil, nil, nil, 0.3, 1, -0.2, 0]), positionEncoding: position,
            hasSinks: Int.random(in: 0..<4, using: &g) == 0)
    }

    /// A batch that the oracle does in a moment: lengths of nothing, of one, around tiles and pages, and a few long ones.
    private static func lengths(group: Int, _ g: inout SeededGenerator) -> [(Int, Int)] {
        var lengths: [(Int, Int)] = []
        var left = 120_000 / group
        for _ in 0..<g.pick([1, 1, 2, 3, 5, 9]) {
            let keys = g.pick(
                [
                    0, 1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, Int.random(in: 0...40, using: &g),
                    Int.random(in: 0...300, using: &g), Int.random(in: 0...1500, using: &g),
                ])
            // Of as many queries as keys, of more, and of any number.
            var queries = g.pick(
                [0, 1, 1, 1, 2, 3, 8, 9, 16, 17, keys, keys + 3, Int.random(in: 0...140, using: &g)])
            queries = min(queries, max(left / max(keys, 1), 1))
            left = max(left - queries * keys, 0)
            lengths.append((queries, keys))
        }
        return lengths
    }
}
