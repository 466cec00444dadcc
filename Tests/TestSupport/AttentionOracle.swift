package import FlashInferCore

/// Attention by plain loops in float64: what every kernel is compared with.
package struct AttentionOracle {
    /// The batch.
    package var problem: AttentionProblem
    /// Element `d` of query row `token` of the batch and query head `head`.
    package var query: (_ token: Int, _ head: Int, _ d: Int) -> Double
    /// Element `d` of key `j` of a request, key/value head `head`, scales included.
    package var key: (_ request: Int, _ j: Int, _ head: Int, _ d: Int) -> Double
    /// Element `d` of value `j` of a request, key/value head `head`, scales included.
    package var value: (_ request: Int, _ j: Int, _ head: Int, _ d: Int) -> Double
    /// Whether the run's own mask shows key `j` to query `i` of a request.
    package var mask: (_ request: Int, _ i: Int, _ j: Int) -> Bool = { _, _, _ in true }
    /// ALiBi slopes, by query head.
    package var slopes: [Float] = []
    /// Sinks, natural scale, by query head.
    package var sinks: [Float] = []

    /// An oracle for these inputs.
    package init(
        problem: AttentionProblem, query: @escaping (Int, Int, Int) -> Double,
        key: @escaping (Int, Int, Int, Int) -> Double, value: @escaping (Int, Int, Int, Int) -> Double
    ) {
        (self.problem, self.query, self.key, self.value) = (problem, query, key, value)
    }

    /// Outputs, and what their errors scale with.
    package struct Result {
        /// `[tokens, heads, headDimVO]`
        package var output: [Double]
        /// Σ weight · |value| of each output element: an error of relative size e in each weight moves it by at most e times this.
        package var magnitude: [Double]
        /// `[tokens, heads]`, base 2.
        package var logSumExp: [Double]
    }

    /// The whole batch.
    package func evaluate() -> Result {
        let (geometry, shape) = (problem.geometry, problem.shape)
        let count = geometry.queryCount * shape.queryHeads
        var result = Result(
            output: [Double](repeating: 0, count: count * shape.headDimVO),
            magnitude: [Double](repeating: 0, count: count * shape.headDimVO),
            logSumExp: [Double](repeating: -.infinity, count: count))
        for request in 0..<geometry.requestCount {
            for i in 0..<geometry.queryLength(request) {
                for head in 0..<shape.queryHeads { row(request, i, head, &result) }
            }
        }
        return result
    }

    private func row(_ request: Int, _ i: Int, _ head: Int, _ result: inout Result) {
        let (geometry, shape, variant) = (problem.geometry, problem.shape, problem.variant)
        let (token, kvHead) = (Int(geometry.queryIndptr[request]) + i, head / shape.group)
        let columns = geometry.blocks.keyPositions == .columns
        let position =
            columns
            ? geometry.blocks.blockLimit * geometry.blocks.blockSize - geometry.queryCount + token
            : geometry.kvLength(request) - geometry.queryLength(request) + i
        let q = rotated((0..<shape.headDimQK).map { query(token, head, $0) }, position)
        var scores = [Double](repeating: -.infinity, count: geometry.kvLength(request))
        for j in scores.indices {
            let keyPosition = columns ? column(request, j) : j
            if variant.mask == .causal, keyPosition > position { continue }
            if let window = variant.windowLeft, window < position - keyPosition { continue }
            if !mask(request, i, j) { continue }
            let k = rotated((0..<shape.headDimQK).map { key(request, j, kvHead, $0) }, keyPosition)
            var score = zip(q, k).reduce(0) { $0 + $1.0 * $1.1 }
            score *= variant.scale.map { Double($0) } ?? 1 / Double(shape.headDimQK).squareRoot()
            if let cap = variant.logitsSoftCap { score = Double(cap) * ElementaryFunctions.tanh(score / Double(cap)) }
            if variant.positionEncoding == .alibi { score += Double(slopes[head]) * Double(keyPosition - i) }
            scores[j] = score
        }
        let sink = sinks.isEmpty ? -Double.infinity : Double(sinks[head])
        let top = scores.reduce(sink, max)
        if top == -.infinity { return }
        let weights = scores.map { ElementaryFunctions.exp($0 - top) }
        let sum = weights.reduce(ElementaryFunctions.exp(sink - top), +)
        let index = token * shape.queryHeads + head
        result.logSumExp[index] = (top + ElementaryFunctions.log(sum)) * 1.442695040888963407
        for d in 0..<shape.headDimVO {
            var (total, magnitude) = (0.0, 0.0)
            for j in weights.indices where weights[j] > 0 {
                let v = value(request, j, kvHead, d)
                total += weights[j] * v
                magnitude += weights[j] * abs(v)
            }
            result.output[index * shape.headDimVO + d] = total / sum
            result.magnitude[index * shape.headDimVO + d] = magnitude / sum
        }
    }

    private func column(_ request: Int, _ j: Int) -> Int {
        let blocks = problem.geometry.blocks
        return Int(blocks.indices[Int(blocks.indptr[request]) + j / blocks.blockSize]) * blocks.blockSize
            + j % blocks.blockSize
    }

    private func rotated(_ x: [Double], _ position: Int) -> [Double] {
        guard case .rope(let rope) = problem.variant.positionEncoding else { return x }
        var y = x
        let frequencies = rope.frequencies(headDim: x.count)
        for (pair, frequency) in frequencies.enumerated() {
            let (a, b) =
                rope.pairing == .interleaved ? (2 * pair, 2 * pair + 1) : (pair, pair + frequencies.count)
            let angle = Double(position) * frequency
            let (cosine, sine) = (ElementaryFunctions.cos(angle), ElementaryFunctions.sin(angle))
            y[a] = x[a] * cosine - x[b] * sine
            y[b] = x[b] * cosine + x[a] * sine
        }
        return y
    }
}
