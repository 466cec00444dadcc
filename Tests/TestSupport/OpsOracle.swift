public import FlashInferCore

/// The definitions of the row operations by plain loops: `exact` in float64, `reference` in float32 with one final rounding.
public enum OpsOracle {
    /// Results of an operation, in row-major order.
    public struct Results {
        /// In float64.
        public var exact: [Double] = []
        /// In float32, rounded to the output's type.
        public var reference: [Double] = []
    }

    /// Root-mean-square normalisation of rows of `input`, after adding `residual`.
    public static func rmsNorm(
        _ input: [Double], residual: [Double]?, weight: [Double], epsilon: Float, offset: Float, output: DType
    ) -> Results {
        let width = weight.count
        var results = Results()
        for start in stride(from: 0, to: input.count, by: max(width, 1)) {
            let row = start..<start + width
            let sums = row.map { input[$0] + (residual?[$0] ?? 0) }
            let scale = 1 / (sums.reduce(0) { $0 + $1 * $1 } / Double(width) + Double(epsilon)).squareRoot()
            results.exact += zip(sums, weight).map { $0 * scale * ($1 + Double(offset)) }
            let floats = row.map { Float(input[$0]) + Float(residual?[$0] ?? 0) }
            let scale32 = 1 / (floats.reduce(0) { $0 + $1 * $1 } / Float(width) + epsilon).squareRoot()
            results.reference += zip(floats, weight).map { rounded($0 * scale32 * (Float($1) + offset), to: output) }
        }
        return results
    }

    /// Layer norm of rows of `input`, after adding `residual`.
    public static func layerNorm(
        _ input: [Double], residual: [Double]?, weight: [Double], bias: [Double], epsilon: Float, output: DType
    ) -> Results {
        let width = weight.count
        var results = Results()
        for start in stride(from: 0, to: input.count, by: max(width, 1)) {
            let row = start..<start + width
            let sums = row.map { input[$0] + (residual?[$0] ?? 0) }
            let mean = sums.reduce(0, +) / Double(width)
            let variance = sums.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(width)
            let scale = 1 / (variance + Double(epsilon)).squareRoot()
            results.exact += sums.indices.map { (sums[$0] - mean) * scale * weight[$0] + bias[$0] }
            let floats = row.map { Float(input[$0]) + Float(residual?[$0] ?? 0) }
            let mean32 = floats.reduce(0, +) / Float(width)
            let variance32 = floats.reduce(0) { $0 + ($1 - mean32) * ($1 - mean32) } / Float(width)
            let scale32 = 1 / (variance32 + epsilon).squareRoot()
            results.reference += floats.indices.map {
                rounded((floats[$0] - mean32) * scale32 * Float(weight[$0]) + Float(bias[$0]), to: output)
            }
        }
        return results
    }

    /// A gated activation.
    public static func gatedActivation(
        _ gate: [Double], _ up: [Double], _ activation: GatedActivationOperation.Activation, output: DType
    ) -> Results {
        Results(
            exact: zip(gate, up).map { Self.activation($0, activation) * $1 },
            reference: zip(gate, up).map { rounded(Self.activation(Float($0), activation) * Float($1), to: output) })
    }

    private static func activation(_ x: Double, _ activation: GatedActivationOperation.Activation) -> Double {
        switch activation {
        case .silu: x / (1 + ElementaryFunctions.exp(-x))
        // Below −5 the sum of 1 and erf has no digits left; the asymptotic series of erfc has, to 1e-4 and better.
        case .geluErf: x < -5 ? tail(x) : 0.5 * x * (1 + ElementaryFunctions.erf(x / 2.0.squareRoot()))
        case .geluTanh:
            x / (1 + ElementaryFunctions.exp(-2 * (2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
        }
    }

    /// `x Φ(x)` for x far below 0, by the continued fraction of the normal distribution's tail.
    private static func tail(_ x: Double) -> Double {
        var fraction = -x
        for term in stride(from: 60.0, through: 1, by: -1) { fraction = -x + term / fraction }
        return x * ElementaryFunctions.exp(-x * x / 2) / ((2 * Double.pi).squareRoot() * fraction)
    }

    private static func activation(_ x: Float, _ activation: GatedActivationOperation.Activation) -> Float {
        func exp(_ x: Float) -> Float { Float(ElementaryFunctions.exp(Double(x))) }
        switch activation {
        case .silu: return x / (1 + exp(-x))
        case .geluErf:
            return 0.5 * x * (1 + Float(ElementaryFunctions.erf(Double(x / Float(2).squareRoot()))))
        case .geluTanh:
            let inner = Float((2 / Double.pi).squareRoot()) * (x + 0.044715 * x * x * x)
            return 0.5 * x * (1 + Float(ElementaryFunctions.tanh(Double(inner))))
        }
    }

    /// Softmax of rows of `width`, row `r` at temperature `temperatures[r]`.
    public static func softmax(_ input: [Double], width: Int, temperatures: [Float], output: DType) -> Results {
        var results = Results()
        for (row, start) in stride(from: 0, to: input.count, by: max(width, 1)).enumerated() {
            let x = Array(input[start..<start + width])
            let top = x.max() ?? 0
            let weights = x.map { ElementaryFunctions.exp(($0 - top) / Double(temperatures[row])) }
            let sum = weights.reduce(0, +)
            results.exact += weights.map { $0 / sum }
            let floats = x.map { Float(ElementaryFunctions.exp(Double(Float($0 - top) / temperatures[row]))) }
            let sum32 = floats.reduce(0, +)
            results.reference += floats.map { rounded($0 / sum32, to: output) }
        }
        return results
    }

    /// One head turned, straight from the papers.
    public static func rope(_ head: [Double], position: Double, _ parameters: RoPEParameters) -> [Double] {
        var result = head
        let dim = parameters.rotaryDim ?? head.count
        for pair in 0..<dim / 2 {
            var frequency = ElementaryFunctions.pow(Double(parameters.theta), -2 * Double(pair) / Double(dim))
            switch parameters.scaling {
            case .none: break
            case .linear(let factor): frequency /= Double(factor)
            case .perPair(let factors): frequency /= Double(factors[pair])
            case .llama3(let factor, let low, let high, let context):
                let ratio = Double(high) / Double(low)
                let turns = frequency * Double(context) / (2 * Double.pi * Double(high - low))
                let smooth = min(max(turns - 1 / (ratio - 1), 0), 1)
                frequency = (1 - smooth) * frequency / Double(factor) + smooth * frequency
            }
            let (first, second) =
                parameters.pairing == .interleaved ? (2 * pair, 2 * pair + 1) : (pair, pair + dim / 2)
            let angle = position * frequency
            let (c, s) = (ElementaryFunctions.cos(angle), ElementaryFunctions.sin(angle))
            result[first] = head[first] * c - head[second] * s
            result[second] = head[second] * c + head[first] * s
        }
        return result
    }
}
