import Foundation

/// Rotary position embedding (arXiv 2104.09864) as a model wants it.
public struct RopeConfig: Equatable, Sendable {
    /// Which two elements of a head rotate together.
    public enum Pairing: Equatable, Sendable {
        /// Elements 2i and 2i+1: GGUF files of the Llama family, whose Q and K rows were permuted for it.
        case interleaved
        /// Elements i and i + headDim/2: Hugging Face folders, and GGUF files of the other families.
        case halfSplit
    }

    /// How the frequencies are changed for contexts longer than the one trained first.
    public enum Scaling: Equatable, Sendable {
        /// Not at all.
        case none
        /// Every position is divided by `factor`.
        case linear(factor: Float)
        /// Llama 3.1: long waves are divided by `factor`, short ones kept, those between blended.
        case llama3(factor: Float, lowFrequencyFactor: Float, highFrequencyFactor: Float, originalContext: Int)
        /// Every pair's frequency is divided by its own factor, headDim/2 of them (the tensor `rope_freqs.weight`, which is
        /// how GGUF files carry the Llama 3.1 scaling).
        case frequencyFactors([Float])
    }

    /// The base of the frequencies: pair i of d/2 turns by theta^(-2i/d) a position.
    public var theta: Float
    /// The base in sliding-window layers; nil when it is `theta` everywhere. Such layers are never scaled.
    public var localTheta: Float?
    /// The scaling of the layers that use `theta`.
    public var scaling: Scaling
    /// Which elements rotate together.
    public var pairing: Pairing

    /// Makes settings; the model's defaults where a parameter is left out.
    public init(theta: Float, localTheta: Float? = nil, scaling: Scaling = .none, pairing: Pairing) {
        self.theta = theta
        self.localTheta = localTheta
        self.scaling = scaling
        self.pairing = pairing
    }

    /// The angle in radians by which each of the headDim/2 pairs turns per position, scaling included.
    ///
    /// `isSliding` says whether the layer looks through a sliding window; it matters only when `localTheta` is set.
    public func frequencies(headDim: Int, isSliding: Bool = false) -> [Double] {
        let local = isSliding ? localTheta : nil
        let base = Double(local ?? theta)
        let plain = (0..<headDim / 2).map { pow(base, -2 * Double($0) / Double(headDim)) }
        guard local == nil else { return plain }
        switch scaling {
        case .none: return plain
        case .linear(let factor): return plain.map { $0 / Double(factor) }
        case .frequencyFactors(let factors): return zip(plain, factors).map { $0 / Double($1) }
        case .llama3(let factor, let low, let high, let original):
            return plain.map { frequency in
                // How many whole turns the pair makes over the original context.
                let turns = Double(original) * frequency / (2 * Double.pi)
                let blend = min(1, max(0, (turns - Double(low)) / Double(high - low)))
                return frequency * (blend + (1 - blend) / Double(factor))
            }
        }
    }
}
