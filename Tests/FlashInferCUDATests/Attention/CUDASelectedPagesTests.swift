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

    @Test(arguments: SelectedPlacesFixture.Case.all(.bfloat16) + SelectedPlacesFixture.Case.all(.float16))
    func matchesDenseAttentionWithAMask(_ test: SelectedPlacesFixture.Case) throws {
        #expect(try SelectedPlacesFixture(test, on: GPU.device).mismatches { run in run } == [])
    }

    @Test(arguments: SelectedPlacesFixture.Case.all(.bfloat16).prefix(4))
    func replaysWithPlaces(_ test: SelectedPlacesFixture.Case) throws {
        let device = try GPU.makeDevice()
        let mismatches = try SelectedPlacesFixture(test, on: device).mismatches { run in
            try run()
            try device.synchronize()
            let graph = try #require(try device.capture { () throws(FlashInferError) in try run() })
            return { try graph.replay() }
        }
        #expect(mismatches == [])
    }

    @Test(arguments: [DType.float16, .bfloat16, .float8E4M3, .float8E5M2, .int8], [24, 5])
    func boundsFollowAppends(_ type: DType, dim: Int) throws {
        let device = try GPU.makeDevice()
        let mismatches = try PageBoundsFixture(type, dim: dim, on: device).mismatches { run in
            try run()
            try device.synchronize()
            let graph = try #require(try device.capture { () throws(FlashInferError) in try run() })
            return { try graph.replay() }
        }
        #expect(mismatches == [])
    }

    /// More pages than blocks, and heads of lengths that are no whole fours of chunks.
    @Test(arguments: [8, 40, 128, 256]) func scoresManyPages(dim: Int) throws {
        let test = SelectedPlacesFixture.Case(
            .bfloat16, pageSize: 1, .causal, hasHeadTables: dim == 40, keyPositions: .sequential, group: 5, dim: dim,
            lengths: [900, 33, 500, 2_100])
        #expect(try SelectedPlacesFixture(test, on: GPU.device).mismatches { run in run } == [])
    }

    @Test func boundsKeysOf8Bits() throws {
        let test = SelectedPlacesFixture.Case(
            .bfloat16, kvType: .float8E4M3, pageSize: 8, .causal, keyPositions: .sequential)
        #expect(try SelectedPlacesFixture(test, on: GPU.device).mismatches { run in run } == [])
    }
}
