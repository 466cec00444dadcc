import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Rotary embedding on the GPU against the definition in float64.
@Suite(.enabled(if: OpsGPU.isThere, "no CUDA device")) struct RoPEGPUTests {
    private let gpu = GPUScope()

    static let positions: [Double] = [0, 1, 17, 8_191, 131_071, 1_000_000]

    static let parameters: [RoPEParameters] = [
        RoPEParameters(),
        RoPEParameters(theta: 100_000, pairing: .interleaved),
        RoPEParameters(theta: 500_000, rotaryDim: 6, scaling: .linear(factor: 4)),
        RoPEParameters(theta: 500_000, rotaryDim: 32, pairing: .interleaved),
        RoPEParameters(theta: 500_000, rotaryDim: 32),
        RoPEParameters(rotaryDim: 0),
        RoPEParameters(
            theta: 500_000,
            scaling: .llama3(factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext: 8_192)),
        // Frequencies above a turn a position.
        RoPEParameters(theta: 1e-4, pairing: .interleaved),
    ]

    @Test(arguments: parameters, GPUTypes.all)
    func matchesTheDefinition(parameters: RoPEParameters, types: GPUTypes) throws {
        var random = OpsRandom(11)
        let tokens = Self.positions.count
        let positions = try gpu.tensor(.int32, [tokens], values: Self.positions)
        for headDim in [8, 64, 80, 128, 576, 1_280] where parameters.rotaryDim ?? 0 <= headDim {
            for layout in GPULayout.all {
                let queries = try gpu.tensor(
                    types.first, [tokens, 3, headDim], padding: layout.padding, lead: layout.lead,
                    values: random.normals(tokens * 3 * headDim))
                let keys = try gpu.tensor(
                    types.second, [tokens, 1, headDim], values: random.normals(tokens * headDim))
                let output = try gpu.tensor(types.output, [tokens, 3, headDim], padding: layout.padding)
                let (q, k) = (queries.host.values, keys.host.values)
                try runOnGPU(
                    .rope(
                        RoPEOperation(
                            queries: queries.view, keys: keys.view, queryOutput: output.view,
                            positions: positions.view, parameters: parameters)))
                try output.fetch()
                try keys.fetch()
                check(output.host, q, heads: 3, headDim, parameters)
                check(keys.host, k, heads: 1, headDim, parameters)
                #expect(output.host.paddingIsIntact && keys.host.paddingIsIntact)
            }
        }
    }

    private func check(
        _ output: OpsTensor, _ input: [Double], heads: Int, _ headDim: Int, _ parameters: RoPEParameters
    ) {
        // A rounded sine and cosine of a rounded angle and three float32 steps on values of a few units, then the output's
        // rounding.
        let unit = output.view.dtype == .float32 ? 0 : output.view.dtype == .float16 ? 0x1p-11 : 0x1p-8
        for row in 0..<output.count / headDim {
            let range = row * headDim..<(row + 1) * headDim
            let head = Array(input[range])
            let position = Self.positions[row / heads]
            let exact = OpsOracle.rope(head, position: position, parameters)
            let largest = head.reduce(0) { max($0, abs($1)) }
            // What float64 itself loses of a fast angle at a far position.
            let turns = position * max(1, Double(1 / parameters.theta)) * 0x1p-52
            for (index, place) in range.enumerated() {
                let error = abs(output[place] - exact[index])
                if !(error <= (5 * 0x1p-24 + turns) * largest + unit * abs(exact[index]) + 0x1p-25) {
                    Issue.record(
                        "head dim \(headDim), row \(row), element \(index): \(output[place]), exactly \(exact[index])")
                    return
                }
            }
        }
    }

    @Test func manyHeadsAndManyTokens() throws {
        var random = OpsRandom(12)
        let (tokens, headDim) = (67, 64)
        let places = (0..<tokens).map { Double($0 * 31) }
        let positions = try gpu.tensor(.int32, [tokens], values: places)
        let queries = try gpu.tensor(
            .bfloat16, [tokens, 40, headDim], values: random.normals(tokens * 40 * headDim))
        let keys = try gpu.tensor(.bfloat16, [tokens, 5, headDim], values: random.normals(tokens * 5 * headDim))
        let (q, k) = (queries.host.values, keys.host.values)
        let parameters = RoPEParameters(theta: 500_000)
        try runOnGPU(
            .rope(
                RoPEOperation(
                    queries: queries.view, keys: keys.view, positions: positions.view, parameters: parameters)))
        for (tensor, input, heads) in [(queries, q, 40), (keys, k, 5)] {
            let found = try tensor.fetch()
            for row in 0..<tokens * heads {
                let range = row * headDim..<(row + 1) * headDim
                let exact = OpsOracle.rope(Array(input[range]), position: places[row / heads], parameters)
                for (index, place) in range.enumerated() where abs(found[place] - exact[index]) > 0x1p-8 * 6 {
                    Issue.record("row \(row), element \(index): \(found[place]), exactly \(exact[index])")
                }
            }
        }
    }
}
