import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Norms and gated activations stored as 8 bits on the GPU: the float32 output converted, and the definition.
@Suite(.enabled(if: OpsGPU.isThere, "no CUDA device")) struct QuantizedOutputGPUTests {
    private let gpu = GPUScope()
    static let outputs: [DType] = [.float8E4M3, .float8E5M2, .int8]

    @Test(arguments: GPUTypes.all, GPULayout.all)
    func rmsNorm(types: GPUTypes, layout: GPULayout) throws {
        var random = OpsRandom(61)
        for (output, hasResidual, offset) in [
            (DType.float8E4M3, false, Float(0)), (.float8E5M2, true, 0), (.int8, true, 1),
        ] {
            for width in [1, 7, 8, 64, 111, 136, 576, 2_056, 4_096] {
                try check(types, layout, [3, 2, width], output, hasResidual, offset, &random)
            }
        }
    }

    @Test(arguments: GPUTypes.all, [8_200, 16_384, 32_768, 40_001])
    func rmsNormOfWideRows(types: GPUTypes, width: Int) throws {
        var random = OpsRandom(62)
        try check(types, GPULayout(), [2, width], .float8E4M3, true, 0, &random)
    }

    private func check(
        _ types: GPUTypes, _ layout: GPULayout, _ shape: [Int], _ type: DType, _ hasResidual: Bool, _ offset: Float,
        _ random: inout OpsRandom
    ) throws {
        let (width, count) = (shape[shape.count - 1], shape.reduce(1, *))
        let input = try gpu.tensor(
            types.first, shape, padding: layout.padding, lead: layout.lead, values: random.normals(count, scale: 3))
        let weight = try gpu.tensor(types.second, [width], lead: layout.lead, values: random.normals(width))
        let old = random.normals(count)
        let scale = try gpu.tensor(.float32, [1], values: [Double(QuantizationWay.given)])
        func residual() throws -> GPUTensor? {
            hasResidual ? try gpu.tensor(types.second, shape, padding: layout.padding, values: old) : nil
        }
        func run(_ output: GPUTensor, _ residual: GPUTensor?, _ quantization: OutputQuantization?) throws {
            try runOnGPU(
                .rmsNorm(
                    RMSNormOperation(
                        input: input.view, weight: weight.view, residual: residual?.view, output: output.view,
                        epsilon: 1e-5, weightOffset: offset, quantization: quantization)))
        }
        let first = try residual()
        let oracle = OpsOracle.rmsNorm(
            input.host.values, residual: first?.host.values, weight: weight.host.values, epsilon: 1e-5,
            offset: offset, output: .float32)
        let wide = try gpu.tensor(.float32, shape, padding: layout.padding, lead: layout.lead)
        try run(wide, first, nil)
        let unquantized = try wide.fetch()
        try first?.fetch()
        for way in QuantizationWay.all {
            let second = try residual()
            let found = try gpu.tensor(type, shape, padding: layout.padding, lead: layout.lead)
            let scales = try gpu.tensor(.float32, [count / width])
            try run(found, second, way.quantization(scale: scale.view, scales: scales.view))
            try found.fetch()
            try scales.fetch()
            try second?.fetch()
            let problem = QuantizedCheck(type, width: width).firstProblem(
                found.host, scales: way == .perRow ? scales.host.values : nil, unquantized: unquantized,
                exact: oracle.exact, reference: oracle.reference)
            #expect(problem == nil, "\(type), width \(width), \(way)")
            #expect(found.host.paddingIsIntact && scales.host.paddingIsIntact)
            if let first, let second { #expect(first.host.isIdentical(to: second.host)) }
        }
    }

    @Test(arguments: GPUTypes.all, GPULayout.all)
    func gatedActivation(types: GPUTypes, layout: GPULayout) throws {
        var random = OpsRandom(63)
        for (activation, type) in zip(GatedActivationOperation.Activation.allCases, Self.outputs) {
            for width in [1, 7, 8, 64, 111, 136, 4_096, 4_104, 16_384, 16_400] {
                let gate = try gpu.tensor(
                    types.first, [3, width], padding: layout.padding, lead: layout.lead,
                    values: random.normals(3 * width, scale: 5))
                let up = try gpu.tensor(
                    types.second, [3, width], padding: layout.padding, values: random.normals(3 * width))
                let scale = try gpu.tensor(.float32, [1], values: [Double(QuantizationWay.given)])
                let oracle = OpsOracle.gatedActivation(
                    gate.host.values, up.host.values, activation, output: .float32)
                let wide = try gpu.tensor(.float32, [3, width], padding: layout.padding)
                try runOnGPU(
                    .gatedActivation(
                        GatedActivationOperation(
                            gate: gate.view, up: up.view, output: wide.view, activation: activation)))
                let unquantized = try wide.fetch()
                for way in QuantizationWay.all {
                    let found = try gpu.tensor(type, [3, width], padding: layout.padding, lead: layout.lead)
                    let scales = try gpu.tensor(.float32, [3])
                    try runOnGPU(
                        .gatedActivation(
                            GatedActivationOperation(
                                gate: gate.view, up: up.view, output: found.view, activation: activation,
                                quantization: way.quantization(scale: scale.view, scales: scales.view))))
                    try found.fetch()
                    try scales.fetch()
                    let problem = QuantizedCheck(type, width: width).firstProblem(
                        found.host, scales: way == .perRow ? scales.host.values : nil, unquantized: unquantized,
                        exact: oracle.exact, reference: oracle.reference)
                    #expect(problem == nil, "\(activation), \(type), width \(width), \(way)")
                    #expect(found.host.paddingIsIntact && scales.host.paddingIsIntact)
                }
            }
        }
    }

    @Test func rowsOfZerosAndOfNaN() throws {
        for width in [3, 40] {
            for type in Self.outputs {
                var values = [Double](repeating: 0, count: 3 * width)
                values[width + width / 2] = .nan
                values[2 * width] = 2
                let gate = try gpu.tensor(.float32, [3, width], values: values)
                let ones = try gpu.tensor(.float32, [3, width], values: [Double](repeating: 1, count: 3 * width))
                let found = try gpu.tensor(type, [3, width])
                let scales = try gpu.tensor(.float32, [3])
                try runOnGPU(
                    .gatedActivation(
                        GatedActivationOperation(
                            gate: gate.view, up: ones.view, output: found.view, activation: .silu,
                            quantization: .perRow(scales: scales.view))))
                let largest = try #require(type.quantizedMagnitude)
                let (bytes, factors) = (try found.fetch(), try scales.fetch())
                #expect(factors[0] == Double(1e-10 / largest) && factors[1].isNaN)
                #expect(bytes.prefix(width).allSatisfy { $0 == 0 } && bytes[2 * width] == Double(largest))
            }
        }
    }
}
