import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// The row operations on the GPU against plain loops in float64.
@Suite(.enabled(if: OpsGPU.isThere, "no CUDA device")) struct RowOperationGPUTests {
    private let gpu = GPUScope()

    /// Around every way that threads share a row, and odd ones.
    static let widths = [1, 7, 8, 64, 111, 128, 136, 576, 2_056, 4_096]

    @Test(arguments: GPUTypes.all, GPULayout.all)
    func rmsNorm(types: GPUTypes, layout: GPULayout) throws {
        var random = OpsRandom(1)
        for (hasResidual, offset) in [(false, Float(0)), (true, 1)] {
            for width in Self.widths {
                try checkRMSNorm(types, layout, [3, 2, width], hasResidual, offset, &random)
            }
        }
    }

    @Test(arguments: GPUTypes.all, [8_200, 16_384, 32_768, 32_776, 40_001])
    func rmsNormOfWideRows(types: GPUTypes, width: Int) throws {
        var random = OpsRandom(2)
        try checkRMSNorm(types, GPULayout(), [2, width], true, 0, &random)
    }

    private func checkRMSNorm(
        _ types: GPUTypes, _ layout: GPULayout, _ shape: [Int], _ hasResidual: Bool, _ offset: Float,
        _ random: inout OpsRandom
    ) throws {
        let (width, count) = (shape[shape.count - 1], shape.reduce(1, *))
        let input = try gpu.tensor(
            types.first, shape, padding: layout.padding, lead: layout.lead, values: random.normals(count, scale: 3))
        let weight = try gpu.tensor(types.second, [width], lead: layout.lead, values: random.normals(width))
        let residual =
            hasResidual
            ? try gpu.tensor(types.second, shape, padding: layout.padding, values: random.normals(count)) : nil
        let output = try gpu.tensor(types.output, shape, padding: layout.padding, lead: layout.lead)
        let oracle = OpsOracle.rmsNorm(
            input.host.values, residual: residual?.host.values, weight: weight.host.values, epsilon: 1e-5,
            offset: offset, output: types.output)
        let sums = zip(input.host.values, residual?.host.values ?? []).map {
            rounded(Float($0) + Float($1), to: types.second)
        }
        try runOnGPU(
            .rmsNorm(
                RMSNormOperation(
                    input: input.view, weight: weight.view, residual: residual?.view, output: output.view,
                    epsilon: 1e-5, weightOffset: offset)))
        // Five roundings of float32 on the way, and those of a sum in another order.
        #expect(
            firstOutlier(
                try output.fetch(), exact: oracle.exact, reference: oracle.reference, width: width,
                dtype: types.output, units: types.output == .float32 ? 4 : 1) == nil, "width \(width)")
        #expect(output.host.paddingIsIntact)
        if let residual {
            #expect(try residual.fetch() == sums)
            #expect(residual.host.paddingIsIntact)
        }
    }

    @Test func rmsNormInPlaceAndOverManyRows() throws {
        var random = OpsRandom(3)
        // More rows than a grid has along y.
        let (rows, width) = (70_001, 8)
        let input = try gpu.tensor(.float32, [rows, width], values: random.normals(rows * width))
        let weight = try gpu.tensor(.float32, [width], values: random.normals(width))
        let oracle = OpsOracle.rmsNorm(
            input.host.values, residual: nil, weight: weight.host.values, epsilon: 1e-6, offset: 0, output: .float32)
        try runOnGPU(.rmsNorm(RMSNormOperation(input: input.view, weight: weight.view, output: input.view)))
        #expect(
            firstOutlier(
                try input.fetch(), exact: oracle.exact, reference: oracle.reference, width: width, dtype: .float32,
                units: 4) == nil)
        #expect(input.host.paddingIsIntact)
    }

    @Test(arguments: GPUTypes.all, GPULayout.all)
    func gatedActivation(types: GPUTypes, layout: GPULayout) throws {
        var random = OpsRandom(4)
        for activation in GatedActivationOperation.Activation.allCases {
            for width in Self.widths {
                var values = random.normals(3 * width, scale: 5)
                // The activations' far tails, where a careless formula loses everything.
                for (index, value) in [-30, -9, -4, -1e-4, 0, 1e-4, 9, 30, Double.nan].enumerated()
                where index < width { values[index] = value }
                let gate = try gpu.tensor(
                    types.first, [3, width], padding: layout.padding, lead: layout.lead, values: values)
                let up = try gpu.tensor(
                    types.second, [3, width], padding: layout.padding, values: random.normals(3 * width))
                let output = try gpu.tensor(types.output, [3, width], padding: layout.padding, lead: layout.lead)
                let oracle = OpsOracle.gatedActivation(
                    gate.host.values, up.host.values, activation, output: types.output)
                try runOnGPU(
                    .gatedActivation(
                        GatedActivationOperation(
                            gate: gate.view, up: up.view, output: output.view, activation: activation)))
                // float16 has no numbers below 2^-25.
                let exact = oracle.exact.map { types.output == .float16 && abs($0) < 0x1p-25 ? 0 : $0 }
                #expect(
                    firstOutlier(
                        try output.fetch(), exact: exact, reference: oracle.reference, width: width,
                        dtype: types.output, units: types.output == .float32 ? 4 : 1) == nil,
                    "\(activation), width \(width)")
                #expect(output.host.paddingIsIntact)
            }
        }
    }

    @Test func theHalvesOfAFusedProjectionMayBeOverwritten() throws {
        var random = OpsRandom(5)
        let fused = try gpu.tensor(.bfloat16, [4, 64], values: random.normals(256))
        let values = fused.host.values
        let (gate, up) = (fused.view.slice(0..<32, along: 1), fused.view.slice(32..<64, along: 1))
        try runOnGPU(
            .gatedActivation(GatedActivationOperation(gate: gate, up: up, output: gate, activation: .silu)))
        try fused.fetch()
        for row in 0..<4 {
            for column in 0..<32 {
                let (x, y) = (values[row * 64 + column], values[row * 64 + 32 + column])
                let expected = x / (1 + ElementaryFunctions.exp(-x)) * y
                #expect(abs(fused.host[row * 64 + column] - expected) <= 0x1p-8 * abs(expected))
                #expect(fused.host[row * 64 + 32 + column] == y)
            }
        }
    }

    @Test(arguments: GPUTypes.all, GPULayout.all)
    func addAndScale(types: GPUTypes, layout: GPULayout) throws {
        var random = OpsRandom(6)
        for width in Self.widths {
            let first = try gpu.tensor(
                types.first, [3, width], padding: layout.padding, values: random.normals(3 * width))
            let second = try gpu.tensor(
                types.second, [3, width], padding: layout.padding, lead: layout.lead, values: random.normals(3 * width))
            for other in [second.view, nil] {
                let output = try gpu.tensor(types.output, [3, width], padding: layout.padding, lead: layout.lead)
                try runOnGPU(
                    .add(AddOperation(first: first.view, second: other, output: output.view, alpha: 1.5, beta: -0.75)))
                let expected = zip(first.host.values, second.host.values).map { x, y in
                    let scaled = Float(x) * 1.5
                    return rounded(other == nil ? scaled : scaled.addingProduct(Float(y), -0.75), to: types.output)
                }
                #expect(try output.fetch() == expected, "width \(width)")
                #expect(output.host.paddingIsIntact)
            }
        }
    }

    @Test(arguments: DType.allCases.filter(\.isCacheType), GPULayout.all)
    func embedding(dtype: DType, layout: GPULayout) throws {
        var random = OpsRandom(7)
        for width in Self.widths {
            for outputType in [DType.float32, .bfloat16] {
                let table = try gpu.tensor(
                    dtype, [5, width], padding: layout.padding, lead: layout.lead,
                    values: random.normals(5 * width, scale: 9))
                let wanted = [4, 0, -1, 5, 0, 2, Int(Int32.max), Int(Int32.min)]
                let ids = try gpu.tensor(.int32, [8], values: wanted.map(Double.init))
                let output = try gpu.tensor(outputType, [8, width], padding: layout.padding)
                for scale in [Float(1), 1.25] {
                    try runOnGPU(
                        .embedding(
                            EmbeddingOperation(table: table.view, ids: ids.view, output: output.view, scale: scale)))
                    try output.fetch()
                    for (row, id) in wanted.enumerated() {
                        for column in 0..<width {
                            let found = output.host[row * width + column]
                            // Ids in device memory that are outside of the table are seen, and nothing outside is read.
                            let isWrong =
                                (0..<5).contains(id)
                                ? found != rounded(Float(table.host[id * width + column]) * scale, to: outputType)
                                : !found.isNaN
                            if isWrong { Issue.record("row \(row), column \(column) of \(width): \(found)") }
                        }
                    }
                    #expect(output.host.paddingIsIntact)
                }
            }
        }
    }

    @Test func emptyTensorsAreNothingToDo() throws {
        let empty = try gpu.tensor(.float32, [0, 8])
        let narrow = try gpu.tensor(.float32, [3, 0], padding: 1)
        let weight = try gpu.tensor(.float32, [8])
        let none = try gpu.tensor(.float32, [0])
        try runOnGPU(.rmsNorm(RMSNormOperation(input: empty.view, weight: weight.view, output: empty.view)))
        try runOnGPU(.rmsNorm(RMSNormOperation(input: narrow.view, weight: none.view, output: narrow.view)))
        try runOnGPU(.add(AddOperation(first: empty.view, output: empty.view)))
        try runOnGPU(.convert(ConvertOperation(input: narrow.view, output: narrow.view)))
        try OpsGPU.require().synchronize()
    }
}
