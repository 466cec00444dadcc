import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

/// Block-sparse matrices, whose keys' positions are their columns, in any order.
@Suite struct BlockSparseAttentionTests {
    @Test(arguments: BlockSparseFixture.Case.sizes) func matchesOracle(_ test: BlockSparseFixture.Case) throws {
        let fixture = try BlockSparseFixture(test)
        let expected = fixture.oracle.evaluate()
        for device in AttentionConformanceTests.devices {
            for mode in [Planner.Mode.balanced, .batchInvariant(splitSize: 128)] {
                expectClose(
                    try fixture.run(on: device, mode: mode, processors: 2), expected, fixture.problem, device)
            }
        }
    }
}
