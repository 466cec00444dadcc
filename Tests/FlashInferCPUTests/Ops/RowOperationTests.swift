import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

@Suite struct RowOperationTests {
    @Test(arguments: instructionSets)
    func rmsNorm(set: InstructionSet) throws {
        let ops = makeOps(set)
        var random = OpsRandom(1)
        for (hasResidual, offset) in [(false, Float(0)), (true, 0), (true, 1)] {
            try forEachCase { types, width, padding in
                let shape = [2, 2, width]
                let input = try OpsTensor(
                    types.first, shape, padding: padding, values: random.normals(4 * width, scale: 3))
                let weight = try OpsTensor(types.second, [width], values: random.normals(width))
                let residual =
                    hasResidual
                    ? try OpsTensor(types.second, shape, padding: padding + 1, values: random.normals(4 * width)) : nil
                let output = try OpsTensor(types.output, shape, padding: padding)
                let (x, w, r) = (input.values, weight.values, residual?.values)
                let operation = RMSNormOperation(
                    input: input.view, weight: weight.view, residual: residual?.view, output: output.view,
                    epsilon: 1e-5, weightOffset: offset)
                try operation.validate()
                ops.execute(operation)

                let oracle = OpsOracle.rmsNorm(
                    x, residual: r, weight: w, epsilon: 1e-5, offset: offset, output: types.output)
                if let residual, let r {
                    #expect(residual.values == zip(x, r).map { rounded(Float($0) + Float($1), to: types.second) })
                }
                #expect(
                    firstOutlier(
                        output.values, exact: oracle.exact, reference: oracle.reference, width: width,
                        dtype: types.output) == nil, "\(types), width \(width)")
                #expect(output.paddingIsIntact && residual?.paddingIsIntact != false)
            }
        }
    }

    @Test(arguments: instructionSets, GatedActivationOperation.Activation.allCases)
    func gatedActivation(set: InstructionSet, activation: GatedActivationOperation.Activation) throws {
        let ops = makeOps(set)
        var random = OpsRandom(2)
        try forEachCase { types, width, padding in
            let gate = try OpsTensor(
                types.first, [3, width], padding: padding, values: random.normals(3 * width, scale: 5))
            // The activations' far tails, where a careless formula loses everything.
            for (index, value) in [-30, -9, -4, -1e-4, 0, 1e-4, 9, 30, Double.nan].enumerated() where index < width {
                gate[index] = value
            }
            let up = try OpsTensor(types.second, [3, width], padding: padding + 2, values: random.normals(3 * width))
            let output = try OpsTensor(types.output, [3, width], padding: padding)
            let operation = GatedActivationOperation(
                gate: gate.view, up: up.view, output: output.view, activation: activation)
            try operation.validate()
            ops.execute(operation)
            let oracle = OpsOracle.gatedActivation(gate.values, up.values, activation, output: types.output)
            #expect(
                firstOutlier(
                    output.values, exact: oracle.exact.map { types.output == .float16 && abs($0) < 0x1p-25 ? 0 : $0 },
                    reference: oracle.reference, width: width, dtype: types.output) == nil,
                "\(activation), \(types), width \(width)")
            #expect(output.paddingIsIntact)
        }
    }

    @Test(arguments: instructionSets)
    func addAndScale(set: InstructionSet) throws {
        let ops = makeOps(set)
        var random = OpsRandom(3)
        try forEachCase { types, width, padding in
            let first = try OpsTensor(types.first, [3, width], padding: padding, values: random.normals(3 * width))
            let second = try OpsTensor(types.second, [3, width], padding: 1, values: random.normals(3 * width))
            let output = try OpsTensor(types.output, [3, width], padding: padding)
            for other in [second.view, nil] {
                let operation = AddOperation(
                    first: first.view, second: other, output: output.view, alpha: 1.5, beta: -0.75)
                try operation.validate()
                ops.execute(operation)
                let beta = other == nil ? 0 : -0.75
                let exact = zip(first.values, second.values).map { 1.5 * $0 + beta * $1 }
                let reference = zip(first.values, second.values).map {
                    rounded(1.5 * Float($0) + Float(beta) * Float($1), to: types.output)
                }
                #expect(
                    firstOutlier(
                        output.values, exact: exact, reference: reference, width: width, dtype: types.output) == nil)
                #expect(output.paddingIsIntact)
            }
        }
    }

    @Test(arguments: instructionSets)
    func embedding(set: InstructionSet) throws {
        let ops = makeOps(set)
        var random = OpsRandom(4)
        for dtype in DType.allCases where dtype.isCacheType {
            for width in widths {
                let table = try OpsTensor(dtype, [5, width], padding: 2, values: random.normals(5 * width, scale: 9))
                let ids = try OpsTensor(.int32, [4], values: [4, 0, 0, 2])
                let output = try OpsTensor(.float32, [4, width], padding: 1)
                let operation = EmbeddingOperation(
                    table: table.view, ids: ids.view, output: output.view, scale: 1.25)
                try operation.validate()
                ops.execute(operation)
                let expected = [4, 0, 0, 2].flatMap { row in
                    (0..<width).map { Double(Float(table[row * width + $0]) * 1.25) }
                }
                #expect(output.values == expected)
                #expect(output.paddingIsIntact)
            }
        }
    }

    @Test func badArgumentsAreNamed() throws {
        let x = try OpsTensor(.float32, [2, 8], values: [Double](repeating: 1, count: 16))
        let narrow = try OpsTensor(.float32, [2, 7])
        let bytes = try OpsTensor(.uint8, [2, 8])
        let weight = try OpsTensor(.float32, [8])
        #expect(throws: FlashInferError.self) {
            try RMSNormOperation(input: x.view, weight: weight.view, output: narrow.view).validate()
        }
        #expect(throws: FlashInferError.self) {
            try RMSNormOperation(input: x.view, weight: narrow.view, output: x.view).validate()
        }
        #expect(throws: FlashInferError.self) {
            try RMSNormOperation(input: bytes.view, weight: weight.view, output: x.view).validate()
        }
        #expect(throws: FlashInferError.self) {
            try RMSNormOperation(input: x.view, weight: weight.view, output: x.view, epsilon: .nan).validate()
        }
        #expect(throws: FlashInferError.self) {
            try RMSNormOperation(input: x.view, weight: weight.view, residual: x.view, output: x.view).validate()
        }
        let broadcast = try TensorView(x.view.region, dtype: .float32, shape: [2, 8], strides: [0, 1])
        #expect(throws: FlashInferError.self) { try AddOperation(first: x.view, output: broadcast).validate() }
        let shifted = try TensorView(
            x.view.region, byteOffset: x.view.byteOffset + 4, dtype: .float32, shape: [2, 8], strides: [8, 1])
        #expect(throws: FlashInferError.self) { try AddOperation(first: x.view, output: shifted).validate() }
        let ids = try OpsTensor(.int32, [2], values: [0, 2])
        #expect(
            throws: FlashInferError.invalidArgument("ids[1]", found: "2", expected: "in 0 ..< 2")
        ) {
            try EmbeddingOperation(table: x.view, ids: ids.view, output: OpsTensor(.float32, [2, 8]).view).validate()
        }
    }

    @Test func theHalvesOfAFusedProjectionMayBeOverwritten() throws {
        let fused = try OpsTensor(.float32, [4, 16], values: OpsRandom.fixed(64))
        let values = fused.values
        let (gate, up) = (fused.view.slice(0..<8, along: 1), fused.view.slice(8..<16, along: 1))
        let operation = GatedActivationOperation(gate: gate, up: up, output: gate, activation: .silu)
        try operation.validate()
        makeOps(.scalar).execute(operation)
        for row in 0..<4 {
            for column in 0..<8 {
                let x = values[row * 16 + column]
                let expected = x / (1 + ElementaryFunctions.exp(-x)) * values[row * 16 + 8 + column]
                #expect(abs(fused[row * 16 + column] - expected) < 1e-6)
                #expect(fused[row * 16 + 8 + column] == values[row * 16 + 8 + column])
            }
        }
    }
}

extension OpsRandom {
    static func fixed(_ count: Int) -> [Double] {
        var random = OpsRandom(99)
        return random.normals(count)
    }
}
