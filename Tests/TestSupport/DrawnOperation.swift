internal import FlashInferCore

/// Operations on rows with shapes, types and alignments drawn from seeds.
public enum DrawnOperation {
    /// What is wrong with the operation that `seed` stands for, where `runner` runs it; `nil` for nothing.
    public static func problem(from seed: UInt64, on runner: OpsRunner) throws -> String? {
        var g = SeededGenerator(seed: seed &* 59 &+ 23)
        var random = OpsRandom(seed &+ 1)
        let layout = g.pick(OpsLayout.all)
        let width = g.pick([
            1, 2, 7, 8, 33, 64, 100, 128, 255, 576, 1_024, 4_000, 5_120, Int.random(in: 1...700, using: &g),
        ])
        let shape = g.pick([[width], [1, width], [3, width], [17, width], [2, 3, width], [0, width]])
        let wide: [DType] = [.float32, .float16, .bfloat16]
        let (input, weight, output) = (g.pick(wide), g.pick(wide), g.pick(wide))
        let narrow = g.pick([DType.float8E4M3, .float8E5M2, .int8])
        let text: String
        let problem: String?
        switch Int.random(in: 0..<6, using: &g) {
        case 0:
            let hasResidual = g.pick([true, false]), mean = g.pick([0, 0, 100.0])
            text = "layer norm \(input) \(weight) \(output) \(shape) residual \(hasResidual) mean \(mean)"
            problem = try runner.layerNormProblem(
                (input, weight, output), shape, layout, hasResidual: hasResidual, mean: mean, &random)
        case 1:
            let way = g.pick(QuantizationWay.all)
            text = "quantise \(input) \(narrow) \(way) \(shape)"
            problem = try runner.quantizeProblem(input, narrow, way, shape, layout, &random)
        case 2:
            let size = g.pick([32, 64, 128]), groups = g.pick([1, 2, 3, 9])
            let source = g.pick(GroupedSource.all), byColumns = g.pick([true, false])
            let rows = g.pick([[1], [3], [2, 5]])
            text = "groups of \(size), \(rows) x \(groups), \(input) \(narrow) \(source) by columns \(byColumns)"
            problem = try runner.groupProblem(
                input, narrow, size: size, rows + [size * groups], layout, byColumns: byColumns, source, &random)
        case 3:
            let count = Int.random(in: 1...300, using: &g)
            let segments: [Int]? = g.pick([true, false]) ? [0, count / 3, 1, 0, count] : nil
            text = "bits of \(count), segments \(segments.map { "\($0)" } ?? "-")"
            problem = try runner.packBitsProblem(
                g.pick([.highestFirst, .lowestFirst]), count: segments?.reduce(2, +) ?? count,
                lead: g.pick([0, 1, 5]), segments: segments, &random)
        case 4:
            let dim = g.pick([2, 8, 10, 64, 80, 96, 128, 256])
            let test = RoPECase(
                parameters: RoPEParameters(
                    theta: g.pick([10_000, 500_000]),
                    rotaryDim: g.pick([nil, 2 * Int.random(in: 0...dim / 2, using: &g)]),
                    pairing: g.pick([.halfSplit, .interleaved]), scaling: g.pick([.none, .linear(factor: 4)])),
                queryHeads: g.pick([1, 3, 8, 33]), heads: g.pick([0, 1, 2, 5]), headDim: dim,
                isTabled: g.pick([true, false, false]), normOffset: g.pick([nil, nil, 0, 1]),
                isInPlace: g.pick([true, false]), padding: g.pick([0, 0, 1, 3, 16]))
            text = "\(test) \(input) \(output) \(weight)"
            problem = try runner.ropeProblem(
                test, input, output: test.isInPlace ? input : output, weightType: weight, &random)
        default:
            let dim = g.pick([8, 16, 64]), rest = g.pick([1, 8, 24, 128])
            let isLatent = g.pick([true, false])
            text = "split RoPE \(dim) \(rest) latent \(isLatent)"
            problem = try runner.splitProblem(
                input, g.pick([input, .float8E4M3, .float8E5M2]), isLatent: isLatent, isStored: g.pick([true, false]),
                isTable: g.pick([true, false]), rotaryDim: dim, restDim: rest, isTabled: g.pick([true, false]),
                pairing: g.pick([.halfSplit, .interleaved]), padding: g.pick([0, 1, 3, 16]), &random)
        }
        return problem.map { "\(text), padding \(layout.padding) lead \(layout.lead): \($0)" }
    }
}
