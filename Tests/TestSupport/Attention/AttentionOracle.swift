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
        /// Σ |value| of the keys seen over the sum of the weights (the largest is 1): an error of absolute size e in each weight
        /// moves an output element by at most e times this.
        package var spread: [Double]
        /// `[tokens, heads]`, base 2.
        package var logSumExp: [Double]
        /// `[tokens, heads]`: the largest |score|, natural scale, of the keys seen.
        package var largestScore: [Double]
    }

    /// The whole batch.
    package func evaluate() -> Result {
        let (geometry, shape) = (problem.geometry, problem.shape)
        let rows = geometry.queryCount * shape.queryHeads
        let elements = [Double](repeating: 0, count: rows * shape.headDimVO)
        var result = Result(
            output: elements, magnitude: elements, spread: elements,
            logSumExp: [Double](repeating: -.infinity, count: rows), largestScore: [Double](repeating: 0, count: rows))
        for request in 0..<geometry.requestCount where geometry.queryLength(request) > 0 {
            for kvHead in 0..<shape.kvHeads {
                let memory = Memory(self, request, kvHead)
                for i in 0..<geometry.queryLength(request) {
                    for head in kvHead * shape.group..<(kvHead + 1) * shape.group {
                        row(request, i, head, memory, &result)
                    }
                }
            }
        }
        return result
    }

    /// The keys and values of one request and key/value head, as every one of its rows sees them.
    private struct Memory {
        var positions: [Int]
        var keys: [[Double]]
        var values: [[Double]]

        init(_ oracle: AttentionOracle, _ request: Int, _ head: Int) {
            let (geometry, shape) = (oracle.problem.geometry, oracle.problem.shape)
            let count = geometry.kvLength(request)
            let columns = geometry.blocks.keyPositions == .columns
            let positions = (0..<count).map { columns ? oracle.column(request, $0) : $0 }
            self.positions = positions
            keys = (0..<count).map { j in
                oracle.rotated((0..<shape.headDimQK).map { oracle.key(request, j, head, $0) }, positions[j])
            }
            values = (0..<count).map { j in (0..<shape.headDimVO).map { oracle.value(request, j, head, $0) } }
        }
    }

    private func row(_ request: Int, _ i: Int, _ head: Int, _ memory: Memory, _ result: inout Result) {
        let (geometry, shape, variant) = (problem.geometry, problem.shape, problem.variant)
        let token = Int(geometry.queryIndptr[request]) + i
        let position =
            geometry.blocks.keyPositions == .columns
            ? geometry.blocks.blockLimit * geometry.blocks.blockSize - geometry.queryCount + token
            : geometry.kvLength(request) - geometry.queryLength(request) + i
        let q = rotated((0..<shape.headDimQK).map { query(token, head, $0) }, position)
        let scale = variant.scale.map { Double($0) } ?? 1 / Double(shape.headDimQK).squareRoot()
        var scores = [Double](repeating: -.infinity, count: memory.keys.count)
        var largest = 0.0
        for (j, keyPosition) in memory.positions.enumerated() {
            if variant.mask == .causal, keyPosition > position { continue }
            if let window = variant.windowLeft, window < position - keyPosition { continue }
            if !mask(request, i, j) { continue }
            var score = scale * Self.dot(q, memory.keys[j])
            if let cap = variant.logitsSoftCap { score = Double(cap) * ElementaryFunctions.tanh(score / Double(cap)) }
            if variant.positionEncoding == .alibi { score += Double(slopes[head]) * Double(keyPosition - i) }
            scores[j] = score
            largest = max(largest, abs(score))
        }
        let sink = sinks.isEmpty ? -Double.infinity : Double(sinks[head])
        let top = scores.reduce(sink, max)
        if top == -.infinity { return }
        let weights = scores.map { ElementaryFunctions.exp($0 - top) }
        let sum = weights.reduce(ElementaryFunctions.exp(sink - top), +)
        let index = token * shape.queryHeads + head
        result.logSumExp[index] = (top + ElementaryFunctions.log(sum)) * 1.442695040888963407
        result.largestScore[index] = largest
        let first = index * shape.headDimVO
        for j in weights.indices where scores[j] > -.infinity {
            for (d, v) in memory.values[j].enumerated() {
                // A weight of 0 hides a value, whatever it is.
                if weights[j] > 0 {
                    result.output[first + d] += weights[j] * v / sum
                    result.magnitude[first + d] += weights[j] * abs(v) / sum
                }
                result.spread[first + d] += abs(v) / sum
            }
        }
    }

    private static func dot(_ a: [Double], _ b: [Double]) -> Double {
        var sum = 0.0
        for d in a.indices { sum += a[d] * b[d] }
        return sum
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
