import FlashInferEngine
import Foundation

/// A decoder in plain float64 loops, with no cache: every token is computed from all tokens before it.
struct DecoderOracle {
    let config: ModelConfig
    private let weights: ModelWeights

    init(_ weights: ModelWeights) {
        self.weights = weights
        config = weights.config
    }

    /// The logits after the last of `tokens`.
    func logits(_ tokens: [Int32]) throws -> [Double] {
        let embedding = try matrix(.tokenEmbedding)
        var hidden = tokens.map { token in embedding[Int(token)].map { $0 * Double(config.embeddingScale) } }
        for layer in 0..<config.layerCount {
            var block = try attention(layer, hidden)
            if config.postNorms { block = try block.map { try norm($0, .postAttentionNorm(layer: layer)) } }
            hidden = zip(hidden, block).map(add)
            block = try hidden.map { try feedForward(layer, $0) }
            if config.postNorms { block = try block.map { try norm($0, .postFeedForwardNorm(layer: layer)) } }
            hidden = zip(hidden, block).map(add)
        }
        return try product(matrix(.output), norm(hidden[hidden.count - 1], .outputNorm))
    }

    private func attention(_ layer: Int, _ hidden: [[Double]]) throws -> [[Double]] {
        let (query, key, value) = try (
            matrix(.query(layer: layer)), matrix(.key(layer: layer)), matrix(.value(layer: layer))
        )
        let normed = try hidden.map { try norm($0, .attentionNorm(layer: layer)) }
        func project(_ rows: [[Double]], _ bias: WeightRole, _ headNorm: WeightRole?) throws -> [[[Double]]] {
            try normed.enumerated().map { position, input in
                var output = product(rows, input)
                if config.attentionBias { output = try add(output, vector(bias)) }
                return try stride(from: 0, to: output.count, by: config.headDim).map { start in
                    var head = Array(output[start..<start + config.headDim])
                    guard let headNorm else { return head }
                    if config.qkNorm { head = try norm(head, headNorm) }
                    return rotate(head, position, layer)
                }
            }
        }
        let queries = try project(query, .queryBias(layer: layer), .queryNorm(layer: layer))
        let keys = try project(key, .keyBias(layer: layer), .keyNorm(layer: layer))
        let values = try project(value, .valueBias(layer: layer), nil)
        let output = try matrix(.attentionOutput(layer: layer))
        return hidden.indices.map { position in
            let first = config.window(ofLayer: layer).map { max(0, position - $0 + 1) } ?? 0
            let heads = (0..<config.headCount).map { head in
                let shared = head / (config.headCount / config.kvHeadCount)
                let scores = (first...position).map { other in
                    let score = dot(queries[position][head], keys[other][shared]) * Double(config.attentionScale)
                    return config.attentionSoftCap.map { Double($0) * tanh(score / Double($0)) } ?? score
                }
                let largest = scores.max() ?? 0
                let shares = scores.map { exp($0 - largest) }
                let sum = shares.reduce(0, +)
                return (0..<config.headDim).map { element in
                    zip(shares, first...position).reduce(0) { $0 + $1.0 * values[$1.1][shared][element] } / sum
                }
            }
            return product(output, heads.flatMap { $0 })
        }
    }

    private func feedForward(_ layer: Int, _ hidden: [Double]) throws -> [Double] {
        let normed = try norm(hidden, .feedForwardNorm(layer: layer))
        let (gate, up) = try (product(matrix(.gate(layer: layer)), normed), product(matrix(.up(layer: layer)), normed))
        let activated = zip(gate, up).map { gate, up in
            switch config.activation {
            case .silu: gate / (1 + exp(-gate)) * up
            case .geluTanh:
                gate / 2 * (1 + tanh((2 / Double.pi).squareRoot() * (gate + 0.044715 * gate * gate * gate))) * up
            }
        }
        return try product(matrix(.down(layer: layer)), activated)
    }

    private func rotate(_ head: [Double], _ position: Int, _ layer: Int) -> [Double] {
        let isSliding = config.window(ofLayer: layer) != nil
        let frequencies = config.rope.frequencies(headDim: config.headDim, isSliding: isSliding)
        var rotated = head
        for (pair, frequency) in frequencies.enumerated() {
            let (first, second) =
                config.rope.pairing == .interleaved ? (2 * pair, 2 * pair + 1) : (pair, pair + config.headDim / 2)
            let (sine, cosine) = (sin(Double(position) * frequency), cos(Double(position) * frequency))
            rotated[first] = head[first] * cosine - head[second] * sine
            rotated[second] = head[second] * cosine + head[first] * sine
        }
        return rotated
    }

    private func norm(_ input: [Double], _ role: WeightRole) throws -> [Double] {
        let mean = input.reduce(0) { $0 + $1 * $1 } / Double(input.count)
        let scale = 1 / (mean + Double(config.rmsNormEpsilon)).squareRoot()
        return zip(input, try vector(role)).map { $0 * scale * ($1 + Double(config.normWeightOffset)) }
    }

    private func vector(_ role: WeightRole) throws -> [Double] { try matrix(role)[0] }

    private func matrix(_ role: WeightRole) throws -> [[Double]] {
        let tensor = try weights.tensor(role)
        let rows = try WeightRows(tensor.bytes, format: tensor.format, rows: tensor.rows, columns: tensor.columns)
        return try (0..<tensor.rows).map { try rows.row($0).map(Double.init) }
    }

    private func product(_ rows: [[Double]], _ input: [Double]) -> [Double] { rows.map { dot($0, input) } }
    private func dot(_ left: [Double], _ right: [Double]) -> Double { zip(left, right).reduce(0) { $0 + $1.0 * $1.1 } }
    private func add(_ left: [Double], _ right: [Double]) -> [Double] { zip(left, right).map(+) }
}
