import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

/// Latent attention on every instruction set of this machine, against the float64 oracle.
@Suite struct MLATests {
    @Test(arguments: MLACase.matrix + MLACase.large + MLACase.reduced) func matrix(_ test: MLACase) throws {
        let fixture = try MLAFixture(test)
        let expected = fixture.oracle.evaluate()
        for (index, device) in AttentionConformanceTests.devices.enumerated() {
            let mode: Planner.Mode =
                (index + Int(test.seed)) % 2 == 0 ? .balanced : .batchInvariant(splitSize: 256)
            let found = try fixture.run(on: device, mode: mode, processors: 1 + Int(test.seed) % 3)
            // One part's scale is multiplied in float32, so products are of float32.
            expectClose(found, expected, fixture.problem, device)
        }
    }

    @Test func whatIsNotSupportedIsSaidWhenPlanned() throws {
        let device = CPUDevice(threads: 1)
        let geometry = try BatchGeometry.paged(
            pageIndptr: [0, 1], pageIndices: [0], kvLengths: [3], pageSize: 4, pageCount: 1)
        let shape = try AttentionShape.latent(queryHeads: 16)
        #expect(throws: FlashInferError.self) {
            try AttentionProblem(
                geometry: geometry, shape: shape, variant: AttentionVariant(mask: .causal), queryType: .bfloat16,
                kvType: .bfloat16)
        }
        let windowed = try AttentionProblem(
            geometry: geometry, shape: shape, variant: AttentionVariant(windowLeft: 2, scale: 1), queryType: .bfloat16,
            kvType: .bfloat16)
        #expect {
            try device.kernelTraits(for: windowed)
        } throws: {
            if case .unsupported = $0 as? FlashInferError { true } else { false }
        }
        #expect(
            throws: FlashInferError.invalidRequest(
                0, argument: "kv length", found: 5, expected: "in 0 ... 4, what its pages hold")
        ) {
            try BatchGeometry.paged(
                pageIndptr: [0, 1], pageIndices: [0], kvLengths: [5], pageSize: 4, pageCount: 1)
        }
    }
}
