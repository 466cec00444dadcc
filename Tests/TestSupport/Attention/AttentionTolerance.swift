package import FlashInferCore

/// What a run gives, as float64.
package struct AttentionResult: Equatable {
    /// `[tokens, heads, headDimVO]`
    package var output: [Double]
    /// `[tokens, heads]`, base 2.
    package var logSumExp: [Double]

    /// A result.
    package init(output: [Double], logSumExp: [Double]) {
        (self.output, self.logSumExp) = (output, logSumExp)
    }
}

/// How far a kernel may be from the oracle, from the formats that it works in.
///
/// Each weight of a row carries a relative error: its rounding to the type in which it meets the values, and its score's error,
/// which for scores of magnitude below 2^5 is 2^5 · 2^−24 · a few in float32, more for sums of more than 256 terms. An output is off by at most that times Σ w|v|, plus
/// its own rounding; twice that is allowed. Weights in float16 lose what is below 2^−24 besides. Rotated queries and keys are
/// rounded to the type of the products once more: each of the D terms of a score is off by 2^−9 of itself at random (2^−12 for
/// float16), a score by scale · √D · 2^−9, and of a million scores the worst by five times that, hence 2^−6. The terms of a score as
/// large as L are L / √D in the mean, so their squares sum to 1 + L² / D times as much.
///
/// Weights in e4m3 are off by up to 2^−4 of themselves, at random: evenly spread that is 2^−4 / √3 in the mean square, and of a million
/// outputs the worst is off by six times that of √(Σ (w v)²), or by 2^−4 of Σ w|v| where a few weights are all. Scaled by 2^7 relative
/// to a reference that the largest may exceed, they lose what is below 2^−17 of the largest. Tensor cores of 8 bits cut sums to 13 bits
/// below the largest with each product of 32 elements: a score D / 32 times by 2^−13 of a sum that may have been four times as large
/// on its way, an output once for each of the at most 64 products until sums are ended, half a unit each in the mean.
package struct AttentionTolerance: Sendable {
    /// The type that weights, and rotated queries and keys, are rounded to before a product.
    package var products: DType

    /// Tolerances of kernels whose products take `products`: bfloat16, float16 and float8 e4m3 on tensor cores, float32 elsewhere.
    package init(products: DType) { self.products = products }

    /// The worst disagreement in words; `nil` where all is within what is allowed.
    package func mismatch(
        _ found: AttentionResult, _ expected: AttentionOracle.Result, _ problem: AttentionProblem
    ) -> String? {
        guard found.output.count == expected.output.count, found.logSumExp.count == expected.logSumExp.count else {
            return "\(found.output.count) elements, expected \(expected.output.count)"
        }
        let width = problem.shape.headDimVO
        let rounding = problem.outputType == .float32 ? 0x1p-24 : problem.outputType == .float16 ? 0x1p-11 : 0x1p-8
        var (worst, excess) = ("", 1.0)
        // How many are out, and between which: what a kernel forgot shows by its shape.
        var (count, first, last) = (0, 0, 0)
        func note(_ index: Int, _ error: Double, _ limit: Double, _ text: @autoclosure () -> String) {
            // NaN is worse than anything.
            let ratio = error.isNaN ? .infinity : error / limit
            guard !(ratio <= 1) else { return }
            if count == 0 { first = index }
            last = index
            count += 1
            if ratio > excess || worst.isEmpty { (worst, excess) = (text(), ratio) }
        }
        for (index, value) in expected.output.enumerated() {
            let (magnitude, energy) = (expected.magnitude[index], expected.energy[index])
            let random = products == .float8E4M3 ? 6 / 3.0.squareRoot() * weightError * energy : .infinity
            let weights = min(weightError * magnitude, random)
            let sums = (scoreError(problem, expected.largestScore[index / width]) + sumError) * magnitude
            let limit = 2 * (weights + sums + lost * expected.spread[index] + rounding * abs(value)) + 1e-7
            note(
                index, abs(found.output[index] - value), limit,
                "output[\(place(index / width, problem)), d \(index % width)] is \(found.output[index]), "
                    + "expected \(value) ± \(limit)")
        }
        for (index, value) in expected.logSumExp.enumerated() {
            let limit = 2 * (scoreError(problem, expected.largestScore[index]) + 0x1p-22 * abs(value))
            let lse = found.logSumExp[index]
            let error = value == -.infinity ? (lse == value ? 0 : .infinity) : abs(lse - value)
            note(
                expected.output.count + index, error, limit,
                "lse[\(place(index, problem))] is \(lse), expected \(value) ± \(limit)")
        }
        guard count > 0 else { return nil }
        return "\(worst) (\(excess) times what is allowed; \(count) are out, of elements \(first)...\(last), "
            + "rows of \(width))"
    }

    /// A row in words, so that a report says which request, query and head failed.
    private func place(_ row: Int, _ problem: AttentionProblem) -> String {
        let (token, head) = row.quotientAndRemainder(dividingBy: problem.shape.queryHeads)
        let starts = problem.geometry.queryIndptr
        let request = (starts.lastIndex { Int($0) <= token } ?? 0)
        return "request \(request), query \(token - Int(starts[request])), head \(head)"
    }

    private var weightError: Double {
        switch products {
        case .float32: 0x1p-22
        case .float16: 0x1p-12
        case .float8E4M3: 0x1p-4
        default: 0x1p-9
        }
    }

    private var sumError: Double { products == .float8E4M3 ? 0x1p-8 : 0 }

    private var lost: Double { products == .float16 ? 0x1p-25 : products == .float8E4M3 ? 0x1p-17 : 0 }

    private func scoreError(_ problem: AttentionProblem, _ largest: Double) -> Double {
        let steps = Double((problem.shape.headDimQK + 31) / 32)
        let single =
            products == .float8E4M3
            ? steps * 0x1p-11 * max(largest, 1) : max(1, steps / 8) * max(0x1p-16, 0x1p-21 * largest)
        guard case .rope = problem.variant.positionEncoding, products != .float32 else { return single }
        let width = Double(problem.shape.headDimQK).squareRoot()
        let scale = problem.variant.scale.map { Double(abs($0)) } ?? 1 / width
        let growth = (1 + largest * largest / Double(problem.shape.headDimQK)).squareRoot()
        return max(1, scale * width) * growth * (products == .float16 ? 0x1p-9 : 0x1p-6)
    }
}
