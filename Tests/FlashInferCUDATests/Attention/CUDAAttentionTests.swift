import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// The shared matrix on the GPU, against the float64 oracle.
@Suite(.enabled(if: GPU.isPresent, GPU.absence)) struct CUDAAttentionTests {
    @Test(arguments: AttentionCase.gpuMatrix) func matrix(_ test: AttentionCase) throws { try check(test) }

    @Test(arguments: AttentionCase.gpuLayouts) func layouts(_ test: AttentionCase) throws { try check(test) }

    @Test(arguments: AttentionCase.gpuHeadDims) func headDims(_ test: AttentionCase) throws { try check(test) }

    @Test(arguments: AttentionCase.gpuOddDims) func oddDims(_ test: AttentionCase) throws { try check(test) }

    @Test(arguments: AttentionCase.gpuLarge) func large(_ test: AttentionCase) throws { try check(test) }

    @Test(arguments: AttentionCase.gpuPrefill) func prefill(_ test: AttentionCase) throws { try check(test) }

    @Test(arguments: AttentionCase.gpuSteepPrefill) func steep(_ test: AttentionCase) throws { try check(test) }

    @Test(arguments: AttentionCase.gpuFloat8) func float8(_ test: AttentionCase) throws { try check(test) }

    private func check(_ test: AttentionCase) throws { try checkAttention(test, on: GPU.device) }
}

/// A few small cases, for compute-sanitizer: `--filter Reduced`.
@Suite(.enabled(if: GPU.isPresent, GPU.absence)) struct ReducedCUDAAttentionTests {
    @Test(arguments: AttentionCase.gpuReduced) func reduced(_ test: AttentionCase) throws {
        try checkAttention(test, on: GPU.device)
    }
}

/// Runs a case in every way that work can be cut, and compares each with the oracle. What the GPU may refuse, it refuses when
/// planning; ``CUDAAttentionSupportTests`` counts that.
func checkAttention(_ test: AttentionCase, on device: CUDADevice) throws {
    let fixture = try AttentionFixture(test)
    let traits: KernelTraits
    do {
        traits = try device.kernelTraits(for: fixture.problem)
    } catch {
        guard case .unsupported = error, !test.isRequiredOfGPU else { throw error }
        return
    }
    let expected = fixture.oracle.evaluate()
    let buffers = try AttentionBuffers(fixture, on: device)
    // Where only queries have 8 bits they are widened.
    let areWidened = test.queryType == .float8E4M3 && test.cacheType != .float8E4M3
    let tolerance = AttentionTolerance(
        products: !areWidened ? test.queryType : test.cacheType == .float16 ? .float16 : .bfloat16)
    let ways: [(Planner.Mode, Int?)] = [
        (.balanced, nil), (.balanced, 1), (.balanced, 2), (.balanced, 7), (.unsplit, nil),
        (.batchInvariant(splitSize: fixedSplit(traits)), 3),
    ]
    for (mode, processors) in ways {
        let found = try buffers.run(mode: mode, processors: processors)
        let mismatch = tolerance.mismatch(found, expected, fixture.problem)
        #expect(mismatch == nil, "\(mode) on \(processors.map { "\($0)" } ?? "all") processors: \(test)")
    }
}

/// A split size short enough that the matrix's longer requests are cut.
func fixedSplit(_ traits: KernelTraits) -> Int {
    (max(traits.minimumSplit, 128) + traits.kvGranularity - 1) / traits.kvGranularity * traits.kvGranularity
}
