import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Operations on so many rows that a kernel takes them another way: the bits of the same rows a few at a time.
@Suite(.enabled(if: OpsGPU.isThere, "no CUDA device")) struct ManyRowsGPUTests {
    private let gpu = GPUScope()
    /// All of them, and those of a first part; neither is a multiple of a block's rows.
    private let rows = 1_027
    private let few = 513

    /// Scales that a norm writes, or the one that it is given.
    private enum Way: CaseIterable {
        case given, row, group

        func quantization(_ scales: TensorView) -> OutputQuantization {
            switch self {
            case .given: .scale(0.05)
            case .row: .perRow(scales: scales)
            case .group: .perGroup(size: 128, scales: scales)
            }
        }

        func shape(_ rows: Int, _ width: Int) -> [Int] { self == .group ? [rows, width / 128] : [rows] }
    }

    /// Rows that fill their threads' vectors, and rows that do not.
    @Test(arguments: [DType.bfloat16, .float32], [640, 1_152])
    func rmsNormToBytes(type: DType, width: Int) throws {
        var random = OpsRandom(71)
        let input = try gpu.tensor(type, [rows, width], padding: 16, values: random.normals(rows * width, scale: 3))
        let weight = try gpu.tensor(type, [width], values: random.normals(width))
        for way in Way.allCases {
            let outputs = try (0..<2).map { _ in try gpu.tensor(.float8E4M3, [rows, width], padding: 16) }
            let scales = try (0..<2).map { _ in try gpu.tensor(.float32, way.shape(rows, width)) }
            func run(_ range: Range<Int>, _ place: Int) throws {
                try runOnGPU(
                    .rmsNorm(
                        RMSNormOperation(
                            input: input.view.slice(range, along: 0), weight: weight.view,
                            output: outputs[place].view.slice(range, along: 0), epsilon: 1e-5, weightOffset: 1,
                            quantization: way.quantization(scales[place].view.slice(range, along: 0)))))
            }
            try run(0..<rows, 0)
            try run(0..<few, 1)
            try run(few..<rows, 1)
            for tensor in outputs + scales { try tensor.fetch() }
            #expect(outputs[0].host.isIdentical(to: outputs[1].host), "\(way)")
            if way != .given { #expect(scales[0].host.isIdentical(to: scales[1].host), "\(way)") }
        }
    }

    /// Of few rows, of more and of many, with a residual and without.
    @Test(arguments: [DType.bfloat16, .float32], [640, 1_152])
    func rmsNorm(type: DType, width: Int) throws {
        var random = OpsRandom(74)
        let values = random.normals(rows * width, scale: 3), added = random.normals(rows * width)
        let input = try gpu.tensor(type, [rows, width], padding: 16, values: values)
        let weight = try gpu.tensor(type, [width], values: random.normals(width))
        for isAdded in [false, true] {
            let outputs = try (0..<2).map { _ in try gpu.tensor(type, [rows, width], padding: 16) }
            let residuals = try (0..<2).map { _ in try gpu.tensor(type, [rows, width], padding: 16, values: added) }
            for (range, place) in [(0..<rows, 0), (0..<200, 1), (200..<600, 1), (600..<rows, 1)] {
                try runOnGPU(
                    .rmsNorm(
                        RMSNormOperation(
                            input: input.view.slice(range, along: 0), weight: weight.view,
                            residual: isAdded ? residuals[place].view.slice(range, along: 0) : nil,
                            output: outputs[place].view.slice(range, along: 0), epsilon: 1e-5)))
            }
            for tensor in outputs + residuals { try tensor.fetch() }
            #expect(outputs[0].host.isIdentical(to: outputs[1].host), "added: \(isAdded)")
            #expect(residuals[0].host.isIdentical(to: residuals[1].host))
        }
    }

    @Test(arguments: [DType.bfloat16, .float32], [640, 1_152])
    func layerNorm(type: DType, width: Int) throws {
        var random = OpsRandom(72)
        let input = try gpu.tensor(type, [rows, width], padding: 16, values: random.normals(rows * width, scale: 3))
        let weight = try gpu.tensor(.float32, [width], values: random.normals(width))
        let bias = try gpu.tensor(.float32, [width], values: random.normals(width))
        let outputs = try (0..<2).map { _ in try gpu.tensor(type, [rows, width], padding: 16) }
        for (range, place) in [(0..<rows, 0), (0..<200, 1), (200..<few, 1), (few..<rows, 1)] {
            try runOnGPU(
                .layerNorm(
                    LayerNormOperation(
                        input: input.view.slice(range, along: 0), weight: weight.view, bias: bias.view,
                        output: outputs[place].view.slice(range, along: 0))))
        }
        for tensor in outputs { try tensor.fetch() }
        #expect(outputs[0].host.isIdentical(to: outputs[1].host))
    }

    /// Rotations by a table go another way where there are thousands of blocks; some positions are outside of it.
    @Test(arguments: [RoPEParameters.Pairing.halfSplit, .interleaved])
    func rotationByATable(pairing: RoPEParameters.Pairing) throws {
        var random = OpsRandom(73)
        let (tokens, few) = (2_050, 1_030)
        let queries = try gpu.tensor(.bfloat16, [tokens, 1, 24], values: random.normals(tokens * 24))
        let positions = try gpu.tensor(.int32, [tokens], values: (0..<tokens).map { Double($0 * 7 % 41 - 1) })
        let table = try gpu.tensor(.float32, [37, 16], values: random.normals(37 * 16))
        let outputs = try (0..<2).map { _ in try gpu.tensor(.bfloat16, [tokens, 1, 24]) }
        for (range, place) in [(0..<tokens, 0), (0..<few, 1), (few..<tokens, 1)] {
            try runOnGPU(
                .rope(
                    RoPEOperation(
                        queries: queries.view.slice(range, along: 0),
                        queryOutput: outputs[place].view.slice(range, along: 0),
                        positions: positions.view.slice(range, along: 0),
                        parameters: RoPEParameters(rotaryDim: 16, pairing: pairing), table: table.view)))
        }
        for tensor in outputs { try tensor.fetch() }
        #expect(outputs[0].host.isIdentical(to: outputs[1].host))
    }

    /// Heads of one type: a thread has several of a token's, of which the last block has fewer, and tokens may have no slot. Where a weight is of
    /// another type they are taken another way.
    @Test(arguments: [RoPEParameters.Pairing.halfSplit, .interleaved], [DType.bfloat16, .float16, .float32])
    func rotationWithAppend(pairing: RoPEParameters.Pairing, type: DType) throws {
        var random = OpsRandom(74)
        let (dim, pageSize, pages) = (64, 8, 140)
        let sources = try [21, 3, 3].map { heads in
            try gpu.tensor(type, [rows, heads, dim], values: random.normals(rows * heads * dim, scale: 3)).view
        }
        // Numbers that all types have.
        let weights = try [type, type == .float32 ? .bfloat16 : .float32].map { type in
            try [13, 11].map { count in
                try gpu.tensor(type, [dim], values: (0..<dim).map { Double($0 * 5 % count - 6) / 4 }).view
            }
        }
        let positions = try gpu.tensor(.int32, [rows], values: (0..<rows).map { Double($0 * 7 % 41 - 1) })
        let table = try gpu.tensor(.float32, [37, dim], values: random.normals(37 * dim))
        let places = (0..<rows).map { $0 % 100 == 7 ? -1 : Int32($0 * 37 % (pages * pageSize)) }
        for isNormalised in [false, true] {
            for isTabled in [false, true] {
                let outputs = try (0..<2).map { _ in try gpu.tensor(type, [rows, 21, dim], padding: 16) }
                let caches = try (0..<4).map { _ in try gpu.tensor(type, [pages, pageSize, 3, dim]) }
                func run(_ range: Range<Int>, _ place: Int) throws {
                    let part = sources.map { $0.slice(range, along: 0) }
                    try runOnGPU(
                        .ropeAppendKV(
                            RoPEAppendKVOperation(
                                queries: part[0], keys: part[1], values: part[2],
                                queryOutput: outputs[place].view.slice(range, along: 0),
                                positions: positions.view.slice(range, along: 0),
                                parameters: RoPEParameters(pairing: pairing), table: isTabled ? table.view : nil,
                                normalization: isNormalised
                                    ? HeadNormalization(
                                        queryWeight: weights[place][0], keyWeight: weights[place][1], weightOffset: 1)
                                    : nil,
                                cache: .paged(keys: caches[2 * place].view, values: caches[2 * place + 1].view),
                                slots: KVSlots(slots: Array(places[range]), pageSize: pageSize))))
                }
                try run(0..<rows, 0)
                try run(0..<few, 1)
                try run(few..<rows, 1)
                for tensor in outputs + caches { try tensor.fetch() }
                let name: Comment = "\(isNormalised), \(isTabled)"
                #expect(outputs[0].host.isIdentical(to: outputs[1].host), name)
                #expect(caches[0].host.isIdentical(to: caches[2].host), name)
                #expect(caches[1].host.isIdentical(to: caches[3].host), name)
            }
        }
    }
}
