import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

/// Every case of the matrix on every instruction set of this machine, against the float64 oracle.
@Suite struct AttentionConformanceTests {
    static let kernels = InstructionSet.allCases.filter(\.isAvailable).map {
        CPUAttention(pool: ThreadPool(threads: 2), isa: $0)
    }

    @Test(arguments: AttentionCase.matrix) func matrix(_ test: AttentionCase) throws {
        let fixture = try AttentionFixture(test)
        let expected = fixture.oracle.evaluate()
        for (index, attention) in Self.kernels.enumerated() {
            // Instruction sets share the driver, so the ways to cut work are spread over them.
            let found = try fixture.run(attention, mode: Self.mode(index, test), processors: 1 + Int(test.seed) % 3)
            expectClose(found, expected, fixture.problem, attention)
        }
    }

    @Test(arguments: AttentionCase.large) func large(_ test: AttentionCase) throws {
        let fixture = try AttentionFixture(test)
        let expected = fixture.oracle.evaluate()
        for attention in Self.kernels {
            for mode in [Planner.Mode.balanced, .unsplit, .batchInvariant(splitSize: 128)] {
                expectClose(try fixture.run(attention, mode: mode), expected, fixture.problem, attention)
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

/// Compares with tolerances derived from the work format.
///
/// Each weight of a row carries a relative error: its rounding to the work format and its score's error, which for base-2
/// scores of magnitude below 2^6 is 2^6 · 2^−24 · a few in float32. An output is off by at most that times Σ w|v|, plus its
/// own rounding; twice that is allowed. Rotated bfloat16 queries and keys are rounded once more, which moves scores.
func expectClose(
    _ found: AttentionFixture.Output, _ expected: AttentionOracle.Result, _ problem: AttentionProblem,
    _ attention: CPUAttention, sourceLocation: SourceLocation = #_sourceLocation
) {
    let isNarrow =
        attention.instructionSet == .avx512BF16 && problem.queryType == .bfloat16 && problem.kvType != .float32
        && problem.kvType != .float16
    var isRotated = false
    if case .rope = problem.variant.positionEncoding { isRotated = true }
    let scoreError = isNarrow && isRotated ? 0x1p-5 : 0x1p-16
    let weightError = (isNarrow ? 0x1p-9 : 0x1p-22) + scoreError
    let rounding = problem.outputType == .float32 ? 0x1p-24 : problem.outputType == .float16 ? 0x1p-11 : 0x1p-8
    var worst = ""
    for (index, value) in expected.output.enumerated() {
        let limit = 2 * (weightError * expected.magnitude[index] + rounding * abs(value)) + 1e-7
        let error = abs(found.output[index] - value)
        if !(error <= limit) { worst = "output[\(index)] is \(found.output[index]), expected \(value) ± \(limit)" }
    }
    for (index, value) in expected.logSumExp.enumerated() {
        let (lse, limit) = (found.logSumExp[index], 2 * (scoreError + 0x1p-22 * abs(value)))
        let isClose = value == -.infinity ? lse == value : abs(lse - value) <= limit
        if !isClose { worst = "lse[\(index)] is \(lse), expected \(value) ± \(limit)" }
    }
    #expect(worst.isEmpty, "\(attention.instructionSet.name): \(worst)", sourceLocation: sourceLocation)
}
