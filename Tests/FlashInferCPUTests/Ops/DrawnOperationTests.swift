import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

/// Operations on rows drawn from seeds, against their definitions. `FLASHINFER_TEST_SEEDS=1000-5000` takes others.
@Suite struct DrawnOperationTests {
    @Test func draws() throws {
        for seed in TestEnvironment.seeds(0..<60) {
            let test = try DrawnRows(from: seed, widest: 70_000)
            let ops = makeOps(instructionSets[Int(seed) % instructionSets.count], threads: 1 + Int(seed % 3))
            let count = test.rows.count
            let (tokens, status) = (try OpsTensor(.int32, [count]), try OpsTensor(.uint8, [count]))
            let operation = SampleOperation(
                test.input.view, as: test.form, tokens: tokens.view, status: status.view, rows: test.rows,
                order: test.order)
            try operation.validate()
            ops.execute(operation)
            for row in 0..<count {
                if let problem = test.problem(row, token: Int(tokens[row]), status: Int(status[row])) {
                    Issue.record("seed \(seed): \(problem): \(test)")
                }
            }
            #expect(tokens.paddingIsIntact && status.paddingIsIntact)
        }
    }

    @Test func filters() throws {
        for seed in TestEnvironment.seeds(0..<40) {
            let test = try DrawnRows(from: seed &+ 1 << 40, widest: 5_000)
            let ops = makeOps(instructionSets[Int(seed) % instructionSets.count], threads: 1 + Int(seed % 3))
            let (count, width) = (test.rows.count, test.input.view.shape[1])
            let output = try OpsTensor(test.input.view.dtype, [count, width], padding: Int(seed % 4))
            let status = try OpsTensor(.uint8, [count])
            let operation = FilterOperation(
                test.input.view, as: test.form, output: output.view, status: status.view, rows: test.filters,
                order: test.order)
            try operation.validate()
            ops.execute(operation)
            #expect(output.paddingIsIntact && status.paddingIsIntact)
            for row in 0..<count {
                let x = test.values(row), found = (0..<width).map { output[row * width + $0] }
                var expected = test.status(row)
                if x.contains(.infinity), expected == .ok { expected = .infinite }
                #expect(Int(status[row]) == Int(expected.rawValue), "seed \(seed), row \(row): \(test)")
                guard expected == .ok else {
                    let isRight =
                        test.form == .probabilities
                        ? found.allSatisfy { $0 == 0 } : zip(found, x).allSatisfy { $0 == $1 || ($0.isNaN && $1.isNaN) }
                    #expect(isRight, "seed \(seed), row \(row) of no distribution: \(test)")
                    continue
                }
                var filter = test.rows[row]
                filter.temperature = test.filters[row].temperature
                let oracle = SamplingOracle(x, filter, joint: test.order == .joint, form: test.form)
                for (place, y) in found.enumerated() where !oracle.isBorderline.contains(true) {
                    let isKept = oracle.weights[place] > 0
                    let isRight: Bool
                    if test.form == .logits {
                        // Weights of a low temperature may be no number of float64.
                        isRight =
                            y == (isKept ? x[place] : -.infinity) || (!isKept && filter.minP == 0 && y == x[place])
                    } else {
                        let p = oracle.probabilities[place]
                        isRight = isKept ? abs(y - p) <= 4e-6 * p + 1e-38 : y == 0
                    }
                    if !isRight {
                        Issue.record(
                            "seed \(seed), row \(row), place \(place): \(y) of \(x[place]), \(filter): \(test)")
                        break
                    }
                }
            }
        }
    }

    @Test func rowsOfEverything() throws {
        for seed in TestEnvironment.seeds(0..<60) {
            let device = CPUDevice(
                threads: 1 + Int(seed % 3), instructionSet: instructionSets[Int(seed) % instructionSets.count])
            if let problem = try DrawnOperation.problem(from: seed, on: .host(device)) {
                Issue.record("seed \(seed): \(problem)")
            }
        }
    }
}
