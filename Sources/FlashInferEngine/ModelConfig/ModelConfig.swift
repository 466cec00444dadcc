/// The shape and the settings of a decoder of the Llama family, whichever file they come from.
///
/// One value describes Llama, Mistral, SmolLM2, Qwen 2, 2.5 and 3 and the text side of Gemma 3; what sets them apart
/// is here as data, so that the layers need no test for a model's name.
public struct ModelConfig: Equatable, Sendable {
    /// The families.
    public enum Architecture: String, CaseIterable, Sendable {
        /// Llama 2 and 3, SmolLM2, Mistral.
        case llama
        /// Qwen 2 and 2.5.
        case qwen2
        /// Qwen 3.
        case qwen3
        /// The text side of Gemma 3.
        case gemma3
    }

    /// The function on the gate of the feed-forward block.
    public enum Activation: Equatable, Sendable {
        /// x · sigmoid(x).
        case silu
        /// The tanh form of GELU.
        case geluTanh
    }

    /// Layers that see only the latest tokens.
    public struct SlidingWindow: Equatable, Sendable {
        /// How many keys a query sees, its own included: the key at j is seen from i when i - size < j <= i.
        public var size: Int
        /// For each layer, whether it looks through the window.
        public var layers: [Bool]

        /// Makes a window.
        public init(size: Int, layers: [Bool]) {
            self.size = size
            self.layers = layers
        }
    }

    /// The family.
    public var architecture: Architecture
    /// The number of decoder layers.
    public var layerCount: Int
    /// The width of the residual stream.
    public var hiddenSize: Int
    /// The width inside the feed-forward block.
    public var intermediateSize: Int
    /// The number of query heads.
    public var headCount: Int
    /// The number of key and value heads; divides `headCount`.
    public var kvHeadCount: Int
    /// The elements of a head; even.
    public var headDim: Int
    /// The rows of the embedding, which may be more than the tokenizer's entries.
    public var vocabularySize: Int
    /// The longest context the model was made for, in tokens.
    public var contextLength: Int
    /// Added to the mean square in every RMS norm.
    public var rmsNormEpsilon: Float
    /// The rotary embedding.
    public var rope: RopeConfig
    /// The factor on q · k before the softmax.
    public var attentionScale: Float
    /// Whether the query, key and value projections add a bias (Qwen 2).
    public var attentionBias = false
    /// Whether queries and keys are RMS-normed per head before the rotation (Qwen 3, Gemma 3).
    public var qkNorm = false
    /// Whether the output matrix is the embedding.
    public var tiedEmbeddings = false
    /// The sliding window; nil when every layer sees everything.
    public var slidingWindow: SlidingWindow?
    /// The feed-forward activation.
    public var activation = Activation.silu
    /// The factor on the embedding of a token (Gemma: the square root of the hidden size).
    public var embeddingScale: Float = 1
    /// What is added to each norm weight as it stands in the file (Gemma norms multiply by 1 + w; GGUF files of it
    /// hold the sum already, safetensors do not).
    public var normWeightOffset: Float = 0
    /// Whether the outputs of attention and feed-forward are normed once more before they are added (Gemma 3).
    public var postNorms = false
    /// The cap c of c · tanh(x / c) on attention logits; nil for none.
    public var attentionSoftCap: Float?
    /// The cap on the final logits; nil for none.
    public var finalSoftCap: Float?
    /// The token that starts a text.
    public var bosID: Int?
    /// The tokens that end a text or a turn.
    public var eosIDs: [Int] = []
    /// The token that fills batches.
    public var padID: Int?
    /// Whether the tokenizer puts `bosID` first; nil when the file leaves it to the tokenizer's own rules.
    public var addBos: Bool?

    /// Makes a configuration of the plainest kind; set the rest as needed, then call `validate()`.
    public init(
        architecture: Architecture, layerCount: Int, hiddenSize: Int, intermediateSize: Int, headCount: Int,
        kvHeadCount: Int, headDim: Int, vocabularySize: Int, contextLength: Int, rmsNormEpsilon: Float,
        rope: RopeConfig
    ) {
        self.architecture = architecture
        self.layerCount = layerCount
        self.hiddenSize = hiddenSize
        self.intermediateSize = intermediateSize
        self.headCount = headCount
        self.kvHeadCount = kvHeadCount
        self.headDim = headDim
        self.vocabularySize = vocabularySize
        self.contextLength = contextLength
        self.rmsNormEpsilon = rmsNormEpsilon
        self.rope = rope
        attentionScale = 1 / Float(max(1, headDim)).squareRoot()
    }

    /// How many keys a query of `layer` sees, its own included; nil when it sees all.
    public func window(ofLayer layer: Int) -> Int? {
        guard let slidingWindow, slidingWindow.layers[layer] else { return nil }
        return slidingWindow.size
    }

    /// The elements of all query heads of a token.
    public var queryWidth: Int { headCount * headDim }

    /// The elements of all key heads, or of all value heads, of a token.
    public var kvWidth: Int { kvHeadCount * headDim }
}
