/// Makes models of two small layers with random weights, as GGUF files and as Hugging Face folders.
///
/// Both forms hold the same model: the GGUF one with the rows of Q and K permuted for Llama, and with 1 added to Gemma's
/// norms, just as the usual converter does. The same settings and seed give the same bytes.
public struct TinyModelWriter: Sendable {
    /// The families.
    public enum Architecture: String, Sendable, CaseIterable {
        case llama, qwen2, qwen3, gemma3
    }

    /// How matrices are stored; vectors are always float32.
    public enum Precision: Sendable, CaseIterable {
        case float32, float16, bfloat16, q40, q41, q80
    }

    /// The family.
    public var architecture = Architecture.llama
    /// How matrices are stored.
    public var precision = Precision.float32
    /// What the weights depend on.
    public var seed: UInt64 = 1
    /// Decoder layers.
    public var layerCount = 2
    /// The width of the residual stream.
    public var hiddenSize = 32
    /// The width inside the feed-forward block.
    public var intermediateSize = 64
    /// Query heads.
    public var headCount = 4
    /// Key and value heads.
    public var kvHeadCount = 2
    /// The elements of a head.
    public var headDim = 8
    /// The longest context.
    public var contextLength = 256
    /// The base of the rotary embedding.
    public var ropeTheta: Float = 10_000
    /// Whether the output matrix is the embedding.
    public var tiedEmbeddings = false
    /// Gemma's window; its layers 0 to 4 of each six look through it.
    public var slidingWindow = 16

    /// The number of tokens.
    public var vocabularySize: Int { TinyVocabulary.tokens.count }

    /// A model of the usual small shape.
    public init(architecture: Architecture = .llama, precision: Precision = .float32, seed: UInt64 = 1) {
        self.architecture = architecture
        self.precision = precision
        self.seed = seed
    }

    /// A weight: its names, its shape row-major, and its values as a Hugging Face folder has them.
    public struct Weight: Sendable {
        /// Its name in GGUF files.
        public var ggufName: String
        /// Its name in Hugging Face folders.
        public var huggingFaceName: String
        /// Its extents, row-major.
        public var shape: [Int]
        /// Its values, before they are stored.
        public var values: [Float]
        /// The heads of a projection whose rows rotate in pairs; 0 for the rest.
        var rotatedHeads = 0
        var isNorm: Bool { huggingFaceName.hasSuffix("norm.weight") || huggingFaceName.hasSuffix("layernorm.weight") }
    }

    /// All weights, in the order in which they are written.
    public func weights() -> [Weight] {
        var random = SeededGenerator(seed: seed)
        var all: [Weight] = []
        func add(_ gguf: String, _ name: String, _ shape: [Int], rotatedHeads: Int = 0) {
            let isNorm = name.hasSuffix("norm.weight")
            let scale = isNorm || shape.count == 1 ? 0.1 : 1 / Float(shape[1]).squareRoot()
            let base: Float = isNorm && architecture != .gemma3 ? 1 : 0
            let values = (0..<shape.reduce(1, *)).map { _ in base + scale * random.normal() }
            all.append(
                Weight(
                    ggufName: gguf, huggingFaceName: name, shape: shape, values: values, rotatedHeads: rotatedHeads))
        }
        let query = headCount * headDim
        let keys = kvHeadCount * headDim
        let rotates = architecture == .llama
        add("token_embd.weight", "model.embed_tokens.weight", [vocabularySize, hiddenSize])
        for layer in 0..<layerCount {
            let gguf = "blk.\(layer)."
            let name = "model.layers.\(layer)."
            add(gguf + "attn_norm.weight", name + "input_layernorm.weight", [hiddenSize])
            add(
                gguf + "attn_q.weight", name + "self_attn.q_proj.weight", [query, hiddenSize],
                rotatedHeads: rotates ? headCount : 0)
            add(
                gguf + "attn_k.weight", name + "self_attn.k_proj.weight", [keys, hiddenSize],
                rotatedHeads: rotates ? kvHeadCount : 0)
            add(gguf + "attn_v.weight", name + "self_attn.v_proj.weight", [keys, hiddenSize])
            if architecture == .qwen2 {
                add(gguf + "attn_q.bias", name + "self_attn.q_proj.bias", [query])
                add(gguf + "attn_k.bias", name + "self_attn.k_proj.bias", [keys])
                add(gguf + "attn_v.bias", name + "self_attn.v_proj.bias", [keys])
            }
            if architecture == .qwen3 || architecture == .gemma3 {
                add(gguf + "attn_q_norm.weight", name + "self_attn.q_norm.weight", [headDim])
                add(gguf + "attn_k_norm.weight", name + "self_attn.k_norm.weight", [headDim])
            }
            add(gguf + "attn_output.weight", name + "self_attn.o_proj.weight", [hiddenSize, query])
            if architecture == .gemma3 {
                add(gguf + "post_attention_norm.weight", name + "post_attention_layernorm.weight", [hiddenSize])
                add(gguf + "ffn_norm.weight", name + "pre_feedforward_layernorm.weight", [hiddenSize])
                add(gguf + "post_ffw_norm.weight", name + "post_feedforward_layernorm.weight", [hiddenSize])
            } else {
                add(gguf + "ffn_norm.weight", name + "post_attention_layernorm.weight", [hiddenSize])
            }
            add(gguf + "ffn_gate.weight", name + "mlp.gate_proj.weight", [intermediateSize, hiddenSize])
            add(gguf + "ffn_up.weight", name + "mlp.up_proj.weight", [intermediateSize, hiddenSize])
            add(gguf + "ffn_down.weight", name + "mlp.down_proj.weight", [hiddenSize, intermediateSize])
        }
        add("output_norm.weight", "model.norm.weight", [hiddenSize])
        if !tiedEmbeddings { add("output.weight", "lm_head.weight", [vocabularySize, hiddenSize]) }
        return all
    }
}
