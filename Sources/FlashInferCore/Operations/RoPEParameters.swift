/// Rotary position embedding (Su et al., arXiv 2104.09864): which pairs turn, and how fast.
///
/// Pair `i` of `rotaryDim / 2` turns by `position · f(i)`, with `f(i) = theta^(−2i / rotaryDim)`, changed by `scaling`.
public struct RoPEParameters: Sendable, Hashable {
    /// Which two elements of a head make pair `i`.
    public enum Pairing: Sendable, Hashable {
        /// Elements `i` and `i + rotaryDim / 2` (GPT-NeoX, Hugging Face Llama).
        case halfSplit
        /// Elements `2i` and `2i + 1` (GPT-J, original Llama, llama-architecture GGUF files).
        case interleaved
    }

    /// How frequencies are changed for contexts longer than those of training.
    public enum Scaling: Sendable, Hashable {
        /// Not at all.
        case none
        /// All divided by `factor` (position interpolation, arXiv 2306.15595).
        case linear(factor: Float)
        /// Llama 3.1: low frequencies divided by `factor`, high ones kept, a ramp between, by wavelength against `originalContext`.
        case llama3(factor: Float, lowFrequencyFactor: Float, highFrequencyFactor: Float, originalContext: Int)
        /// Pair `i` divided by `factors[i]`, which has `rotaryDim / 2` elements: how GGUF files carry any scaling.
        case perPair(factors: [Float])
    }

    /// The base of the frequencies.
    public var theta: Float

    /// How many leading elements of a head turn; `nil` for all. Even.
    public var rotaryDim: Int?

    /// Which elements make a pair.
    public var pairing: Pairing

    /// How frequencies are changed for long contexts.
    public var scaling: Scaling

    /// Parameters; the defaults are FlashInfer's.
    public init(theta: Float = 10_000, rotaryDim: Int? = nil, pairing: Pairing = .halfSplit, scaling: Scaling = .none) {
        self.theta = theta
        self.rotaryDim = rotaryDim
        self.pairing = pairing
        self.scaling = scaling
    }

    /// The angle, in radians, by which each pair turns from one position to the next: `[rotaryDim / 2]`.
    ///
    /// - Precondition: `rotaryDim` is even.
    public func frequencies(headDim: Int) -> [Double] {
        let dim = rotaryDim ?? headDim
        precondition(dim % 2 == 0 && dim <= headDim, "rotary dimensions are even and within the head")
        return (0..<dim / 2).map { pair in
            scaled(ElementaryFunctions.pow(Double(theta), -2 * Double(pair) / Double(dim)), pair)
        }
    }

    private func scaled(_ frequency: Double, _ pair: Int) -> Double {
        switch scaling {
        case .none:
            return frequency
        case .linear(let factor):
            return frequency / Double(factor)
        case .llama3(let factor, let low, let high, let originalContext):
            let turns = frequency * Double(originalContext) / (2 * .pi)
            let smooth = min(max((turns - Double(low)) / (Double(high) - Double(low)), 0), 1)
            return (1 - smooth) * frequency / Double(factor) + smooth * frequency
        case .perPair(let factors):
            return frequency / Double(factors[pair])
        }
    }
}
