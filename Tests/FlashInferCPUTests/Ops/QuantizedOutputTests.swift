import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

/// Norms and gated activations whose outputs are stored as 8 bits.
@Suite struct QuantizedOutputTests {
    static let types: [DType] = [.float8E4M3, .float8E5M2, .int8]

    @Test(arguments: instructionSets, types)
    func rmsNorm(set: InstructionSet, output: DType) throws {
        let ops = makeOps(set)
        var random = OpsRandom(31)
        for (hasResidual, offset) in [(false, Float(0)), (true, 0), (true, 1)] {
            for types in TypeCase.all {
                for (width, padding) in [(1, 0), (7, 3), (64, 0), (111, 1), (576, 3), (4_096, 0)] {
                    let count = 4 * width
                    let input = try OpsTensor(
                        types.first, [2, 2, width], padding: padding, values: random.normals(count, scale: 3))
                    let weight = try OpsTensor(types.second, [width], values: random.normals(width))
                    let old = random.normals(count)
                    let oracle = OpsOracle.rmsNorm(
                        input.values,
                        residual: hasResidual ? try OpsTensor(types.second, [count], values: old).values : nil,
                        weight: weight.values, epsilon: 1e-5, offset: offset, output: .float32)
                    for way in QuantizationWay.all {
                        let residuals = try (0..<2).map { _ in
                            try OpsTensor(types.second, [2, 2, width], padding: padding, values: old)
                        }
                        func operation(
                            _ index: Int, _ output: OpsTensor, _ quantization: OutputQuantization?
                        ) -> RMSNormOperation {
                            RMSNormOperation(
                                input: input.view, weight: weight.view,
                                residual: hasResidual ? residuals[index].view : nil, output: output.view,
                                epsilon: 1e-5, weightOffset: offset, quantization: quantization)
                        }
                        let wide = try OpsTensor(.float32, [2, 2, width])
                        let plain = operation(0, wide, nil)
                        try plain.validate()
                        ops.execute(plain)
                        let found = try OpsTensor(output, [2, 2, width], padding: padding)
                        let scales = try OpsTensor(.float32, [4])
                        let scale = try OpsTensor(.float32, [1], values: [Double(QuantizationWay.given)])
                        let fused = operation(1, found, way.quantization(scale: scale.view, scales: scales.view))
                        try fused.validate()
                        ops.execute(fused)
                        let problem = QuantizedCheck(output, width: width).firstProblem(
                            found, scales: way == .perRow ? scales.values : nil, unquantized: wide.values,
                            exact: oracle.exact, reference: oracle.reference)
                        #expect(problem == nil, "\(types), width \(width), \(way)")
                        #expect(residuals[0].isIdentical(to: residuals[1]))
                        #expect(found.paddingIsIntact && (way == .perRow) != scales[0].isNaN)
                    }
                }
            }
        }
    }

    @Test(arguments: instructionSets, types)
    func gatedActivation(set: InstructionSet, output: DType) throws {
        let ops = makeOps(set)
        var random = OpsRandom(32)
        for activation in GatedActivationOperation.Activation.allCases {
            for types in TypeCase.all {
                for (width, padding) in [(1, 0), (7, 3), (64, 0), (111, 1), (576, 3)] {
                    let gate = try OpsTensor(
                        types.first, [3, width], padding: padding, values: random.normals(3 * width, scale: 5))
                    let up = try OpsTensor(types.second, [3, width], values: random.normals(3 * width))
                    let oracle = OpsOracle.gatedActivation(gate.values, up.values, activation, output: .float32)
                    let wide = try OpsTensor(.float32, [3, width])
                    ops.execute(
                        GatedActivationOperation(
                            gate: gate.view, up: up.view, output: wide.view, activation: activation))
                    for way in QuantizationWay.all {
                        let found = try OpsTensor(output, [3, width], padding: padding)
                        let scales = try OpsTensor(.float32, [3])
                        let scale = try OpsTensor(.float32, [1], values: [Double(QuantizationWay.given)])
                        let operation = GatedActivationOperation(
                            gate: gate.view, up: up.view, output: found.view, activation: activation,
                            quantization: way.quantization(scale: scale.view, scales: scales.view))
                        try operation.validate()
                        ops.execute(operation)
                        let problem = QuantizedCheck(output, width: width).firstProblem(
                            found, scales: way == .perRow ? scales.values : nil, unquantized: wide.values,
                            exact: oracle.exact, reference: oracle.reference)
                        #expect(problem == nil, "\(activation), \(types), width \(width), \(way)")
                        #expect(found.paddingIsIntact)
                    }
                }
            }
        }
    }

    @Test(arguments: instructionSets)
    func rowsOfZerosAndOfNaN(set: InstructionSet) throws {
        let ops = makeOps(set)
        for width in [3, 40] {
            for output in Self.types {
                var values = [Double](repeating: 0, count: 3 * width)
                values[width + width / 2] = .nan
                values[2 * width] = 2
                let gate = try OpsTensor(.float32, [3, width], values: values)
                let up = try OpsTensor(.float32, [3, width], values: [Double](repeating: 1, count: 3 * width))
                let found = try OpsTensor(output, [3, width])
                let scales = try OpsTensor(.float32, [3])
                ops.execute(
                    GatedActivationOperation(
                        gate: gate.view, up: up.view, output: found.view, activation: .silu,
                        quantization: .perRow(scales: scales.view)))
                let largest = try #require(output.quantizedMagnitude)
                #expect(scales[0] == Double(1e-10 / largest) && scales[1].isNaN)
                #expect(found.values.prefix(width).allSatisfy { $0 == 0 })
                #expect(found[2 * width] == Double(largest))
            }
        }
    }

    @Test func zeroRowsWriteNothing() throws {
        let ops = makeOps(.detected)
        let empty = try OpsTensor(.float32, [0, 8])
        let weight = try OpsTensor(.float32, [8], values: [Double](repeating: 1, count: 8))
        let output = try OpsTensor(.int8, [0, 8])
        let operation = RMSNormOperation(
            input: empty.view, weight: weight.view, output: output.view,
            quantization: .perRow(scales: try OpsTensor(.float32, [0]).view))
        try operation.validate()
        ops.execute(operation)
        #expect(output.paddingIsIntact)
    }

    @Test func badArgumentsAreNamed() throws {
        let x = try OpsTensor(.float32, [2, 8], values: [Double](repeating: 1, count: 16))
        let weight = try OpsTensor(.float32, [8], values: [Double](repeating: 1, count: 8))
        let bytes = try OpsTensor(.int8, [2, 8])
        func error(_ output: TensorView, _ quantization: OutputQuantization?) -> FlashInferError? {
            let norm = RMSNormOperation(
                input: x.view, weight: weight.view, output: output, quantization: quantization)
            let gated = GatedActivationOperation(
                gate: x.view, up: x.view, output: output, activation: .silu, quantization: quantization)
            let errors = [Operation.rmsNorm(norm), .gatedActivation(gated)].map { operation in
                do throws(FlashInferError) { try operation.validate() } catch { return error as FlashInferError? }
                return nil
            }
            #expect((errors[0] == nil) == (errors[1] == nil))
            return errors[0]
        }
        #expect(error(bytes.view, .scale(0.5)) == nil)
        #expect(
            error(bytes.view, nil)
                == .invalidArgument("output", found: "int8", expected: "float32, float16 or bfloat16"))
        #expect(
            error(x.view, .scale(1))
                == .invalidArgument(
                    "output", found: "float32", expected: "float8-e4m3, float8-e5m2 or int8, as it is quantised"))
        for scale in [0, -1, .nan, .infinity, .leastNonzeroMagnitude] as [Float] {
            #expect(
                error(bytes.view, .scale(scale))
                    == .invalidArgument(
                        "output scale", found: "\(scale)", expected: "finite and above 0, and so its reciprocal"))
            let tensor = try OpsTensor(.float32, [1], values: [Double(scale)])
            #expect(error(bytes.view, .scaleTensor(tensor.view)) != nil)
        }
        #expect(error(bytes.view, .scaleTensor(try OpsTensor(.float32, [2], values: [1, 1]).view)) != nil)
        #expect(error(bytes.view, .scaleTensor(try OpsTensor(.float16, [1], values: [1]).view)) != nil)
        #expect(error(bytes.view, .perRow(scales: try OpsTensor(.float32, [3]).view)) != nil)
        #expect(error(bytes.view, .perRow(scales: try x.view.reshaped([16]).slice(0..<2))) != nil)
        #expect(error(try OpsTensor(.int8, [2, 7]).view, .scale(1)) != nil)
        let broadcast = try TensorView(bytes.view.region, dtype: .int8, shape: [2, 8], strides: [0, 1])
        #expect(error(broadcast, .scale(1)) != nil)
        let inside = try TensorView(x.view.region, byteOffset: x.view.byteOffset, dtype: .int8, shape: [2, 8])
        #expect(error(inside, .scale(1)) != nil)
        let elsewhere = try TensorView(
            MemoryRegion(address: 4096, byteCount: 64, device: .recording), dtype: .int8, shape: [2, 8])
        #expect(error(elsewhere, .scale(1)) != nil)
    }
}
