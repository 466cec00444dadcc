import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

@Suite struct LogitsOperationTests {
    @Test(arguments: instructionSets)
    func softmax(set: InstructionSet) throws {
        let ops = makeOps(set)
        var random = OpsRandom(6)
        let temperatures: [Float] = [0.5, 1, 3]
        try forEachCase { types, width, padding in
            let input = try OpsTensor(
                types.first, [3, width], padding: padding, values: random.normals(3 * width, scale: 4))
            if width > 1 { input[width + 1] = -.infinity }
            let output = try OpsTensor(types.output, [3, width], padding: padding)
            let status = try OpsTensor(.uint8, [3])
            let operation = SoftmaxOperation(
                input: input.view, output: output.view, status: status.view, temperatures: temperatures)
            try operation.validate()
            ops.execute(operation)
            let oracle = OpsOracle.softmax(
                input.values, width: width, temperatures: temperatures, output: types.output)
            // float16 has no numbers below 2^-25; an error of half its least step is its own.
            let floored = zip(oracle.exact, output.values).map { abs($0 - $1) < 0x1p-24 ? $1 : $0 }
            #expect(
                firstOutlier(
                    output.values, exact: types.output == .float32 ? oracle.exact : floored,
                    reference: oracle.reference,
                    width: width, dtype: types.output) == nil, "\(types), width \(width)")
            #expect(status.values == [0, 0, 0] && output.paddingIsIntact)
        }
    }

    @Test(arguments: instructionSets)
    func rowsWithoutADistribution(set: InstructionSet) throws {
        let ops = makeOps(set)
        for width in [1, 9, 40, 1_100] {
            for place in [0, width / 2, width - 1] {
                let input = try OpsTensor(
                    .float32, [4, width], padding: 3, values: [Double](repeating: 1, count: 4 * width))
                input[place] = .nan
                for index in 0..<width { input[width + index] = -.infinity }
                input[2 * width + place] = .infinity
                let output = try OpsTensor(.float32, [4, width])
                let status = try OpsTensor(.uint8, [4])
                ops.execute(SoftmaxOperation(input: input.view, output: output.view, status: status.view))
                #expect(status.values == [1, 2, 3, 0])
                #expect(output.values[..<(3 * width)].allSatisfy { $0 == 0 })

                let tokens = try OpsTensor(.int32, [4])
                ops.execute(ArgmaxOperation(input: input.view, output: tokens.view, status: status.view))
                #expect(status.values == [1, 2, 0, 0])
                #expect(tokens.values == [-1, -1, Double(place), 0])

                let ids = try OpsTensor(.int32, [4], values: [0, 0, 0, 0])
                let logs = try OpsTensor(.float32, [4])
                ops.execute(
                    LogProbabilityOperation(logits: input.view, ids: ids.view, output: logs.view, status: status.view))
                #expect(status.values == [1, 2, 3, 0])
                #expect(logs.values[..<3].allSatisfy { $0.isNaN })
                #expect(abs(logs[3] + log(Double(width))) < 1e-5)
            }
        }
    }

    @Test(arguments: instructionSets)
    func argmaxTakesTheFirstOfTheGreatest(set: InstructionSet) throws {
        let ops = makeOps(set)
        var random = OpsRandom(7)
        for types in TypeCase.all {
            for width in widths + [1_025, 5_000] {
                // Few distinct values, so that the greatest occurs many times.
                let values = (0..<3 * width).map { _ in (random.uniform() * 5).rounded(.down) - 4 }
                let input = try OpsTensor(types.first, [3, width], padding: 5, values: values)
                let output = try OpsTensor(.int32, [3])
                let status = try OpsTensor(.uint8, [3])
                let operation = ArgmaxOperation(input: input.view, output: output.view, status: status.view)
                try operation.validate()
                ops.execute(operation)
                for row in 0..<3 {
                    let x = (0..<width).map { input[row * width + $0] }
                    #expect(Int(output[row]) == x.firstIndex(of: x.max() ?? 0))
                }
            }
        }
    }

    @Test(arguments: instructionSets)
    func logProbability(set: InstructionSet) throws {
        let ops = makeOps(set)
        var random = OpsRandom(8)
        for types in TypeCase.all {
            for width in widths {
                let logits = try OpsTensor(
                    types.first, [3, width], padding: 1, values: random.normals(3 * width, scale: 4))
                let ids = try OpsTensor(.int32, [3], values: [0, Double(width / 2), Double(width - 1)])
                let output = try OpsTensor(.float32, [3])
                let status = try OpsTensor(.uint8, [3])
                let operation = LogProbabilityOperation(
                    logits: logits.view, ids: ids.view, output: output.view, status: status.view, temperatures: [2])
                try operation.validate()
                ops.execute(operation)
                for row in 0..<3 {
                    let x = (0..<width).map { logits[row * width + $0] / 2 }
                    let exact = x[Int(ids[row])] - log(x.reduce(0) { $0 + exp($1) })
                    #expect(abs(output[row] - exact) <= 1e-6 * max(1, abs(exact)))
                }
            }
        }
    }

    @Test func badArgumentsAreNamed() throws {
        let x = try OpsTensor(.float32, [2, 8])
        let status = try OpsTensor(.uint8, [2])
        #expect(throws: FlashInferError.self) {
            try SoftmaxOperation(input: x.view, output: x.view, status: status.view, temperatures: [1, 0]).validate()
        }
        #expect(throws: FlashInferError.lengthMismatch("temperatures", found: 3, expected: 2)) {
            try SoftmaxOperation(input: x.view, output: x.view, status: status.view, temperatures: [1, 1, 1])
                .validate()
        }
        #expect(throws: FlashInferError.self) {
            try ArgmaxOperation(input: x.view, output: status.view, status: status.view).validate()
        }
        let empty = try OpsTensor(.float32, [2, 0])
        let tokens = try OpsTensor(.int32, [2])
        #expect(throws: FlashInferError.self) {
            try ArgmaxOperation(input: empty.view, output: tokens.view, status: status.view).validate()
        }
    }
}
