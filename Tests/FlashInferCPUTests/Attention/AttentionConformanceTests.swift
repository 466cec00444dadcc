import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

/// Every case of the matrix on every instruction set of this machine, against the float64 oracle.
@Suite struct AttentionConformanceTests {
    static let devices = InstructionSet.allCases.filter(\.isAvailable).map {
        CPUDevice(threads: 2, instructionSet: $0)
    }

    @Test(arguments: AttentionCase.matrix) func matrix(_ test: AttentionCase) throws {
        let fixture = try AttentionFixture(test)
        let expected = fixture.oracle.evaluate()
        for (index, device) in Self.devices.enumerated() {
            // Instruction sets share the driver, so the ways to cut work are spread over them.
            let found = try fixture.run(
                on: device, mode: Self.mode(index, test), processors: 1 + Int(test.seed) % 3)
            expectClose(found, expected, fixture.problem, device)
        }
    }

    @Test(arguments: AttentionCase.large) func large(_ test: AttentionCase) throws {
        let fixture = try AttentionFixture(test)
        let expected = fixture.oracle.evaluate()
        for device in Self.devices {
            for mode in [Planner.Mode.balanced, .unsplit, .batchInvariant(splitSize: 128)] {
                expectClose(try fixture.run(on: device, mode: mode), expected, fixture.problem, device)
            }
        }
    }

    private static func mode(_ index: Int, _ test: AttentionCase) -> Planner.Mode {
        switch (index + Int(test.seed)) % 3 {
        case 0: .balanced
        case 1: .unsplit
        default: .batchInvariant(splitSize: 128)
        }
    }
}

/// Compares with what the instruction set's work format allows.
func expectClose(
    _ found: AttentionResult, _ expected: AttentionOracle.Result, _ problem: AttentionProblem,
    _ device: CPUDevice, sourceLocation: SourceLocation = #_sourceLocation
) {
    let isNarrow =
        device.instructionSet == .avx512BF16 && [.bfloat16, .float8E4M3].contains(problem.queryType)
        && problem.kvType != .float32 && problem.kvType != .float16
    let mismatch = AttentionTolerance(products: isNarrow ? .bfloat16 : .float32).mismatch(found, expected, problem)
    #expect(mismatch == nil, "\(device.name)", sourceLocation: sourceLocation)
}
