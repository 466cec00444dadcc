import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Block-sparse matrices on the GPU, against the float64 oracle.
@Suite(.enabled(if: GPU.isPresent, GPU.absence)) struct CUDABlockSparseTests {
    @Test(arguments: BlockSparseFixture.Case.gpu) func sizes(_ test: BlockSparseFixture.Case) throws {
        try checkBlockSparse(test, on: GPU.device)
    }
}

/// A few small cases, for compute-sanitizer and an emulated GPU.
@Suite(.enabled(if: GPU.isPresent, GPU.absence)) struct ReducedCUDABlockSparseTests {
    @Test(arguments: BlockSparseFixture.Case.gpuReduced) func reduced(_ test: BlockSparseFixture.Case) throws {
        try checkBlockSparse(test, on: GPU.device)
    }
}

private func checkBlockSparse(_ test: BlockSparseFixture.Case, on device: CUDADevice) throws {
    let fixture = try BlockSparseFixture(test)
    let expected = fixture.oracle.evaluate()
    for processors in [nil, 2] {
        let found = try fixture.run(on: device, processors: processors)
        let mismatch = AttentionTolerance(products: test.type).mismatch(found, expected, fixture.problem)
        #expect(mismatch == nil, "\(processors.map { "\($0)" } ?? "all") processors: \(test)")
    }
}
