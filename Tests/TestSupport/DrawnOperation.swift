public import FlashInferCore

/// Operations on rows with shapes, types and alignments drawn from seeds.
public enum DrawnOperation {
    /// What is wrong with the operation that `seed` stands for, where `runner` runs it; `nil` for nothing.
    public static func problem(
        from seed: UInt64, on runner: OpsRunner, _ compute: [DType], _ eight: [DType]
    ) throws -> String? {
        var g = SeededGenerator(seed: seed &* 59 &+ 23)
        func draw<Element>(_ values: [Element]) -> Element { values[Int.random(in: 0..<values.count, using: &g)] }
        var random = OpsRandom(seed &+ 1)
        let layout = draw([OpsLayout.all[0], OpsLayout.all[1], OpsLayout.all[2], OpsLayout.all[3]])
        let width = draw([
            1, 2, 7, 8, 33, 64, 100, 128, 255, 576, 1_024, 4_000, 5_120, Int.random(in: 1...700, using: &g),
        ])
        let shape = draw([[width], [1, width], [3, width], [17, width], [2, 3, width], [0, width]])
        let (input, weight, output, narrow) = (draw(compute), draw(compute), draw(compute), draw(eight))
        let text: String
        let problem: String?
        switch Int.random(in: 0..<6, using: &g) {
        case 0:
            let hasResidual = draw([true, false]), mean = draw([0, 0, 100.0])
            text = "layer norm \(input) \(weight) \(output) \(shape) residual \(hasResidual) mean \(mean)"
            problem = try runner.layerNormProblem(
                (input, weight, output), shape, layout, hasResidual: hasResidual, mean: mean, &random)
        case 1:
            let way = draw(QuantizationWay.all)
            text = "quantise \(input) \(narrow) \(way) \(shape)"
            problem = try runner.quantizeProblem(input, narrow, way, shape, layout, &random)
        case 2:
            let size = draw([32, 64, 128]), groups = draw([1, 2, 3, 9])
            let source = draw(GroupedSource.all), byColumns = draw([true, false])
            let rows = draw([[1], [3], [2, 5]])
            text = "groups of \(size), \(rows) x \(groups), \(input) \(narrow) \(source) by columns \(byColumns)"
            problem = try runner.groupProblem(
                input, narrow, size: size, rows + [size * groups], layout, byColumns: byColumns, source, &random)
        case 3:
            let count = Int.random(in: 1...300, using: &g)
            let segments: [Int]? = draw([true, false]) ? [0, count / 3, 1, 0, count] : nil
            text = "bits of \(count), segments \(segments.map { "\($0)" } ?? "-")"
            problem = try runner.packBitsProblem(
                draw([.highestFirst, .lowestFirst]), count: segments?.reduce(2, +) ?? count,
                lead: draw([0, 1, 5]), segments: segments, &random)
        case 4:
            let dim = draw([2, 8, 10, 64, 80, 96, 128, 256])
            let test = RoPECase(
                parameters: RoPEParameters(
                    theta: draw([10_000, 500_000]), rotaryDim: draw([nil, 2 * Int.random(in: 0...dim / 2, using: &g)]),
                    pairing: draw([.halfSplit, .interleaved]), scaling: draw([.none, .linear(factor: 4)])),
                queryHeads: draw([1, 3, 8, 33]), heads: draw([0, 1, 2, 5]), headDim: dim,
                isTabled: draw([true, false, false]), normOffset: draw([nil, nil, 0, 1]),
                isInPlace: draw([true, false]), padding: draw([0, 0, 1, 3, 16]))
            text = "\(test) \(input) \(output) \(weight)"
            problem = try runner.ropeProblem(
                test, input, output: test.isInPlace ? input : output, weightType: weight, &random)
        default:
            let dim = draw([8, 16, 64]), rest = draw([1, 8, 24, 128])
            let isLatent = draw([true, false])
            text = "split RoPE \(dim) \(rest) latent \(isLatent)"
            problem = try runner.splitProblem(
                input, draw([input, .float8E4M3, .float8E5M2]), isLatent: isLatent, isStored: draw([true, false]),
                isTable: draw([true, false]), rotaryDim: dim, restDim: rest, isTabled: draw([true, false]),
                pairing: draw([.halfSplit, .interleaved]), padding: draw([0, 1, 3, 16]), &random)
        }
        return problem.map { "\(text), padding \(layout.padding) lead \(layout.lead): \($0)" }
    }
}
