package import FlashInferCore

extension AttentionCase {
    /// (queries, cache) that a GPU's tensor-core kernels must have.
    package static let gpuTypes: [(DType, DType)] =
        [.bfloat16, .float16].flatMap { query in
            [query, .float8E4M3, .float8E5M2, .int8].map { (query, $0) }
        } + [(.float8E4M3, .float8E4M3)]

    /// Lengths with decodes, chunks, prompts, requests without queries and without keys, and some worth splitting.
    package static let gpuLengths = [(1, 37), (5, 80), (0, 9), (17, 100), (3, 0), (1, 700), (40, 300), (9, 4)]

    /// (qk, vo) that most of the matrix uses.
    package static let gpuDims: [(Int, Int)] = [(64, 64), (128, 128), (96, 96), (256, 256), (192, 128)]

    /// (key/value heads, group): any group there is.
    private static let gpuHeads = [(2, 2), (1, 8), (3, 1), (1, 5), (2, 4), (1, 16), (2, 3)]

    private static let gpuPageSizes = [16, 1, 3, 64, 5, 128]

    /// Every type with every feature; layouts, dims, heads and page sizes take turns.
    package static let gpuMatrix: [AttentionCase] = {
        var cases: [AttentionCase] = []
        for (index, types) in gpuTypes.enumerated() {
            for (number, feature) in Feature.allCases.enumerated() {
                let turn = index * Feature.allCases.count + number
                cases.append(gpuCase(types, feature, gpuDims[(index + number) % gpuDims.count], turn))
            }
        }
        return cases
    }()

    /// Every type with every layout, in the commonest shape.
    package static let gpuLayouts: [AttentionCase] = gpuTypes.enumerated().flatMap { index, types in
        Layout.allCases.enumerated().map { number, layout in
            var test = gpuCase(types, .causal, (128, 128), index + 3 * number)
            test.layout = layout
            return test
        }
    }

    /// Every head dim that is a multiple of 8 up to 256, and some pairs; types take turns.
    package static let gpuHeadDims: [AttentionCase] =
        (stride(from: 8, through: 256, by: 8).map { ($0, $0) } + [(192, 128), (72, 40), (128, 64), (64, 128)])
        .enumerated().map { turn, dims in gpuCase(gpuTypes[turn % gpuTypes.count], .causal, dims, turn) }

    /// Head dims of no promise: run where a GPU takes them.
    package static let gpuOddDims: [AttentionCase] = [(12, 12), (1, 1), (50, 34), (255, 255), (4, 250), (100, 7)]
        .enumerated().flatMap { turn, dims in
            [0, 3, 5].map { gpuCase(gpuTypes[$0], turn % 2 == 0 ? .causal : .sinks, dims, turn + $0) }
        }

    /// Pseudo-random larger batches, with the kernels of the matrix: each kernel takes a second to compile.
    package static let gpuLarge: [AttentionCase] = {
        var g = SeededGenerator(seed: 11)
        let small = gpuMatrix.filter { $0.dimQK <= 128 }
        return (0..<48).map { seed in
            var test = small.randomElement(using: &g) ?? small[0]
            let heads = gpuHeads.randomElement(using: &g) ?? gpuHeads[0]
            (test.kvHeads, test.group) = heads
            test.pageSize = gpuPageSizes.randomElement(using: &g) ?? 16
            test.seed = UInt64(seed)
            var work = 0
            test.lengths = []
            // Bounded by what the oracle can do in a second or two.
            while work < 400_000, test.lengths.count < 40 {
                let keys = [1, 17, 64, 128, 129, 300, 1000, 1025, 3000].randomElement(using: &g) ?? 1
                let queries = [1, 1, 1, 2, 16, 65, 128, 257].randomElement(using: &g) ?? 1
                work += queries * keys * test.group
                test.lengths.append((queries, keys + Int.random(in: 0..<8, using: &g)))
            }
            return test
        }
    }()

    /// Many query rows over pages of every kind of size, as Hopper's copy engine brings them: boxes of 8 to 64 rows, one or several a
    /// page, and windows, which start at any key of a page.
    package static let gpuPrefill: [AttentionCase] = {
        let features: [Feature] = [.causal, .causalWindow, .window, .full, .cap, .sinks]
        let dims = [(128, 128), (64, 64), (96, 96), (192, 128), (256, 256), (64, 128)]
        return [8, 16, 48, 64, 128, 192].enumerated().flatMap { turn, pageSize in
            features.enumerated().map { index, feature in
                let (qk, vo) = dims[(turn + index) % dims.count]
                let type: DType = (turn + index) % 2 == 0 ? .bfloat16 : .float16
                return AttentionCase(
                    queryType: type, cacheType: type, layout: index % 2 == 0 ? .combinedNHD : .splitHND,
                    feature: feature, dimQK: qk, dimVO: vo, kvHeads: 2, group: 1 + index % 2, pageSize: pageSize,
                    lengths: [(200, 431), (129, 129), (1, 300), (70, 1000), (0, 5)], seed: UInt64(100 + turn))
            }
        } + gpuNarrowPrefill + gpuSmallPagePrefill + gpuOddPrefill
    }()

    /// The same with scores so far apart that weights relative to earlier keys are large, or no float32 at all.
    package static let gpuSteepPrefill: [AttentionCase] = {
        let features: [Feature] = [.full, .causal, .sinks]
        let scales: [Float] = [2, 8, 40, 2, 8, 40, 2, 8, 40]
        return scales.enumerated().map { turn, scale in
            // Heads of 120 take the portable kernel.
            let type: DType = turn % 2 == 0 || turn > 5 ? .bfloat16 : .float16, dim = [128, 64, 120][turn / 3]
            return AttentionCase(
                queryType: type, cacheType: type, layout: turn % 2 == 0 ? .raggedNHD : .combinedNHD,
                feature: features[turn % features.count], dimQK: dim, kvHeads: 2, group: 1 + turn % 2,
                lengths: [(200, 431), (129, 129), (70, 700)], seed: UInt64(400 + turn), scale: scale)
        }
    }()

    /// Items of an odd number that are parts of tiles: where two blocks take them side by side, the last one has no neighbour.
    private static let gpuOddPrefill: [AttentionCase] = [128, 256].map { dim in
        AttentionCase(
            queryType: .bfloat16, cacheType: .bfloat16, layout: .raggedNHD, feature: .full, dimQK: dim, kvHeads: 1,
            group: 1, lengths: [(100, 384)], seed: 500)
    }

    /// The same over pages too small for boxes, whose rows are copied one by one.
    private static let gpuSmallPagePrefill: [AttentionCase] = {
        let dims = [(128, 128), (64, 64), (256, 256), (192, 128), (96, 96), (64, 128), (72, 48)]
        let features: [Feature] = [.causal, .window, .causalWindow, .cap, .full]
        return [1, 2, 3, 4, 5, 7, 12, 1].enumerated().map { turn, pageSize in
            let (qk, vo) = dims[turn % dims.count]
            let type: DType = turn % 2 == 0 ? .bfloat16 : .float16
            return AttentionCase(
                queryType: type, cacheType: type, layout: turn % 2 == 0 ? .splitHND : .combinedNHD,
                feature: features[turn % features.count], dimQK: qk, dimVO: vo, kvHeads: 2, group: 1 + turn % 2,
                pageSize: pageSize, lengths: [(200, 431), (129, 129), (1, 300), (70, 400), (0, 5)],
                seed: UInt64(300 + turn))
        }
    }()

    /// The same over caches of 8 bits, which the kernels for many rows widen on their way.
    private static let gpuNarrowPrefill: [AttentionCase] = {
        let types: [(DType, DType)] = [
            (.bfloat16, .float8E4M3), (.float16, .float8E4M3), (.bfloat16, .int8), (.float16, .int8),
            (.bfloat16, .float8E5M2),
            (.float16, .float8E5M2),
        ]
        let dims = [(128, 128), (64, 64), (96, 96), (192, 128), (256, 256), (64, 128), (80, 48)]
        let features: [Feature] = [.causal, .causalWindow, .cap, .sinks, .full]
        return (0..<15).map { turn in
            let (qk, vo) = dims[turn % dims.count]
            return AttentionCase(
                queryType: types[turn % types.count].0, cacheType: types[turn % types.count].1,
                layout: [.combinedNHD, .splitHND, .raggedNHD][turn % 3], feature: features[turn % features.count],
                dimQK: qk, dimVO: vo, kvHeads: 2, group: 1 + turn % 2, pageSize: [16, 64, 8][turn % 3],
                lengths: [(200, 431), (129, 129), (1, 300), (70, 400), (0, 5)], hasHeadScales: turn % 2 == 1,
                seed: UInt64(200 + turn))
        }
    }()

    /// The same with queries of 8 bits: products of 8 bits over e4m3 where the pages allow it, and queries that are widened over all
    /// else. The last is long enough for sums to be ended on the way.
    package static let gpuFloat8: [AttentionCase] = {
        let dims = [(128, 128), (64, 64), (256, 256), (192, 128), (96, 96), (128, 64), (80, 48)]
        let features: [Feature] = [.causal, .window, .causalWindow, .cap, .sinks, .full, .alibi]
        let layouts: [Layout] = [.combinedNHD, .raggedNHD, .splitHND, .raggedHND]
        let caches: [DType] = [.bfloat16, .float16, .float8E5M2, .int8]
        return (0..<24).map { turn in
            let (qk, vo) = dims[turn % dims.count]
            return AttentionCase(
                queryType: .float8E4M3, cacheType: turn < 18 ? .float8E4M3 : caches[turn % caches.count],
                outputType: turn % 3 == 2 ? .float16 : nil, layout: layouts[turn % layouts.count],
                feature: features[turn % features.count], dimQK: qk, dimVO: vo, kvHeads: 2, group: 1 + turn % 2,
                pageSize: [16, 64, 8, 48, 4][turn % 5],
                lengths: [(200, 431), (129, 129), (1, 300), (70, 400), (0, 5)], hasHeadScales: turn % 2 == 1,
                seed: UInt64(400 + turn))
        }
            + [(128, Layout.raggedNHD), (256, .combinedNHD)].map { dim, layout in
                AttentionCase(
                    queryType: .float8E4M3, cacheType: .float8E4M3, layout: layout, feature: .causal, dimQK: dim,
                    kvHeads: 1, group: 1, lengths: [(70, 4500), (130, 2100)], seed: 450)
            }
    }()

    /// A few small cases of the matrix for slow tools (compute-sanitizer): every kernel family, split and merged, little arithmetic.
    package static let gpuReduced: [AttentionCase] = {
        let features: [Feature] = [.causal, .packedWindow, .everything, .alibi, .custom, .window]
        let types = [0, 3, 5, 6].map { gpuTypes[$0] }
        return gpuMatrix.filter { test in
            features.contains(test.feature) && types.contains { $0 == (test.queryType, test.cacheType) }
        }.map { test in
            var test = test
            (test.kvHeads, test.group) = (1, 4)
            test.lengths = [(1, 300), (0, 3), (20, 70), (2, 0)]
            return test
        } + [1, 4, 12, 36].map { gpuPrefill[$0] } + gpuOddPrefill.prefix(1) + gpuFloat8.prefix(3)
    }()

    private static func gpuCase(
        _ types: (DType, DType), _ feature: Feature, _ dims: (Int, Int), _ turn: Int
    ) -> AttentionCase {
        let (kvHeads, group) = gpuHeads[turn % gpuHeads.count]
        return AttentionCase(
            queryType: types.0, cacheType: types.1, outputType: turn % 5 == 4 ? .float32 : nil,
            layout: Layout.allCases[turn % Layout.allCases.count], feature: feature, dimQK: dims.0, dimVO: dims.1,
            kvHeads: kvHeads, group: group, pageSize: gpuPageSizes[turn % gpuPageSizes.count], lengths: gpuLengths,
            hasHeadScales: turn % 3 == 1, seed: UInt64(turn))
    }

    /// Whether a GPU must have this: the first release's promise. Anything else it may refuse, when planning.
    package var isRequiredOfGPU: Bool {
        let isTyped = Self.gpuTypes.contains { $0 == (queryType, cacheType) }
        let (qk, vo) = (dimQK, dimVO ?? dimQK)
        return isTyped && ((qk == vo && qk % 8 == 0 && qk <= 256) || (qk, vo) == (192, 128))
    }
}
