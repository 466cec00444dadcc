import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Layer norm, conversion to 8 bits, packed bits, and rotations with more to them on the GPU: the checks of the CPU.
@Suite(.enabled(if: OpsGPU.isThere, "no CUDA device")) struct RowCheckGPUTests {
    private let gpu = GPUScope()
    private let runner: OpsRunner
    static let types: [DType] = [.float32, .float16, .bfloat16]
    static let bytes: [DType] = [.float8E4M3, .float8E5M2, .int8]

    init() {
        runner = .gpu(gpu)
    }

    @Test(arguments: types, OpsLayout.all)
    func layerNorm(input: DType, layout: OpsLayout) throws {
        var random = OpsRandom(81)
        for (weight, output) in [(input, input), (DType.float32, input)] {
            for width in [1, 7, 8, 64, 128, 111, 136, 2_056, 4_096, 8_200] {
                for (hasResidual, mean) in [(false, 0.0), (true, 0), (false, 200)] {
                    let problem = try runner.layerNormProblem(
                        (input, weight, output), [3, 2, width], layout, hasResidual: hasResidual, mean: mean, &random)
                    #expect(problem == nil, "weights \(weight), width \(width)")
                }
            }
        }
    }

    @Test(arguments: types, [16_384, 16_392, 40_001])
    func layerNormOfWideRows(input: DType, width: Int) throws {
        var random = OpsRandom(82)
        let problem = try runner.layerNormProblem(
            (input, .float32, input), [2, width], OpsLayout.all[0], hasResidual: true, &random)
        #expect(problem == nil)
    }

    @Test(arguments: types, bytes)
    func quantizedLayerNormAndRows(input: DType, output: DType) throws {
        var random = OpsRandom(83)
        for way in QuantizationWay.all {
            for width in [1, 7, 64, 111, 576, 4_096, 16_400] {
                for layout in OpsLayout.all {
                    let norm = try runner.quantizedLayerNormProblem(input, output, way, width: width, layout, &random)
                    #expect(norm == nil, "layer norm, \(way), width \(width)")
                    let rows = try runner.quantizeProblem(input, output, way, [2, 2, width], layout, &random)
                    #expect(rows == nil, "\(way), width \(width)")
                }
            }
        }
    }

    @Test(arguments: types, bytes)
    func groups(input: DType, output: DType) throws {
        var random = OpsRandom(84)
        for (size, width) in [(32, 32), (32, 96), (64, 192), (128, 128), (128, 640), (128, 4_096), (64, 16_448)] {
            for layout in OpsLayout.all {
                for (place, source) in GroupedSource.all.enumerated() {
                    let problem = try runner.groupProblem(
                        input, output, size: size, [3, 2, width], layout, byColumns: place % 2 == 0, source, &random)
                    #expect(problem == nil, "groups of \(size) of \(width), \(source)")
                }
            }
        }
    }

    @Test(arguments: PackBitsOperation.Order.allCases)
    func packedBits(order: PackBitsOperation.Order) throws {
        var random = OpsRandom(85)
        #expect(try runner.packBitsProblems(order, &random) == [])
    }

    /// Segments that the device's memory has wrong: whatever they say, nothing beside the output is written.
    @Test func wildSegmentsStayInside() throws {
        let flags = try gpu.tensor(.uint8, [64], values: [Double](repeating: 1, count: 64))
        let output = try gpu.tensor(.uint8, [8])
        let starts = try gpu.tensor(.int32, [4], values: [-1_000_000, 60, 2_000_000_000, -5])
        let bytes = try gpu.tensor(.int32, [4], values: [0, 3, -7, 100])
        try runOnGPU(
            .packBits(
                PackBitsOperation(
                    flags: flags.view, output: output.view, order: .highestFirst,
                    segments: .init(flags: starts.view, bytes: bytes.view))))
        try output.fetch()
        #expect(output.host.paddingIsIntact)
    }

    @Test(arguments: RoPECase.all, types)
    func rope(test: RoPECase, input: DType) throws {
        var random = OpsRandom(86)
        for (output, weight) in [(input, input), (.float32, .float32), (.float16, .bfloat16)] as [(DType, DType)] {
            let problem = try runner.ropeProblem(test, input, output: output, weightType: weight, &random)
            #expect(problem == nil, "to \(output), weights \(weight)")
        }
    }

    @Test(arguments: types, [DType.float8E4M3, .float8E5M2, .int8, .bfloat16, .float32])
    func splitRoPE(input: DType, output: DType) throws {
        var random = OpsRandom(87)
        for (isLatent, isStored) in [(false, false), (true, false), (false, true), (true, true)] {
            for (rotaryDim, restDim, padding) in [(64, 512, 0), (64, 64, 0), (16, 8, 3), (6, 5, 0)] {
                for pairing in [RoPEParameters.Pairing.halfSplit, .interleaved] {
                    let problem = try runner.splitProblem(
                        input, output, isLatent: isLatent, isStored: isStored, isTable: pairing == .interleaved,
                        rotaryDim: rotaryDim, restDim: restDim, isTabled: pairing == .halfSplit, pairing: pairing,
                        padding: padding, &random)
                    #expect(problem == nil, "latent \(isLatent), stored \(isStored), \(rotaryDim) + \(restDim)")
                }
            }
        }
    }

    @Test func positionsOutsideOfTheTableGiveNaN() throws {
        let table = try gpu.tensor(.float32, [4, 8], values: [Double](repeating: 0.5, count: 32))
        let positions = try gpu.tensor(.int32, [4], values: [3, 4, -1, Double(Int32.max)])
        for headNorm in [false, true] {
            let queries = try gpu.tensor(.float32, [4, 2, 8], values: [Double](repeating: 1, count: 64))
            let weight = try gpu.tensor(.float32, [8], values: [Double](repeating: 1, count: 8))
            try runOnGPU(
                .rope(
                    RoPEOperation(
                        queries: queries.view, positions: positions.view, parameters: RoPEParameters(),
                        table: table.view, normalization: headNorm ? HeadNormalization(queryWeight: weight.view) : nil))
            )
            let found = try queries.fetch()
            #expect(found[..<16].allSatisfy(\.isFinite) && found[16...].allSatisfy(\.isNaN))
        }
    }
}
