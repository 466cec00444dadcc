import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Results that must be equal bit for bit: a race or a read of what nobody wrote shows as a difference.
@Suite(.enabled(if: GPU.isPresent, GPU.absence)) struct CUDAAttentionRepeatTests {
    private static let lengths = [(1, 3000), (40, 700), (2, 30), (1, 1), (130, 1500), (1, 511)]

    @Test(arguments: AttentionCase.gpuTypes.indices, [(64, 64), (128, 128)])
    func runsRepeat(_ types: Int, _ dims: (Int, Int)) throws {
        let (query, cache) = AttentionCase.gpuTypes[types]
        for feature in [AttentionCase.Feature.causal, .full] {
            let test = AttentionCase(
                queryType: query, cacheType: cache, feature: feature, dimQK: dims.0, dimVO: dims.1, group: 4,
                lengths: Self.lengths)
            let buffers = try AttentionBuffers(AttentionFixture(test), on: GPU.device)
            for processors in [nil, 7] {
                let first = try buffers.run(processors: processors)
                for round in 0..<20 {
                    #expect(try buffers.run(processors: processors) == first, "round \(round) of \(test)")
                }
            }
        }
    }

    /// One request's result next to no neighbours and next to many, on one processor and on several.
    @Test(arguments: AttentionCase.gpuTypes.indices, [AttentionCase.Feature.causal, .causalWindow, .window])
    func neighboursChangeNothing(_ types: Int, _ feature: AttentionCase.Feature) throws {
        let (query, cache) = AttentionCase.gpuTypes[types]
        // Of 128 elements, requests of few rows and of many may share a launch, but not here.
        for (length, dim) in [((1, 1300), 64), ((3, 590), 64), ((70, 633), 64), ((1, 1300), 128), ((70, 633), 128)] {
            var test = AttentionCase(
                queryType: query, cacheType: cache, feature: feature, dimQK: dim, group: 4, lengths: [length])
            let fixture = try AttentionFixture(test)
            let mode = Planner.Mode.batchInvariant(
                splitSize: fixedSplit(try GPU.device.kernelTraits(for: fixture.problem)))
            let alone = try fixture.run(on: GPU.device, mode: mode, processors: 1)
            test.lengths += [(5, 17), (0, 3), (1, 2700), (60, 700)]
            let together = try AttentionFixture(test).run(on: GPU.device, mode: mode, processors: 3)
            #expect(alone.output == Array(together.output.prefix(alone.output.count)), "\(test)")
            #expect(alone.logSumExp == Array(together.logSumExp.prefix(alone.logSumExp.count)), "\(test)")
        }
    }
}
