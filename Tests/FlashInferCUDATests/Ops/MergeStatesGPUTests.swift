import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Merging of states on the GPU, against the formula in float64.
@Suite(.enabled(if: OpsGPU.isThere, "no CUDA device")) struct MergeStatesGPUTests {
    private let gpu = GPUScope()

    @Test(arguments: GPUTypes.all, [0, 1, 2, 5, 19])
    func mergesStates(types: GPUTypes, states: Int) throws {
        let (rows, heads) = (7, 3)
        var random = OpsRandom(51)
        for (width, padding) in [(40, 0), (128, 0), (128, 8), (111, 0), (1, 0), (8, 0), (3_000, 0)] {
            let count = states * rows * heads
            let lse = (0..<count).map { index in
                // Row 0 is empty in all states, row 1 in the first; empty states hold NaN.
                index % (rows * heads) < heads || index < 2 * heads ? -Double.infinity : random.normal() * 20
            }
            let values = (0..<count * width).map { lse[$0 / width] == -.infinity ? Double.nan : random.normal() }
            let input = try gpu.tensor(types.first, [states, rows, heads, width], padding: padding, values: values)
            let sums = try gpu.tensor(.float32, [states, rows, heads], padding: 2, values: lse)
            let output = try gpu.tensor(types.output, [rows, heads, width], padding: padding)
            let merged = try gpu.tensor(.float32, [rows, heads], padding: 1)
            try runOnGPU(
                .mergeStates(
                    MergeStatesOperation(
                        values: input.view, logSumExp: sums.view, output: output.view, mergedLogSumExp: merged.view)))
            check(
                try output.fetch(), try merged.fetch(), values: input.host.values, lse: sums.host.values,
                rows: rows * heads, width: width, output: types.output)
            #expect(output.host.paddingIsIntact && merged.host.paddingIsIntact)
        }
    }

    private func check(
        _ output: [Double], _ merged: [Double], values: [Double], lse: [Double], rows: Int, width: Int,
        output type: DType
    ) {
        let states = lse.count / rows
        let rounding = type == .float32 ? 0x1p-21 : type == .float16 ? 0x1p-11 : 0x1p-8
        for row in 0..<rows {
            let all = (0..<states).map { lse[$0 * rows + row] }
            let top = all.max() ?? -.infinity
            let weights = all.map { top == -.infinity ? 0 : ElementaryFunctions.pow(2, $0 - top) }
            let sum = weights.reduce(0, +)
            let expected = sum == 0 ? -Double.infinity : top + ElementaryFunctions.log2(sum)
            #expect(merged[row] == expected || abs(merged[row] - expected) <= 1e-6 * max(1, abs(expected)))
            for d in 0..<width {
                var (total, largest) = (0.0, 0.0)
                for state in 0..<states where weights[state] > 0 {
                    let value = values[(state * rows + row) * width + d]
                    total += weights[state] * value
                    largest = max(largest, abs(value))
                }
                let value = sum == 0 ? 0 : total / sum
                if !(abs(output[row * width + d] - value) <= rounding * max(largest, abs(value))) {
                    Issue.record("row \(row), element \(d): \(output[row * width + d]), exactly \(value)")
                }
            }
        }
    }

    /// The merged state over the first of the states, of which every thread reads the LSE.
    @Test func mergesInPlace() throws {
        let (rows, heads, width) = (5, 2, 72)
        var random = OpsRandom(52)
        let lse = (0..<2 * rows * heads).map { _ in random.normal() * 3 }
        let values = try gpu.tensor(
            .float32, [2, rows, heads, width], values: random.normals(2 * rows * heads * width))
        let sums = try gpu.tensor(.float32, [2, rows, heads], values: lse)
        let (old, oldSums) = (values.host.values, sums.host.values)
        try runOnGPU(
            .mergeStates(
                MergeStatesOperation(
                    values: values.view, logSumExp: sums.view, output: values.view.select(0),
                    mergedLogSumExp: sums.view.select(0))))
        let count = rows * heads
        check(
            Array(try values.fetch().prefix(count * width)), Array(try sums.fetch().prefix(count)), values: old,
            lse: oldSums, rows: count, width: width, output: .float32)
        #expect(values.host.values.suffix(count * width) == old.suffix(count * width))
        #expect(sums.host.values.suffix(count) == oldSums.suffix(count))
    }
}
