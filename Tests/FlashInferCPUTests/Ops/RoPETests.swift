import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

@Suite struct RoPETests {
    static let positions: [Double] = [0, 1, 17, 8_191, 131_071, 1_000_000]

    static let parameters: [RoPEParameters] = [
        RoPEParameters(),
        RoPEParameters(theta: 100_000, pairing: .interleaved),
        RoPEParameters(theta: 500_000, rotaryDim: 6, scaling: .linear(factor: 4)),
        RoPEParameters(theta: 500_000, rotaryDim: 2, pairing: .interleaved),
        RoPEParameters(rotaryDim: 0),
        RoPEParameters(
            theta: 500_000,
            scaling: .llama3(factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext: 8_192)),
        RoPEParameters(
            theta: 500_000, pairing: .interleaved,
            scaling: .llama3(factor: 32, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext: 8_192)),
    ]

    @Test(arguments: instructionSets, parameters)
    func matchesTheDefinition(set: InstructionSet, parameters: RoPEParameters) throws {
        let ops = makeOps(set)
        var random = OpsRandom(5)
        let tokens = Self.positions.count
        let positions = try OpsTensor(.int32, [tokens], values: Self.positions)
        for headDim in [8, 64, 80, 128, 576] {
            for types in TypeCase.all {
                let queries = try OpsTensor(
                    types.first, [tokens, 3, headDim], padding: 4, values: random.normals(tokens * 3 * headDim))
                let keys = try OpsTensor(
                    types.second, [tokens, 1, headDim], values: random.normals(tokens * headDim))
                let output = try OpsTensor(types.output, [tokens, 3, headDim], padding: 1)
                let (q, k) = (queries.values, keys.values)
                let operation = RoPEOperation(
                    queries: queries.view, keys: keys.view, queryOutput: output.view, positions: positions.view,
                    parameters: parameters)
                try operation.validate()
                ops.execute(operation)
                check(output, q, heads: 3, headDim, parameters)
                check(keys, k, heads: 1, headDim, parameters)
                #expect(output.paddingIsIntact && keys.paddingIsIntact)
            }
        }
    }

    private func check(
        _ output: OpsTensor, _ input: [Double], heads: Int, _ headDim: Int, _ parameters: RoPEParameters
    ) {
        // A rounded sine and cosine and three float32 steps on values of a few units, then the output's rounding.
        let unit = output.view.dtype == .float32 ? 0 : output.view.dtype == .float16 ? 0x1p-11 : 0x1p-8
        for row in 0..<output.count / headDim {
            let range = row * headDim..<(row + 1) * headDim
            let head = Array(input[range])
            let exact = OpsOracle.rope(head, position: Self.positions[row / heads], parameters)
            let largest = head.reduce(0) { max($0, abs($1)) }
            for (index, place) in range.enumerated() {
                let error = abs(output[place] - exact[index])
                #expect(
                    error <= 4 * 0x1p-24 * largest + unit * abs(exact[index]) + 0x1p-25,
                    "row \(row), element \(index): \(output[place]), exactly \(exact[index])")
            }
        }
    }

    @Test func alternatingParametersAndPositionsAreKeptApart() throws {
        let ops = makeOps(.detected)
        let local = RoPEParameters(theta: 10_000)
        let global = RoPEParameters(theta: 1_000_000)
        for step in 0..<3 {
            let positions = try OpsTensor(.int32, [2], values: [Double(step), 5])
            for parameters in [local, global, local, global] {
                let queries = try OpsTensor(.float32, [2, 1, 8], values: OpsRandom.fixed(16))
                let input = queries.values
                ops.execute(RoPEOperation(queries: queries.view, positions: positions.view, parameters: parameters))
                for token in 0..<2 {
                    let exact = OpsOracle.rope(
                        Array(input[token * 8..<token * 8 + 8]), position: positions[token], parameters)
                    for index in 0..<8 { #expect(abs(queries[token * 8 + index] - exact[index]) < 1e-6) }
                }
            }
        }
    }

    @Test func badArgumentsAreNamed() throws {
        let queries = try OpsTensor(.float32, [2, 1, 8])
        let positions = try OpsTensor(.int32, [2], values: [0, 1])
        func expectError(_ parameters: RoPEParameters) {
            #expect(throws: FlashInferError.self) {
                try RoPEOperation(queries: queries.view, positions: positions.view, parameters: parameters).validate()
            }
        }
        expectError(RoPEParameters(theta: 0))
        expectError(RoPEParameters(rotaryDim: 3))
        expectError(RoPEParameters(rotaryDim: 10))
        expectError(RoPEParameters(scaling: .linear(factor: 0)))
        expectError(RoPEParameters(scaling: .perPair(factors: [1, 2])))
        expectError(
            RoPEParameters(
                scaling: .llama3(factor: 8, lowFrequencyFactor: 4, highFrequencyFactor: 4, originalContext: 8)))
        positions[1] = -1
        #expect(throws: FlashInferError.invalidArgument("positions[1]", found: "-1", expected: "in 0 ..< 2147483648")) {
            try RoPEOperation(queries: queries.view, positions: positions.view, parameters: RoPEParameters()).validate()
        }
    }
}
