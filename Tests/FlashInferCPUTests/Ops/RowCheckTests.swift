import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

/// Layer norm, conversion to 8 bits, packed bits, and rotations with more to them: the checks that a GPU has too.
@Suite struct RowCheckTests {
    static let types: [DType] = [.float32, .float16, .bfloat16]
    static let bytes: [DType] = [.float8E4M3, .float8E5M2, .int8]

    private func runner(_ set: InstructionSet) -> OpsRunner {
        .host(CPUDevice(threads: 2, instructionSet: set))
    }

    @Test(arguments: instructionSets)
    func layerNorm(set: InstructionSet) throws {
        let runner = runner(set)
        var random = OpsRandom(81)
        for input in Self.types {
            for (weight, output) in [(input, input), (DType.float32, input), (.bfloat16, .float32)] {
                for width in widths {
                    for layout in OpsLayout.all {
                        for (hasResidual, mean) in [(false, 0.0), (true, 0), (false, 200)] {
                            let problem = try runner.layerNormProblem(
                                (input, weight, output), [2, 2, width], layout, hasResidual: hasResidual, mean: mean,
                                &random)
                            #expect(problem == nil, "\(input), \(weight), \(output), width \(width), \(layout)")
                        }
                    }
                }
            }
        }
    }

    @Test(arguments: instructionSets, bytes)
    func quantizedLayerNormAndRows(set: InstructionSet, output: DType) throws {
        let runner = runner(set)
        var random = OpsRandom(82)
        for input in Self.types {
            for way in QuantizationWay.all {
                for width in [1, 7, 64, 111, 576] {
                    for layout in OpsLayout.all {
                        let norm = try runner.quantizedLayerNormProblem(
                            input, output, way, width: width, layout, &random)
                        #expect(norm == nil, "layer norm of \(input), \(way), width \(width)")
                        let rows = try runner.quantizeProblem(input, output, way, [2, 2, width], layout, &random)
                        #expect(rows == nil, "\(input), \(way), width \(width)")
                    }
                }
            }
        }
    }

    @Test(arguments: instructionSets, bytes)
    func groups(set: InstructionSet, output: DType) throws {
        let runner = runner(set)
        var random = OpsRandom(83)
        for input in Self.types {
            for (size, width) in [(32, 32), (32, 96), (64, 192), (128, 128), (128, 640)] {
                for layout in OpsLayout.all {
                    for (place, source) in GroupedSource.all.enumerated() {
                        let problem = try runner.groupProblem(
                            input, output, size: size, [3, 2, width], layout, byColumns: place % 2 == 0,
                            source, &random)
                        #expect(problem == nil, "\(input), groups of \(size) of \(width), \(source)")
                    }
                }
            }
        }
    }

    @Test(arguments: PackBitsOperation.Order.allCases)
    func packedBits(order: PackBitsOperation.Order) throws {
        var random = OpsRandom(84)
        #expect(try runner(.detected).packBitsProblems(order, &random) == [])
    }

    @Test(arguments: instructionSets, RoPECase.all)
    func rope(set: InstructionSet, test: RoPECase) throws {
        let runner = runner(set)
        var random = OpsRandom(85)
        for input in Self.types {
            for (output, weight) in [(input, input), (.float32, .float32), (.float16, .bfloat16)] as [(DType, DType)] {
                let problem = try runner.ropeProblem(test, input, output: output, weightType: weight, &random)
                #expect(problem == nil, "\(input) to \(output), weights \(weight)")
            }
        }
    }

    /// The rotation sees what a norm with a float32 output gives, bit by bit, with an append and without.
    @Test(arguments: instructionSets)
    func normalisedHeadsAreTheSeparateOperations(set: InstructionSet) throws {
        let device = CPUDevice(threads: 2, instructionSet: set)
        let runner = OpsRunner.host(device)
        var random = OpsRandom(86)
        for (input, dim) in [(DType.bfloat16, 128), (.float32, 80), (.float16, 11)] {
            let parameters = RoPEParameters(rotaryDim: dim == 11 ? 6 : nil, pairing: .interleaved)
            let sources = try [3, 2, 2].map { heads in
                try runner.tensor(input, [4, heads, dim], values: random.normals(4 * heads * dim))
            }
            let weights = try (0..<2).map { _ in try runner.tensor(.float32, [dim], values: random.normals(dim)) }
            let positions = try runner.tensor(.int32, [4], values: [0, 5, 77, 1_000])
            let slots = try KVSlots(slots: [3, 0, -1, 6], pageSize: 4)
            var found: [[PlacedTensor]] = []
            for isFused in [true, false] {
                let caches = try (0..<2).map { _ in try runner.tensor(.float8E4M3, [2, 4, 2, dim]) }
                let output = try runner.tensor(.float32, [4, 3, dim])
                let cache = try KVCacheView.paged(keys: caches[0].view, values: caches[1].view)
                if isFused {
                    try runner.run(
                        .ropeAppendKV(
                            RoPEAppendKVOperation(
                                queries: sources[0].view, keys: sources[1].view, values: sources[2].view,
                                queryOutput: output.view, positions: positions.view, parameters: parameters,
                                normalization: HeadNormalization(
                                    queryWeight: weights[0].view, keyWeight: weights[1].view, weightOffset: 1),
                                cache: cache, slots: slots)))
                } else {
                    let wide = try [3, 2].map { try runner.tensor(.float32, [4, $0, dim]) }
                    for index in 0..<2 {
                        try runner.run(
                            .rmsNorm(
                                RMSNormOperation(
                                    input: sources[index].view, weight: weights[index].view, output: wide[index].view,
                                    weightOffset: 1)))
                    }
                    let turned = try runner.tensor(.float32, [4, 2, dim])
                    try runner.run(
                        .rope(
                            RoPEOperation(
                                queries: wide[0].view, keys: wide[1].view, queryOutput: output.view,
                                keyOutput: turned.view, positions: positions.view, parameters: parameters)))
                    try runner.run(
                        .appendKV(
                            AppendKVOperation(
                                keys: turned.view, values: sources[2].view, cache: cache, slots: slots)))
                }
                found.append(caches + [output])
            }
            for (fused, separate) in zip(found[0], found[1]) {
                #expect(fused.host.isIdentical(to: separate.host), "\(input), \(dim) elements")
            }
        }
    }

    @Test(arguments: instructionSets, [DType.float8E4M3, .float8E5M2, .int8, .bfloat16, .float32])
    func splitRoPE(set: InstructionSet, output: DType) throws {
        let runner = runner(set)
        var random = OpsRandom(87)
        for input in Self.types {
            for (isLatent, isStored) in [(false, false), (true, false), (false, true), (true, true)] {
                for (rotaryDim, restDim, padding) in [(64, 512, 0), (64, 64, 0), (16, 8, 3), (6, 5, 0)] {
                    for pairing in [RoPEParameters.Pairing.halfSplit, .interleaved] {
                        let problem = try runner.splitProblem(
                            input, output, isLatent: isLatent, isStored: isStored, isTable: pairing == .interleaved,
                            rotaryDim: rotaryDim, restDim: restDim, isTabled: pairing == .halfSplit, pairing: pairing,
                            padding: padding, &random)
                        #expect(
                            problem == nil, "\(input), latent \(isLatent), stored \(isStored), \(rotaryDim)+\(restDim)")
                    }
                }
            }
            let problem = try runner.splitProblem(
                input, output, isLatent: false, isStored: false, isTable: false, rotaryDim: 128, restDim: 0,
                isTabled: true, pairing: .halfSplit, padding: 0, &random)
            #expect(problem == nil, "\(input), no rest")
        }
    }
}
