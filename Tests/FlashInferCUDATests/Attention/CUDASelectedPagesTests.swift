import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Attention over pages that a kernel before it has selected, run at once and replayed with other scores.
@Suite(.enabled(if: GPU.isPresent, GPU.absence)) struct CUDASelectedPagesTests {
    @Test(arguments: SelectedPagesFixture.Case.all(.bfloat16)) func matchesPlannedPages(
        _ test: SelectedPagesFixture.Case
    ) throws {
        #expect(try SelectedPagesFixture(test, on: GPU.device).mismatches { run in run } == [])
    }

    @Test(arguments: SelectedPagesFixture.Case.all(.bfloat16)) func replays(_ test: SelectedPagesFixture.Case) throws {
        let device = try GPU.makeDevice()
        let mismatches = try SelectedPagesFixture(test, on: device).mismatches { run in
            // Once outside the graph, so that kernels are loaded.
            try run()
            try device.synchronize()
            let graph = try #require(try device.capture { () throws(FlashInferError) in try run() })
            return { try graph.replay() }
        }
        #expect(mismatches == [])
    }
}
