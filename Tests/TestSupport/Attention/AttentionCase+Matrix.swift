package import FlashInferCore

extension AttentionCase {
    /// (queries, cache), as the CPU has them.
    package static let types: [(DType, DType)] = [
        (.float32, .float32), (.float16, .float16), (.bfloat16, .bfloat16), (.bfloat16, .float8E4M3),
        (.bfloat16, .float8E5M2), (.bfloat16, .int8), (.float32, .int8), (.float16, .float8E4M3), (.float32, .bfloat16),
        (.bfloat16, .float32), (.float16, .float8E5M2), (.float8E4M3, .float8E4M3), (.float8E4M3, .bfloat16),
        (.float8E4M3, .float16), (.float8E4M3, .int8),
    ]

    /// Every type with every feature and every layout, and pseudo-random points of the whole product.
    package static let matrix: [AttentionCase] = {
        var cases: [AttentionCase] = []
        for (index, (q, kv)) in types.enumerated() {
            for (number, feature) in Feature.allCases.enumerated() {
                let layout = Layout.allCases[(index + number) % Layout.allCases.count]
                cases.append(
                    AttentionCase(
                        queryType: q, cacheType: kv, layout: layout, feature: feature,
                        pageSize: [16, 1, 3][number % 3],
                        seed: UInt64(cases.count)))
            }
            for layout in Layout.allCases {
                cases.append(
                    AttentionCase(queryType: q, cacheType: kv, layout: layout, feature: .causal, dimQK: 72, dimVO: 40))
            }
        }
        var generator = SeededGenerator(seed: 7)
        for seed in 0..<180 { cases.append(random(UInt64(seed), &generator)) }
        return cases
    }()

    private static func random(_ seed: UInt64, _ g: inout SeededGenerator) -> AttentionCase {
        let (q, kv) = types.randomElement(using: &g) ?? types[0]
        let dims = [8, 16, 24, 32, 40, 56, 64, 80, 96, 104, 120, 128, 136, 192]
        let lengths = [0, 1, 2, 3, 5, 15, 16, 17, 31, 33, 64, 65]
        let dim = dims.randomElement(using: &g) ?? 8
        return AttentionCase(
            queryType: q, cacheType: kv,
            outputType: [nil, .float32, .float16, .bfloat16].randomElement(using: &g) ?? nil,
            layout: Layout.allCases.randomElement(using: &g) ?? .combinedNHD,
            feature: Feature.allCases.randomElement(using: &g) ?? .full, dimQK: dim,
            dimVO: [dim, dims.randomElement(using: &g) ?? 8].randomElement(using: &g) ?? dim,
            kvHeads: [1, 2, 3].randomElement(using: &g) ?? 1,
            group: [1, 1, 2, 3, 4, 5, 8, 9].randomElement(using: &g) ?? 1,
            pageSize: [1, 2, 5, 16, 64].randomElement(using: &g) ?? 1,
            lengths: (0..<Int.random(in: 1...3, using: &g)).map { _ in
                let keys = (lengths.randomElement(using: &g) ?? 1) + (Bool.random(using: &g) ? 100 : 0)
                let isDecode = Bool.random(using: &g)
                return (isDecode ? 1 : lengths.randomElement(using: &g) ?? 1, keys)
            }, hasHeadScales: Bool.random(using: &g), seed: seed)
    }

    /// The largest head dim, the largest groups, and lengths past a tile of keys and a tile of rows.
    package static let large: [AttentionCase] = [
        AttentionCase(dimQK: 512, kvHeads: 1, group: 1, lengths: [(3, 140), (20, 20)]),
        AttentionCase(
            queryType: .bfloat16, cacheType: .float8E4M3, dimQK: 512, dimVO: 8, kvHeads: 1, group: 16,
            lengths: [(1, 140), (4, 5)]),
        AttentionCase(
            queryType: .bfloat16, cacheType: .bfloat16, dimQK: 192, dimVO: 128, lengths: [(140, 300), (1, 513)]),
        AttentionCase(dimQK: 32, kvHeads: 1, group: 71, lengths: [(1, 300), (5, 270)]),
        AttentionCase(
            queryType: .bfloat16, cacheType: .int8, dimQK: 32, kvHeads: 5, group: 1, lengths: [(1, 700), (300, 290)]),
        AttentionCase(
            queryType: .bfloat16, cacheType: .bfloat16, feature: .causalWindow, dimQK: 32,
            lengths: [(200, 300), (2, 333)]),
        AttentionCase(
            queryType: .float16, cacheType: .float16, feature: .window, dimQK: 32, lengths: [(200, 300), (2, 333)]),
    ]
}
