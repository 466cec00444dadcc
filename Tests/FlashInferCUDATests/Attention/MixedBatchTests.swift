import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Batches of chunks and decodes, which on Hopper are one launch where heads have 128 elements of 16 bits.
@Suite(.enabled(if: GPU.isPresent, GPU.absence)) struct MixedBatchTests {
    /// Requests of one row and of some, whose kernels have lists, and of many, whose kernel has a queue; some without keys, or with fewer than a
    /// page, and lengths that are no multiple of anything.
    private static let lengths: [[(Int, Int)]] = [
        [(1, 900), (70, 300), (1, 3), (2, 511)],
        [(40, 1000), (1, 1), (3, 700), (0, 5), (1, 0), (200, 260), (1, 1777)],
        [(1, 2000), (90, 90), (4, 650)],
    ]

    @Test(arguments: lengths.indices, [AttentionCase.Feature.full, .causal, .causalWindow, .sinks])
    func features(_ lengths: Int, _ feature: AttentionCase.Feature) throws {
        try check(.bfloat16, .combinedNHD, feature, group: 4, lengths)
    }

    /// Groups of 8 and 3, of which two and more rows are more than eight, and all ways in which a cache lies.
    @Test(
        arguments: [AttentionCase.Layout.combinedHND, .splitNHD, .splitHND, .raggedNHD, .raggedHND, .strided], [8, 3])
    func layouts(_ layout: AttentionCase.Layout, _ group: Int) throws {
        try check(.float16, layout, .causal, group: group, 1)
    }

    /// Of 8 and 24 there are no lists beside a queue.
    @Test(arguments: [8, 24, 32, 48, 64]) func pages(_ pageSize: Int) throws {
        try check(.bfloat16, .combinedNHD, .causalWindow, group: 4, pageSize: pageSize, 1)
    }

    /// Maxima that rise by much from stage to stage: weights leave their range and are computed anew.
    @Test(arguments: [DType.bfloat16, .float16]) func steep(_ type: DType) throws {
        try check(type, .combinedNHD, .causal, group: 4, 1, scale: 6)
    }

    private func check(
        _ type: DType, _ layout: AttentionCase.Layout, _ feature: AttentionCase.Feature, group: Int, pageSize: Int = 16,
        _ lengths: Int, scale: Float? = nil
    ) throws {
        let test = AttentionCase(
            queryType: type, cacheType: type, layout: layout, feature: feature, dimQK: 128, group: group,
            pageSize: pageSize, lengths: Self.lengths[lengths], seed: UInt64(lengths + 3), scale: scale)
        try checkAttention(test, on: GPU.device)
    }
}

/// One batch, for compute-sanitizer: over pages of 16 in one launch, of 8 in two.
@Suite(.enabled(if: GPU.isPresent, GPU.absence)) struct ReducedMixedBatchTests {
    @Test(arguments: [16, 8]) func reduced(_ pageSize: Int) throws {
        let test = AttentionCase(
            queryType: .bfloat16, cacheType: .bfloat16, feature: .causal, dimQK: 128, group: 4,
            pageSize: pageSize, lengths: [(1, 300), (40, 200), (3, 100)])
        try checkAttention(test, on: GPU.device)
    }
}
