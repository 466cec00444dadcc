import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

@Suite struct SamplingTests {
    /// Filters of every kind, and their mixes.
    static func filters(width: Int) -> [SampleOperation.Row] {
        var rows: [SampleOperation.Row] = []
        for topK in [0, 1, 2, 40, width / 2, width - 1, width, width + 5] where topK >= 0 {
            for topP in [Float(1), 0.999, 0.9, 0.3, 1e-6, 0] {
                for minP in [Float(0), 0.1, 1] {
                    rows.append(.init(temperature: 0.8, topK: topK, topP: topP, minP: minP, seed: 3, step: 0))
                }
            }
        }
        return rows
    }

    @Test(arguments: instructionSets, [SampleOperation.FilterOrder.topKFirst, .joint])
    func everyDrawIsTheDefinitions(set: InstructionSet, order: SampleOperation.FilterOrder) throws {
        let ops = makeOps(set)
        var random = OpsRandom(11)
        for width in [1, 2, 7, 111, 128, 129, 1_500] {
            for (dtype, scale) in [(DType.float32, 3.0), (.bfloat16, 0.5), (.float16, 10)] {
                let logits = try OpsTensor(dtype, [1, width], padding: 6, values: random.normals(width, scale: scale))
                if width > 7 { logits[3] = -.infinity }
                let values = logits.values
                for filter in Self.filters(width: width) {
                    let rows = filter.at(steps: 0..<3)
                    let drawn = try ops.draw(logits.view, rows, order: order)
                    let oracle = SamplingOracle(values, filter, joint: order == .joint)
                    #expect(drawn.status == [0, 0, 0])
                    for (row, token) in zip(rows, drawn.tokens) {
                        #expect(oracle.accepts(token, of: row), "token \(token), width \(width), \(row)")
                    }
                }
            }
        }
    }

    @Test(arguments: instructionSets)
    func tiesGoToTheLowestIds(set: InstructionSet) throws {
        let ops = makeOps(set)
        for width in [9, 300, 2_000] {
            // Zeros of both signs are equal; every third token is among the greatest.
            let logits = try OpsTensor(
                .float32, [1, width], values: (0..<width).map { $0 % 3 == 1 ? ($0 % 2 == 0 ? 0.0 : -0.0) : -2 })
            for topK in [1, 2, 3] {
                let rows = (0..<60).map { SampleOperation.Row(topK: topK, seed: 5, step: UInt64($0)) }
                let tokens = Set(try ops.draw(logits.view, rows).tokens)
                #expect(tokens == Set((0..<topK).map { 3 * $0 + 1 }))
            }
            // Strictly greater mass decides top-p, so all tied tokens stay.
            for topP in [Float(0.01), 0] {
                let rows = (0..<400).map { SampleOperation.Row(topP: topP, seed: 6, step: UInt64($0)) }
                let tokens = Set(try ops.draw(logits.view, rows).tokens)
                #expect(tokens.allSatisfy { $0 % 3 == 1 } && tokens.count >= min(3, width / 3))
            }
        }
    }

    @Test(arguments: instructionSets)
    func badRowsHaveAStatusAndLeaveOthersAlone(set: InstructionSet) throws {
        let ops = makeOps(set)
        let width = 700
        for place in [0, 130, width - 1] {
            let logits = try OpsTensor(
                .float32, [5, width], padding: 1, values: [Double](repeating: -1, count: 5 * width))
            logits[place] = .nan
            for index in 0..<width { logits[width + index] = -.infinity }
            logits[2 * width + place] = .infinity
            for index in 0..<width where index != place { logits[3 * width + index] = -.infinity }
            for (filter, infinite) in [
                (SampleOperation.Row(seed: 1, step: 0), 3), (.init(topK: 5, seed: 1, step: 0), 3),
                (.init(topP: 0.5, minP: 0.2, seed: 1, step: 0), 3), (.init(temperature: 0, seed: 1, step: 0), 0),
            ] {
                let drawn = try ops.draw(logits.view, [SampleOperation.Row](repeating: filter, count: 5))
                #expect(drawn.status == [1, 2, infinite, 0, 0])
                #expect(drawn.tokens[0] == -1 && drawn.tokens[1] == -1)
                #expect(drawn.tokens[2] == (infinite == 0 ? place : -1))
                #expect(drawn.tokens[3] == place)
                #expect((0..<width).contains(drawn.tokens[4]))
            }
        }
    }

    @Test(arguments: instructionSets)
    func extremeLogitsAndTemperatures(set: InstructionSet) throws {
        let ops = makeOps(set)
        let width = 300
        for values in [
            [Double](repeating: 0, count: width), [Double](repeating: 3e38, count: width),
            (0..<width).map { $0 == 77 ? 3e38 : -3e38 }, (0..<width).map { Double($0) * 1e-42 },
            (0..<width).map { $0 == 77 ? 0 : -1e4 },
        ] {
            let logits = try OpsTensor(.float32, [1, width], values: values)
            for temperature in [Float(1e-45), 1e-30, 1e-5, 1, 1e4, 1e30] {
                for filter in Self.filters(width: width) {
                    var row = filter
                    row.temperature = temperature
                    let drawn = try ops.draw(logits.view, [row])
                    #expect(drawn.status == [0] && (0..<width).contains(drawn.tokens[0]))
                    if values[77] - values[76] > 1e3, temperature <= 1 { #expect(drawn.tokens[0] == 77) }
                }
            }
        }
    }

    @Test func frequenciesFollowTheProbabilities() throws {
        let ops = makeOps(.detected)
        var random = OpsRandom(12)
        let cases: [(width: Int, draws: Int, row: SampleOperation.Row)] = [
            (20, 40_000, .init(seed: 21, step: 0)),
            (20, 40_000, .init(temperature: 1.5, topK: 7, seed: 22, step: 0)),
            (111, 40_000, .init(topP: 0.9, seed: 23, step: 0)),
            (111, 40_000, .init(topK: 60, topP: 0.8, minP: 0.05, seed: 24, step: 0)),
            (32_000, 8_000, .init(seed: 25, step: 0)),
            (32_000, 8_000, .init(temperature: 0.7, topK: 500, topP: 0.95, seed: 26, step: 0)),
            (32_000, 8_000, .init(topP: 0.9, seed: 27, step: 0)),
        ]
        for (width, draws, filter) in cases {
            let logits = try OpsTensor(.float32, [1, width], values: random.normals(width, scale: 2))
            let tokens = try ops.draw(logits.view, filter.at(steps: 0..<draws)).tokens
            let probabilities = SamplingOracle(logits.values, filter).probabilities
            #expect(SamplingOracle.follows(tokens, probabilities), "\(filter)")
        }
    }

    @Test func aTokenDependsOnItsRowAlone() throws {
        var random = OpsRandom(13)
        let (count, width) = (7, 5_000)
        let logits = try OpsTensor(.float32, [count, width], values: random.normals(count * width, scale: 2))
        var rows: [SampleOperation.Row] = []
        for index in 0..<count {
            let topK = index % 2 == 0 ? 0 : 100
            let topP: Float = index % 3 == 0 ? 1 : 0.9
            rows.append(.init(temperature: 0.9, topK: topK, topP: topP, seed: 31, step: UInt64(index)))
        }
        let reference = try makeOps(.detected, threads: 1).draw(logits.view, rows).tokens
        for threads in [2, 3, 5] {
            #expect(try makeOps(.detected, threads: threads).draw(logits.view, rows).tokens == reference)
        }
        let ops = makeOps(.detected)
        for index in 0..<count {
            let alone = try ops.draw(logits.view.slice(index..<index + 1), [rows[index]]).tokens
            #expect(alone == [reference[index]])
        }
        for size in 1...count {
            let tail = try ops.draw(logits.view.slice(count - size..<count), Array(rows.suffix(size))).tokens
            #expect(tail == Array(reference.suffix(size)))
        }
        // Other seeds and other steps give other draws.
        let wide = try OpsTensor(.float32, [1, width], values: [Double](repeating: 0, count: width))
        let seeds = try ops.draw(wide.view, (0..<50).map { .init(seed: UInt64($0), step: 0) }).tokens
        let steps = try ops.draw(wide.view, (0..<50).map { .init(seed: 0, step: UInt64($0)) }).tokens
        #expect(Set(seeds).count > 40 && Set(steps).count > 40 && seeds != steps)
    }

    /// Rows at one address are filtered once as long as their filters stay the same: the draws are those of copies of the row.
    @Test(arguments: instructionSets)
    func manyDrawsFromOneRow(set: InstructionSet) throws {
        let ops = makeOps(set)
        var random = OpsRandom(15)
        let (count, width) = (40, 3_000)
        for (dtype, form) in [
            (DType.float32, DistributionForm.logits), (.bfloat16, .logits), (.float32, .probabilities),
        ] {
            for isBad in [false, true] {
                var values = random.normals(width, scale: 2).map { form == .logits ? $0 : abs($0) }
                if isBad { values[7] = .nan }
                let one = try OpsTensor(dtype, [1, width], values: values)
                let copies = try OpsTensor(dtype, [count, width], values: (0..<count).flatMap { _ in values })
                let view = try TensorView(
                    one.view.region, byteOffset: one.view.byteOffset, dtype: dtype, shape: [count, width],
                    strides: [0, 1])
                var rows: [SampleOperation.Row] = []
                for index in 0..<count {
                    var row = SampleOperation.Row(topK: index / 4 % 3 * 20, seed: 5, step: UInt64(index))
                    if index / 3 % 5 == 4 { row.temperature = 0 }
                    if index % 20 < 12 { row.topP = 0.9 }
                    if index / 10 % 2 == 1 { row.minP = 0.01 }
                    rows.append(row)
                }
                var found: [[Double]] = []
                for input in [view, copies.view] {
                    let (tokens, status) = (try OpsTensor(.int32, [count]), try OpsTensor(.uint8, [count]))
                    let operation = SampleOperation(
                        input, as: form, tokens: tokens.view, status: status.view, rows: rows)
                    try operation.validate()
                    ops.execute(operation)
                    found.append(tokens.values + status.values)
                }
                #expect(found[0] == found[1], "\(dtype) \(form)")
            }
        }
    }

    @Test(arguments: instructionSets)
    func theLargestVocabulary(set: InstructionSet) throws {
        let ops = makeOps(set)
        var random = OpsRandom(14)
        let width = 201_088
        let logits = try OpsTensor(.bfloat16, [1, width], values: (0..<width).map { _ in random.uniform() * 8 })
        let values = logits.values
        for filter in [
            SampleOperation.Row(seed: 41, step: 1), .init(topK: 50, topP: 0.9, seed: 41, step: 2),
            .init(topK: 100_000, seed: 41, step: 3), .init(topP: 0.999, seed: 41, step: 4),
            .init(topP: 0.5, minP: 0.5, seed: 41, step: 5), .init(temperature: 0, seed: 41, step: 6),
        ] {
            let token = try ops.draw(logits.view, [filter]).tokens[0]
            if filter.temperature == 0 {
                #expect(token == values.firstIndex(of: values.max() ?? 0))
            } else {
                #expect(SamplingOracle(values, filter).accepts(token, of: filter))
            }
        }
    }

    @Test func badArgumentsAreNamed() throws {
        let logits = try OpsTensor(.float32, [2, 8])
        let tokens = try OpsTensor(.int32, [2])
        let status = try OpsTensor(.uint8, [2])
        let good = SampleOperation.Row(seed: 0, step: 0)
        func expectError(_ rows: [SampleOperation.Row]) {
            #expect(throws: FlashInferError.self) {
                try SampleOperation(logits: logits.view, tokens: tokens.view, status: status.view, rows: rows)
                    .validate()
            }
        }
        expectError([good])
        expectError([good, .init(temperature: .nan, seed: 0, step: 0)])
        expectError([good, .init(topK: -1, seed: 0, step: 0)])
        expectError([good, .init(topP: -1, seed: 0, step: 0)])
        expectError([good, .init(minP: 2, seed: 0, step: 0)])
        #expect(throws: FlashInferError.self) {
            try SampleOperation(logits: logits.view, tokens: status.view, status: status.view, rows: [good, good])
                .validate()
        }
    }
}
