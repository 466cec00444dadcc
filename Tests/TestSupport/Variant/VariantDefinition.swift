package import FlashInferCore

/// A variant beside its definition, written down without an expression: plain arithmetic on positions and scores.
package struct VariantDefinition: Sendable {
    /// Where a score is.
    package struct Pair {
        package var head = 0, query = 0, position = 0, key = 0
    }

    package var name: String
    package var variant: AttentionVariant
    package var parameters: [String: ParameterValue] = [:]
    /// The logit of a score, `scale · (q · k)`; `nil` where the key is hidden.
    package var logit: @Sendable (_ score: Double, _ at: Pair) -> Double?
    /// The weight of a logit, where it is not the softmax's.
    package var weight: (@Sendable (_ logit: Double) -> Double)?
    /// A head's sink.
    package var sink: (@Sendable (_ head: Int) -> Double)?
    /// What a value of a key is multiplied by.
    package var value: (@Sendable (_ key: Int) -> Double)?
    /// What the logarithm of a row's sum becomes.
    package var logSum: (@Sendable (_ logSum: Double) -> Double)?
    /// What an output of a head is multiplied by.
    package var output: (@Sendable (_ head: Int) -> Double)?
    /// Whether queries and keys are rotated by the position, base 10,000, halves in pairs.
    package var isRotated = false

    package static let queryLength = 24, keyLength = 150, queryHeads = 4, kvHeads = 2, headDim = 32
}

extension VariantDefinition {
    private static let ids = (0..<Int32(keyLength)).map { $0 / 23 }
    private static let prompt: Int32 = 40
    private static let forget = (0..<keyLength).map { Float($0 % 11) / 8 }
    private static let sinks = (0..<queryHeads).map { Double($0) - 1.5 }
    /// A row of the tree is a node after the last `queryLength` keys; each node's parent is the one of half its number.
    private static let ancestors: [Int32] = {
        var bits = [Int32](repeating: 0, count: keyLength)
        for node in 0..<queryLength {
            var (walk, seen) = (node, Int32(0))
            while true {
                seen |= 1 << Int32(walk)
                if walk == 0 { break }
                walk /= 2
            }
            bits[keyLength - queryLength + node] = seen
        }
        return bits
    }()

    /// All that is built in.
    package static let all: [VariantDefinition] = {
        let ids = Parameter<Int32>("ids", .perPosition), prompt = Parameter<Int32>("prompt", .perRequest)
        let ancestors = Parameter<Int32>("ancestors", .perPosition), lambda = Parameter<Float>("lambda", .perHead)
        let forget = Parameter<Float>("forget", .perPosition)
        let documents = ["ids": ParameterValue(Self.ids)]
        @Sendable func causal(_ score: Double, _ at: Pair) -> Double? { at.key <= at.position ? score : nil }
        return [
            VariantDefinition(name: "full", variant: .full) { score, _ in score },
            VariantDefinition(name: "causal", variant: .causal, logit: causal),
            VariantDefinition(name: "window", variant: AttentionVariant(mask: .none, windowLeft: 20)) { score, at in
                at.position - at.key <= 20 ? score : nil
            },
            VariantDefinition(
                name: "soft cap", variant: AttentionVariant(mask: .causal, logitsSoftCap: 3)
            ) { score, at in at.key <= at.position ? 3 * ElementaryFunctions.tanh(score / 3) : nil },
            VariantDefinition(
                name: "alibi", variant: AttentionVariant(mask: .causal, positionEncoding: .alibi)
            ) { score, at in
                // Slopes of four heads: 2^-2, 2^-4, 2^-6, 2^-8.
                let slope = ElementaryFunctions.pow(2, -2 * Double(at.head + 1))
                return at.key <= at.position ? score + slope * Double(at.key - at.query) : nil
            },
            VariantDefinition(
                name: "rope", variant: AttentionVariant("rope", mask: .causal, rope: RoPEParameters(theta: 10000)),
                logit: causal, isRotated: true),
            VariantDefinition(
                name: "sinks", variant: AttentionVariant("sinks", mask: .causal, sink: .perHead), logit: causal,
                sink: { Self.sinks[$0] }),
            VariantDefinition(
                name: "documents", variant: AttentionVariant("d", mask: .causal && .documents(ids)),
                parameters: documents
            ) { score, at in at.key <= at.position && at.key / 23 == at.position / 23 ? score : nil },
            VariantDefinition(
                name: "prefix", variant: AttentionVariant("p", mask: .causal || .prefix(prompt)),
                parameters: ["prompt": [130]]
            ) { score, at in at.key <= at.position || at.key < 130 ? score : nil },
            VariantDefinition(
                name: "items", variant: AttentionVariant("items", mask: .items(prompt: prompt, item: ids)),
                parameters: documents.merging(["prompt": [Self.prompt]]) { a, _ in a }
            ) { score, at in
                at.key <= at.position && (at.key < 40 || at.key / 23 == at.position / 23) ? score : nil
            },
            VariantDefinition(
                name: "tree", variant: AttentionVariant("tree", mask: .tree(ancestors: ancestors)),
                parameters: ["ancestors": ParameterValue(Self.ancestors)]
            ) { score, at in
                let first = keyLength - queryLength
                if at.key < first { return score }
                let (row, node) = (at.position - first, at.key - first)
                // Up to the root from the row's node.
                var walk = row
                while walk > node { walk /= 2 }
                return walk == node ? score : nil
            },
            VariantDefinition(name: "mistral", variant: .mistral(window: 30)) { score, at in
                at.key <= at.position && at.key > at.position - 30 ? score : nil
            },
            VariantDefinition(name: "gemma-2", variant: .gemma2(window: 30, softCap: 2, scale: 0.25)) { score, at in
                at.key <= at.position && at.key > at.position - 30 ? 2 * ElementaryFunctions.tanh(score / 2) : nil
            },
            VariantDefinition(
                name: "gpt-oss", variant: .gptOSS(window: 30),
                logit: { score, at in at.key <= at.position && at.key > at.position - 30 ? score : nil },
                sink: { Self.sinks[$0] }),
            VariantDefinition(
                name: "sigmoid", variant: .sigmoid, logit: causal,
                weight: { 1 / (1 + Double(keyLength) * ElementaryFunctions.exp(-$0)) }),
            VariantDefinition(
                name: "differential", variant: .differential(lambda: lambda),
                parameters: ["lambda": ParameterValue([9, 0.5, 9, 0.25] as [Float])], logit: causal,
                output: { $0 % 2 == 0 ? 1 : $0 == 1 ? -0.5 : -0.25 }),
            VariantDefinition(
                name: "softmax plus one", variant: AttentionVariant("plus one", mask: .causal, sink: .logit(0)),
                logit: causal, sink: { _ in 0 }),
            VariantDefinition(
                name: "off by one, by its sum",
                variant: AttentionVariant(
                    "off by one", mask: .causal,
                    normalizer: Normalizer { sum, _ in max(sum, 0) + log(1 + exp(-abs(sum))) }), logit: causal,
                sink: { _ in 0 }),
            VariantDefinition(
                name: "initial state",
                variant: AttentionVariant(
                    "initial", mask: .causal, sink: .initial { at in (0.5 * at.head.float, Expr(2)) }), logit: causal,
                sink: { 0.5 * Double($0) + ElementaryFunctions.log(2) }),
            VariantDefinition(
                name: "floor under the sum",
                variant: AttentionVariant("floor", mask: .causal, normalizer: Normalizer { sum, _ in max(sum, 4.5) }),
                logit: causal, logSum: { Swift.max($0, 4.5) }),
            VariantDefinition(
                name: "gated values",
                variant: AttentionVariant(
                    "gated", mask: .causal, value: Values { value, at in value * forget[at.keyPosition] }),
                parameters: ["forget": ParameterValue(Self.forget)], logit: causal,
                value: { Double($0 % 11) / 8 }),
        ]
    }()

    /// The largest error of a run on `device`, over the size of what is added up for the output.
    package func error(on device: any Device, dtype: DType, mode: Planner.Mode = .balanced) throws -> Double {
        let (rows, keys, dim, heads) = (Self.queryLength, Self.keyLength, Self.headDim, Self.queryHeads)
        let geometry = try BatchGeometry.contiguous(queryLength: rows, kvLength: keys)
        let shape = try AttentionShape(queryHeads: heads, kvHeads: Self.kvHeads, headDimQK: dim)
        let problem = try AttentionProblem(
            geometry: geometry, shape: shape, variant: variant, queryType: dtype, kvType: dtype,
            parameters: parameters)
        var random = SeededGenerator(seed: 17)
        func tensor(_ shape: Shape) throws -> DeviceTensor {
            let host = try AttentionTensor(dtype, shape)
            for index in 0..<host.view.elementCount { host.set(index, Double(random.normal())) }
            return try DeviceTensor(host, on: device)
        }
        let queries = try tensor([rows, heads, dim])
        let (keyTensor, valueTensor) = (
            try tensor([keys, Self.kvHeads, dim]), try tensor([keys, Self.kvHeads, dim])
        )
        let output = try DeviceTensor(AttentionTensor(dtype, [rows, heads, dim]), on: device)
        let sinkTensor = try sink.map { sink in
            let host = try AttentionTensor(.float32, [heads])
            for head in 0..<heads { host.set(head, sink(head)) }
            return try DeviceTensor(host, on: device)
        }
        let tensors = try parameters.mapValues { value in
            let parameter = value.elements.count
            let isPerPosition = parameter == keys
            let host = try AttentionTensor(
                value.isFloat ? .float32 : .int32, isPerPosition ? [1, keys] : [parameter])
            for (index, element) in value.elements.enumerated() { host.set(index, element) }
            return try DeviceTensor(host, on: device)
        }
        let plan = try Planner.plan(
            problem, traits: device.kernelTraits(for: problem), processors: 2, mode: mode)
        let workspace = try DeviceTensor(
            AttentionTensor(.uint8, [max(device.workspaceByteCount(for: plan.size), 1)]), on: device)
        let operation = AttentionOperation(
            queries: queries.view, cache: try .ragged(keys: keyTensor.view, values: valueTensor.view),
            output: output.view, sinks: variant.hasSinks ? sinkTensor?.view : nil,
            parameters: tensors.mapValues(\.view), plan: plan, workspace: workspace.view.region)
        try operation.validate()
        // The operation has the tensors' addresses, not the tensors.
        try withExtendedLifetime((queries, keyTensor, valueTensor, sinkTensor, tensors, workspace)) {
            try device.execute(.attention(operation))
            try output.download()
        }
        let found = output.host.elements
        let (q, k, v) = (queries.host.elements, keyTensor.host.elements, valueTensor.host.elements)
        var worst = 0.0
        for row in 0..<rows {
            for head in 0..<heads {
                let (expected, size) = expected(row, head, q, k, v)
                for d in 0..<dim {
                    let error = abs(found[(row * heads + head) * dim + d] - expected[d]) / max(size, 1)
                    worst = error.isNaN ? .infinity : max(worst, error)
                }
            }
        }
        return worst
    }

    /// A row's output by plain sums, and the sum of its weights' sizes.
    private func expected(
        _ row: Int, _ head: Int, _ q: [Double], _ k: [Double], _ v: [Double]
    ) -> (output: [Double], size: Double) {
        let (dim, kvHead) = (Self.headDim, head * Self.kvHeads / Self.queryHeads)
        let position = Self.keyLength - Self.queryLength + row
        func vector(_ x: [Double], _ index: Int, _ heads: Int, _ head: Int, _ position: Int) -> [Double] {
            var result = (0..<dim).map { x[(index * heads + head) * dim + $0] }
            if isRotated {
                for pair in 0..<dim / 2 {
                    let angle = Double(position) * ElementaryFunctions.pow(10000, -2 * Double(pair) / Double(dim))
                    let (cosine, sine) = (ElementaryFunctions.cos(angle), ElementaryFunctions.sin(angle))
                    let (a, b) = (result[pair], result[pair + dim / 2])
                    (result[pair], result[pair + dim / 2]) = (a * cosine - b * sine, b * cosine + a * sine)
                }
            }
            return result
        }
        let query = vector(q, row, Self.queryHeads, head, position)
        let scale = variant.scale.map { Double($0) } ?? 1 / Double(dim).squareRoot()
        var (output, total, size) = ([Double](repeating: 0, count: dim), 0.0, 0.0)
        for key in 0..<Self.keyLength {
            let at = Pair(head: head, query: row, position: position, key: key)
            let other = vector(k, key, Self.kvHeads, kvHead, key)
            let score = scale * zip(query, other).reduce(0) { $0 + $1.0 * $1.1 }
            guard let logit = logit(score, at) else { continue }
            let weight = weight?(logit) ?? ElementaryFunctions.exp(logit)
            total += weight
            let factor = weight * (value?(key) ?? 1)
            size += abs(factor)
            for d in 0..<dim { output[d] += factor * v[(key * Self.kvHeads + kvHead) * dim + d] }
        }
        if weight != nil { total = 1 }
        if let sink { total += ElementaryFunctions.exp(sink(head)) }
        if let logSum, total > 0 { total = ElementaryFunctions.exp(logSum(ElementaryFunctions.log(total))) }
        let share = total > 0 ? (self.output?(head) ?? 1) / total : 0
        return (output.map { $0 * share }, size * abs(share))
    }
}
