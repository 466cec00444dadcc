import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Latent attention on the GPU, against the float64 oracle.
@Suite(.enabled(if: GPU.isPresent, GPU.absence)) struct MLAGPUTests {
    @Test(arguments: MLACase.matrix) func matrix(_ test: MLACase) throws { try checkLatent(test, on: GPU.device) }

    @Test(arguments: MLACase.large) func large(_ test: MLACase) throws { try checkLatent(test, on: GPU.device) }
}

/// A few small cases, for compute-sanitizer and the emulated GPU.
@Suite(.enabled(if: GPU.isPresent, GPU.absence)) struct ReducedMLAGPUTests {
    @Test(arguments: MLACase.reduced) func reduced(_ test: MLACase) throws { try checkLatent(test, on: GPU.device) }
}

/// Runs a case with its work cut in several ways, and compares each with the oracle.
private func checkLatent(_ test: MLACase, on device: CUDADevice) throws {
    let fixture = try MLAFixture(test)
    let expected = fixture.oracle.evaluate()
    let ways: [(Planner.Mode, Int?)] = [
        (.balanced, nil), (.balanced, 3), (.unsplit, 2), (.batchInvariant(splitSize: 128), nil),
    ]
    for (mode, processors) in ways {
        let found = try fixture.run(on: device, mode: mode, processors: processors)
        let mismatch = AttentionTolerance(products: test.type).mismatch(found, expected, fixture.problem)
        #expect(mismatch == nil, "\(mode) on \(processors.map { "\($0)" } ?? "all") processors: \(test)")
    }
}
