import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

/// Sampling from probabilities, and what filters leave of rows.
@Suite struct ProbabilitySamplingTests {
    /// Probabilities of `width` tokens that sum to `sum`.
    private func probabilities(_ width: Int, _ random: inout OpsRandom, scale: Double = 2, sum: Double = 1) -> [Double]
    {
        let weights = random.normals(width, scale: scale).map { ElementaryFunctions.exp($0) }
        let total = weights.reduce(0, +)
        return weights.map { Double(Float($0 / total * sum)) }
    }

    /// Filters on probabilities: those of logits at temperature 1.
    static func filters(width: Int) -> [SampleOperation.Row] {
        SamplingTests.filters(width: width).map {
            var row = $0
            row.temperature = 1
            return row
        }
    }

    @Test(arguments: instructionSets, [SampleOperation.FilterOrder.topKFirst, .joint])
    func everyDrawIsTheDefinitions(set: InstructionSet, order: SampleOperation.FilterOrder) throws {
        let ops = makeOps(set)
        var random = OpsRandom(61)
        for (width, sum) in [(1, 1.0), (2, 3), (7, 1), (111, 0.4), (129, 1e-30), (1_500, 1e30)] {
            var values = probabilities(width, &random, sum: sum)
            if width > 7 { values[3] = 0 }
            let input = try OpsTensor(.float32, [1, width], padding: 6, lead: 1, values: values)
            for filter in Self.filters(width: width) {
                let rows = filter.at(steps: 0..<3)
                let drawn = try ops.draw(input.view, as: .probabilities, rows, order: order)
                let oracle = SamplingOracle(input.values, filter, joint: order == .joint, form: .probabilities)
                #expect(drawn.status == [0, 0, 0])
                for (row, token) in zip(rows, drawn.tokens) {
                    #expect(oracle.accepts(token, of: row), "token \(token), width \(width), \(row)")
                }
            }
        }
    }

    @Test(arguments: instructionSets)
    func badRowsHaveAStatus(set: InstructionSet) throws {
        let ops = makeOps(set)
        for width in [1, 9, 700] {
            for place in [0, width / 2, width - 1] {
                let input = try OpsTensor(
                    .float32, [5, width], padding: 1, values: [Double](repeating: 0.25, count: 5 * width))
                input[place] = .nan
                for index in 0..<width { input[width + index] = 0 }
                input[2 * width + place] = .infinity
                input[3 * width + place] = -1e-30
                for topK in [0, 1, 5] {
                    let rows = [SampleOperation.Row](repeating: .init(topK: topK, seed: 1, step: 0), count: 5)
                    let drawn = try ops.draw(input.view, as: .probabilities, rows)
                    #expect(drawn.status == [1, 2, 3, 4, 0] && drawn.tokens[..<4].allSatisfy { $0 == -1 })
                    #expect((0..<width).contains(drawn.tokens[4]))
                }
                // Greedy takes +inf for the greatest.
                let greedy = [SampleOperation.Row](repeating: .init(temperature: 0, seed: 1, step: 0), count: 5)
                let drawn = try ops.draw(input.view, as: .probabilities, greedy)
                #expect(drawn.status == [1, 2, 0, 4, 0] && drawn.tokens == [-1, -1, place, -1, 0])
                // Filters: zeros, and the sound row evenly.
                let (output, status) = (try OpsTensor(.float32, [5, width]), try OpsTensor(.uint8, [5]))
                ops.execute(
                    FilterOperation(
                        input.view, as: .probabilities, output: output.view, status: status.view, rows: [.init()]))
                #expect(status.values == [1, 2, 3, 4, 0])
                #expect(output.values[..<(4 * width)].allSatisfy { $0 == 0 })
                #expect(output.values[(4 * width)...].allSatisfy { abs($0 - 1 / Double(width)) < 1e-7 })
            }
        }
    }

    @Test(arguments: [DistributionForm.logits, .probabilities], [SampleOperation.FilterOrder.topKFirst, .joint])
    func filtersKeepWhatCouldBeDrawn(form: DistributionForm, order: SampleOperation.FilterOrder) throws {
        var random = OpsRandom(62)
        for set in instructionSets {
            let ops = makeOps(set)
            for width in [1, 2, 7, 111, 129, 1_500] {
                for dtype in form == .logits ? DType.computeType : [.float32] {
                    var values =
                        form == .logits ? random.normals(width, scale: 3) : probabilities(width, &random, sum: 0.7)
                    // Ties, and an entry that cannot be drawn.
                    if width > 7 { (values[5], values[2]) = (values[1], form == .logits ? -.infinity : 0) }
                    let input = try OpsTensor(dtype, [1, width], padding: 3, values: values)
                    for filter in Self.filters(width: width) {
                        let output = try OpsTensor(dtype, [1, width], padding: 1)
                        let status = try OpsTensor(.uint8, [1])
                        let operation = FilterOperation(
                            input.view, as: form, output: output.view, status: status.view,
                            rows: [.init(topK: filter.topK, topP: filter.topP, minP: filter.minP)], order: order)
                        try operation.validate()
                        ops.execute(operation)
                        let oracle = SamplingOracle(input.values, filter, joint: order == .joint, form: form)
                        #expect(status.values == [0] && output.paddingIsIntact)
                        let sum = form == .logits ? 0 : output.values.reduce(0, +)
                        if form == .probabilities { #expect(abs(sum - 1) < 1e-5) }
                        for (place, found) in output.values.enumerated() where !oracle.isBorderline.contains(true) {
                            let kept = oracle.weights[place] > 0
                            if form == .probabilities {
                                #expect(
                                    abs(found - (kept ? oracle.probabilities[place] : 0)) <= 2e-6
                                        * oracle.probabilities[place])
                            } else if oracle.weights[place] > 0 {
                                #expect(found == input[place])
                            } else {
                                #expect(found == -.infinity)
                            }
                        }
                        // In place, bit for bit.
                        let copy = try OpsTensor(dtype, [1, width], values: values)
                        var inPlace = operation
                        (inPlace.input, inPlace.output) = (copy.view, copy.view)
                        try inPlace.validate()
                        ops.execute(inPlace)
                        #expect((0..<width).allSatisfy { copy.bits($0) == output.bits($0) })
                    }
                }
            }
        }
    }

    /// Chi-square of many draws against exact probabilities. `FLASHINFER_TEST_DRAWS` sets the number of draws of each case: 5,000,000
    /// is the long form, minutes on two cores.
    @Test(arguments: [DistributionForm.logits, .probabilities])
    func frequenciesFollowTheProbabilities(form: DistributionForm) throws {
        let ops = makeOps(.detected)
        var random = OpsRandom(63)
        for (width, usual) in [(7, 20_000), (111, 20_000), (32_000, 1_000), (128_256, 400), (201_088, 300)] {
            let draws = TestEnvironment.draws ?? usual
            let values = form == .logits ? random.normals(width, scale: 2) : probabilities(width, &random)
            let input = try OpsTensor(.float32, [1, width], values: values)
            for (topK, topP, minP) in [(0, Float(1), Float(0)), (5, 1, 0), (0, 0.9, 0), (0, 1, 0.2), (50, 0.8, 0.01)] {
                let filter = SampleOperation.Row(topK: topK, topP: topP, minP: minP, seed: 71, step: 0)
                let probabilities = SamplingOracle(input.values, filter, form: form).probabilities
                var tokens: [Int] = []
                while tokens.count < draws {
                    let rows = filter.at(steps: tokens.count..<min(draws, tokens.count + 100_000))
                    tokens += try ops.draw(input.view, as: form, rows).tokens
                }
                #expect(SamplingOracle.follows(tokens, probabilities), "\(width), \(filter)")
            }
        }
    }

    @Test func packedParametersAreTheHosts() throws {
        let ops = makeOps(.detected)
        var random = OpsRandom(64)
        let width = 300
        let input = try OpsTensor(.float32, [4, width], values: random.normals(4 * width, scale: 2))
        let rows = (0..<4).map {
            SampleOperation.Row(
                temperature: 0.25 * Float($0), topK: 20 * $0, topP: 0.9, minP: 0.01, seed: 1 << 40, step: UInt64($0))
        }
        let packed = try OpsTensor(
            .uint8, [4, 32], values: SampleOperation.Row.packed(rows).map { Double($0) })
        let (tokens, status) = (try OpsTensor(.int32, [4]), try OpsTensor(.uint8, [4]))
        var operation = SampleOperation(logits: input.view, tokens: tokens.view, status: status.view, rows: rows)
        try operation.validate()
        ops.execute(operation)
        let expected = tokens.values
        (operation.rows, operation.packedRows) = ([], packed.view)
        try operation.validate()
        ops.execute(operation)
        #expect(tokens.values == expected)
        operation.rows = rows
        #expect(throws: FlashInferError.lengthMismatch("rows", found: 4, expected: 0)) { try operation.validate() }
    }

    @Test func badArgumentsAreNamed() throws {
        let input = try OpsTensor(.float32, [2, 8])
        let half = try OpsTensor(.float16, [2, 8])
        let (tokens, status) = (try OpsTensor(.int32, [2]), try OpsTensor(.uint8, [2]))
        let row = SampleOperation.Row(seed: 0, step: 0)
        #expect(throws: FlashInferError.invalidArgument("probabilities", found: "float16", expected: "float32")) {
            try SampleOperation(
                probabilities: half.view, tokens: tokens.view, status: status.view, rows: [row, row]
            ).validate()
        }
        #expect(throws: FlashInferError.self) {
            try SampleOperation(
                probabilities: input.view, tokens: tokens.view, status: status.view,
                rows: [row, .init(temperature: 0.5, seed: 0, step: 0)]
            ).validate()
        }
        for rows in [[], [FilterOperation.Row(topP: -0.1)], [.init(temperature: 0)], [.init(), .init(), .init()]] {
            #expect(throws: FlashInferError.self) {
                try FilterOperation(
                    input.view, as: .logits, output: input.view, status: status.view, rows: rows
                ).validate()
            }
        }
        #expect(throws: FlashInferError.self) {
            try FilterOperation(input.view, as: .logits, output: half.view, status: status.view, rows: [.init()])
                .validate()
        }
    }
}

extension DType {
    /// The types of activations.
    static let computeType: [DType] = [.float32, .float16, .bfloat16]
}
