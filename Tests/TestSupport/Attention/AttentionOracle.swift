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
    /// Whether key `j` of a request is among what key/value head `head` was given for query `i`: pages that were selected.
    package var selects: (_ request: Int, _ head: Int, _ i: Int, _ j: Int) -> Bool = { _, _, _, _ in true }
    /// ALiBi slopes, by query head.
    package var slopes: [Float] = []
    /// Sinks, natural scale, by query head.
    package var sinks: [Float] = []

    /// The variant's expressions by plain recursion, in the place of the options' formulas.
    package var hooks: VariantOracle?

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
        /// √(Σ (weight · value)²) of each output element: independent errors of relative size e in each weight move it by e times this.
        package var energy: [Double]
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
            output: elements, magnitude: elements, energy: elements, spread: elements,
            logSumExp: [Double](repeating: -.infinity, count: rows), largestScore: [Double](repeating: 0, count: rows))
        var frequencies: [Double] = []
        if case .rope(let rope) = problem.variant.positionEncoding {
            frequencies = rope.frequencies(headDim: shape.headDimQK)
        }
        for request in 0..<geometry.requestCount where geometry.queryLength(request) > 0 {
            for kvHead in 0..<shape.kvHeads {
                let memory = Memory(self, request, kvHead, frequencies)
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
        /// `[keys, headDimQK]`, rotated, and `[keys, headDimVO]`.
        var keys: [Double]
        var values: [Double]
        var frequencies: [Double]

        init(_ oracle: AttentionOracle, _ request: Int, _ head: Int, _ frequencies: [Double]) {
            let (geometry, shape) = (oracle.problem.geometry, oracle.problem.shape)
            let count = geometry.kvLength(request)
            let columns = geometry.blocks.keyPositions == .columns
            self.frequencies = frequencies
            positions = (0..<count).map { columns ? oracle.column(request, $0) : $0 }
            keys = []
            values = []
            for j in 0..<count {
                var key = (0..<shape.headDimQK).map { oracle.key(request, j, head, $0) }
                oracle.rotate(&key, positions[j], frequencies)
                keys += key
                for d in 0..<shape.headDimVO { values.append(oracle.value(request, j, head, d)) }
            }
        }
    }

    private func row(_ request: Int, _ i: Int, _ head: Int, _ memory: Memory, _ result: inout Result) {
        let (geometry, shape, variant) = (problem.geometry, problem.shape, problem.variant)
        let token = Int(geometry.queryIndptr[request]) + i
        let position =
            geometry.blocks.keyPositions == .columns
            ? geometry.blocks.blockLimit * geometry.blocks.blockSize - geometry.queryCount + token
            : geometry.kvLength(request) - geometry.queryLength(request) + i
        var q = (0..<shape.headDimQK).map { query(token, head, $0) }
        rotate(&q, position, memory.frequencies)
        let scale = variant.scale.map { Double($0) } ?? 1 / Double(shape.headDimQK).squareRoot()
        var scores = [Double](repeating: -.infinity, count: memory.positions.count)
        var largest = 0.0
        for (j, keyPosition) in memory.positions.enumerated() where selects(request, head / shape.group, i, j) {
            var site = OracleSite()
            (site.request, site.head, site.kvHead) = (request, head, head / shape.group)
            (site.queryIndex, site.queryPosition, site.keyPosition) = (i, position, keyPosition)
            (site.queryLength, site.keyLength) = (geometry.queryLength(request), geometry.kvLength(request))
            var score = scale * Self.dot(q, memory.keys, row: j)
            if let hooks {
                guard hooks.shows(site, key: j) else { continue }
                largest = max(largest, abs(score))
                score = hooks.logit(site, score)
            } else {
                guard isVisible(request, i, j, position, keyPosition) else { continue }
                if let cap = variant.logitsSoftCap {
                    score = Double(cap) * ElementaryFunctions.tanh(score / Double(cap))
                }
                if variant.positionEncoding == .alibi { score += Double(slopes[head]) * Double(keyPosition - i) }
            }
            scores[j] = score
            largest = max(largest, abs(score))
        }
        var sink = sinks.isEmpty ? -Double.infinity : Double(sinks[head])
        if case .logit(let logit) = variant.sink { sink = Double(logit) }
        let index = token * shape.queryHeads + head
        var site = OracleSite()
        (site.request, site.head, site.kvHead) = (request, head, head / shape.group)
        (site.queryIndex, site.queryPosition) = (i, position)
        (site.queryLength, site.keyLength) = (geometry.queryLength(request), geometry.kvLength(request))
        if let own = hooks?.sink(site) { sink = own }
        let top = scores.reduce(sink, max)
        if top == -.infinity {
            if let empty = hooks?.output(site, 0) {
                for d in 0..<shape.headDimVO { result.output[index * shape.headDimVO + d] = empty }
            }
            return
        }
        var (weights, sum) = ([Double](), 1.0)
        if let hooks, variant.weights != .softmax {
            weights = scores.indices.map { j in
                site.keyPosition = memory.positions[j]
                return scores[j] == -.infinity ? 0 : hooks.weight(site, scores[j])
            }
        } else {
            weights = scores.map { ElementaryFunctions.exp($0 - top) }
            sum = weights.reduce(ElementaryFunctions.exp(sink - top), +)
            var logSum = top + ElementaryFunctions.log(sum)
            if let next = hooks?.normalizer(site, logSum) {
                sum *= ElementaryFunctions.exp(next - logSum)
                logSum = next
            }
            result.logSumExp[index] = logSum * 1.442695040888963407
        }
        result.largestScore[index] = largest
        let width = shape.headDimVO
        let zeros = [Double](repeating: 0, count: width)
        var (total, magnitude, energy, spread) = (zeros, zeros, zeros, zeros)
        for j in weights.indices where scores[j] > -.infinity {
            let (weight, start) = (weights[j] / sum, j * width)
            site.keyPosition = memory.positions[j]
            for d in 0..<width {
                let raw = memory.values[start + d]
                let v = hooks?.value(site, raw) ?? raw
                // A factor may be multiplied into the weight.
                spread[d] += max(abs(v), abs(raw)) / sum
                // A weight of 0 hides a value, whatever it is.
                if weight > 0 {
                    total[d] += weight * v
                    magnitude[d] += weight * abs(v)
                    energy[d] += weight * v * weight * v
                }
            }
        }
        if let hooks {
            // An error of the element moves the result by as much more as the hook is steep there.
            for d in 0..<width {
                guard let changed = hooks.output(site, total[d]), let next = hooks.output(site, total[d] + 0x1p-16)
                else { break }
                let slope = abs(next - changed) * 0x1p16
                (total[d], magnitude[d], spread[d]) = (changed, magnitude[d] * slope, spread[d] * slope)
            }
        }
        for d in 0..<width {
            result.output[index * width + d] = total[d]
            result.magnitude[index * width + d] = magnitude[d]
            result.energy[index * width + d] = energy[d].squareRoot()
            result.spread[index * width + d] = spread[d]
        }
    }

    private func isVisible(_ request: Int, _ i: Int, _ j: Int, _ position: Int, _ keyPosition: Int) -> Bool {
        if problem.variant.form.mask == .causal, keyPosition > position { return false }
        if let window = problem.variant.windowLeft, window < position - keyPosition { return false }
        return mask(request, i, j)
    }

    private static func dot(_ q: [Double], _ keys: [Double], row: Int) -> Double {
        let first = row * q.count
        var sum = 0.0
        for d in q.indices { sum += q[d] * keys[first + d] }
        return sum
    }

    private func column(_ request: Int, _ j: Int) -> Int {
        let blocks = problem.geometry.blocks
        return Int(blocks.indices[Int(blocks.indptr[request]) + j / blocks.blockSize]) * blocks.blockSize
            + j % blocks.blockSize
    }

    private func rotate(_ x: inout [Double], _ position: Int, _ frequencies: [Double]) {
        guard case .rope(let rope) = problem.variant.positionEncoding else { return }
        for (pair, frequency) in frequencies.enumerated() {
            let (i, j) =
                rope.pairing == .interleaved ? (2 * pair, 2 * pair + 1) : (pair, pair + frequencies.count)
            let angle = Double(position) * frequency
            let (cosine, sine) = (ElementaryFunctions.cos(angle), ElementaryFunctions.sin(angle))
            (x[i], x[j]) = (x[i] * cosine - x[j] * sine, x[j] * cosine + x[i] * sine)
        }
    }
}
