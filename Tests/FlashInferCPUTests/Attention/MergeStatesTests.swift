import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

/// Merging of states, against the formula in float64.
@Suite struct MergeStatesTests {
    private static let kernels = InstructionSet.allCases.filter(\.isAvailable).map {
        CPUAttention(pool: ThreadPool(threads: 2), isa: $0)
    }

    @Test(arguments: [DType.float32, .float16, .bfloat16], [1, 2, 5])
    func mergesStates(_ type: DType, _ states: Int) throws {
        let (rows, heads, width) = (7, 3, 40)
        var g = SeededGenerator(seed: 3)
        let values = try AttentionTensor(type, [states, rows, heads, width])
        let lse = try AttentionTensor(.float32, [states, rows, heads])
        for index in 0..<lse.view.elementCount {
            // Row 0 is empty in all states, row 1 in the first; empty states hold NaN.
            let isEmpty = index % (rows * heads) < heads || index < 2 * heads
            lse.set(index, isEmpty ? -.infinity : Double(g.normal()) * 20)
            for d in 0..<width where !isEmpty { values.set(index * width + d, Double(g.normal())) }
        }
        let rounding = type == .float32 ? 0x1p-22 : type == .float16 ? 0x1p-10 : 0x1p-7
        for attention in Self.kernels {
            let output = try AttentionTensor(type, [rows, heads, width])
            let merged = try AttentionTensor(.float32, [rows, heads])
            try attention.mergeStates(
                values: values.view, logSumExp: lse.view, into: output.view, mergedLogSumExp: merged.view)
            for row in 0..<rows * heads {
                let all = (0..<states).map { lse.get($0 * rows * heads + row) }
                let top = all.max() ?? -.infinity
                let weights = all.map { top == -.infinity ? 0 : ElementaryFunctions.pow(2, $0 - top) }
                let sum = weights.reduce(0, +)
                let expected = sum == 0 ? -Double.infinity : top + ElementaryFunctions.log2(sum)
                #expect(merged.get(row) == expected || abs(merged.get(row) - expected) < 1e-5)
                for d in 0..<width {
                    var total = 0.0
                    for state in 0..<states where weights[state] > 0 {
                        total += weights[state] * values.get((state * rows * heads + row) * width + d)
                    }
                    let value = sum == 0 ? 0 : total / sum
                    #expect(abs(output.get(row * width + d) - value) <= 4 * rounding)
                }
            }
        }
    }

    /// Attention over two halves of the keys, merged, is attention over all; in place.
    @Test func mergesTwoInPlace() throws {
        let (rows, heads, width) = (3, 2, 16)
        let values = try AttentionTensor(.float32, [rows, heads, width])
        let other = try AttentionTensor(.float32, [rows, heads, width])
        let (a, b) = (try AttentionTensor(.float32, [rows, heads]), try AttentionTensor(.float32, [rows, heads]))
        for index in 0..<rows * heads {
            a.set(index, 1)
            b.set(index, 3)
            for d in 0..<width {
                values.set(index * width + d, 5)
                other.set(index * width + d, 10)
            }
        }
        for attention in Self.kernels.prefix(1) {
            try attention.mergeState(
                values: values.view, logSumExp: a.view, otherValues: other.view, otherLogSumExp: b.view,
                into: values.view, mergedLogSumExp: a.view)
            #expect(values.elements.allSatisfy { abs($0 - 9) < 1e-5 })
            #expect(a.elements.allSatisfy { abs($0 - (3 + ElementaryFunctions.log2(1.25))) < 1e-6 })
        }
    }

    @Test func namesWhatIsWrong() throws {
        let attention = try #require(Self.kernels.first)
        let values = try AttentionTensor(.float32, [2, 3, 2, 16])
        let lse = try AttentionTensor(.float32, [2, 3, 1])
        let output = try AttentionTensor(.float32, [3, 2, 16])
        #expect(
            throws: FlashInferError.invalidArgument("logSumExp", found: "of shape [2, 3, 1]", expected: "[2, 3, 2]")
        ) {
            try attention.mergeStates(values: values.view, logSumExp: lse.view, into: output.view)
        }
    }
}
