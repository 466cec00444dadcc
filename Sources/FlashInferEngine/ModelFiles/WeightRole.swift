/// What a weight tensor is for, whatever its file calls it. Layers count from 0.
public enum WeightRole: Hashable, Sendable {
    /// [vocabulary, hidden]
    case tokenEmbedding
    /// [1, hidden]
    case outputNorm
    /// [vocabulary, hidden]; the embedding when the two are tied.
    case output
    /// [1, hidden], before attention.
    case attentionNorm(layer: Int)
    /// [heads · headDim, hidden]
    case query(layer: Int)
    /// [kvHeads · headDim, hidden]
    case key(layer: Int)
    /// [kvHeads · headDim, hidden]
    case value(layer: Int)
    /// [1, heads · headDim], where `attentionBias`.
    case queryBias(layer: Int)
    /// [1, kvHeads · headDim], where `attentionBias`.
    case keyBias(layer: Int)
    /// [1, kvHeads · headDim], where `attentionBias`.
    case valueBias(layer: Int)
    /// [1, headDim], where `qkNorm`.
    case queryNorm(layer: Int)
    /// [1, headDim], where `qkNorm`.
    case keyNorm(layer: Int)
    /// [hidden, heads · headDim]
    case attentionOutput(layer: Int)
    /// [1, hidden], on attention's output, where `postNorms`.
    case postAttentionNorm(layer: Int)
    /// [1, hidden], before the feed-forward block.
    case feedForwardNorm(layer: Int)
    /// [intermediate, hidden], the side that goes through the activation.
    case gate(layer: Int)
    /// [intermediate, hidden], the side that is multiplied.
    case up(layer: Int)
    /// [hidden, intermediate]
    case down(layer: Int)
    /// [1, hidden], on the feed-forward block's output, where `postNorms`.
    case postFeedForwardNorm(layer: Int)
}

extension WeightRole {
    /// The roles that a model with these settings has, in the order of use. A tied `output` is not among them.
    public static func all(for config: ModelConfig) -> [WeightRole] {
        var roles: [WeightRole] = [.tokenEmbedding]
        for layer in 0..<config.layerCount {
            roles += [.attentionNorm(layer: layer), .query(layer: layer), .key(layer: layer), .value(layer: layer)]
            if config.attentionBias {
                roles += [.queryBias(layer: layer), .keyBias(layer: layer), .valueBias(layer: layer)]
            }
            if config.qkNorm { roles += [.queryNorm(layer: layer), .keyNorm(layer: layer)] }
            roles.append(.attentionOutput(layer: layer))
            if config.postNorms { roles.append(.postAttentionNorm(layer: layer)) }
            roles += [.feedForwardNorm(layer: layer), .gate(layer: layer), .up(layer: layer), .down(layer: layer)]
            if config.postNorms { roles.append(.postFeedForwardNorm(layer: layer)) }
        }
        roles.append(.outputNorm)
        if !config.tiedEmbeddings { roles.append(.output) }
        return roles
    }

    /// The shape the tensor must have. A vector is one row.
    public func shape(for config: ModelConfig) -> (rows: Int, columns: Int) {
        switch self {
        case .tokenEmbedding, .output: (config.vocabularySize, config.hiddenSize)
        case .query: (config.queryWidth, config.hiddenSize)
        case .key, .value: (config.kvWidth, config.hiddenSize)
        case .attentionOutput: (config.hiddenSize, config.queryWidth)
        case .gate, .up: (config.intermediateSize, config.hiddenSize)
        case .down: (config.hiddenSize, config.intermediateSize)
        case .queryBias: (1, config.queryWidth)
        case .keyBias, .valueBias: (1, config.kvWidth)
        case .queryNorm, .keyNorm: (1, config.headDim)
        case .outputNorm, .attentionNorm, .postAttentionNorm, .feedForwardNorm, .postFeedForwardNorm:
            (1, config.hiddenSize)
        }
    }

    /// Whether the tensor is one vector: a norm's weights or a bias, which must not be quantised.
    public var isVector: Bool {
        switch self {
        case .tokenEmbedding, .output, .query, .key, .value, .attentionOutput, .gate, .up, .down: false
        default: true
        }
    }
}

// What files call the roles.
extension WeightRole {
    /// The name in GGUF files.
    public var ggufName: String {
        switch self {
        case .tokenEmbedding: "token_embd.weight"
        case .outputNorm: "output_norm.weight"
        case .output: "output.weight"
        case .attentionNorm(let layer): "blk.\(layer).attn_norm.weight"
        case .query(let layer): "blk.\(layer).attn_q.weight"
        case .key(let layer): "blk.\(layer).attn_k.weight"
        case .value(let layer): "blk.\(layer).attn_v.weight"
        case .queryBias(let layer): "blk.\(layer).attn_q.bias"
        case .keyBias(let layer): "blk.\(layer).attn_k.bias"
        case .valueBias(let layer): "blk.\(layer).attn_v.bias"
        case .queryNorm(let layer): "blk.\(layer).attn_q_norm.weight"
        case .keyNorm(let layer): "blk.\(layer).attn_k_norm.weight"
        case .attentionOutput(let layer): "blk.\(layer).attn_output.weight"
        case .postAttentionNorm(let layer): "blk.\(layer).post_attention_norm.weight"
        case .feedForwardNorm(let layer): "blk.\(layer).ffn_norm.weight"
        case .gate(let layer): "blk.\(layer).ffn_gate.weight"
        case .up(let layer): "blk.\(layer).ffn_up.weight"
        case .down(let layer): "blk.\(layer).ffn_down.weight"
        case .postFeedForwardNorm(let layer): "blk.\(layer).post_ffw_norm.weight"
        }
    }

    /// The name in Hugging Face folders, without what a multi-modal model puts in front. `postNorms` changes what
    /// "post attention" means: Gemma norms attention's output, the others the feed-forward block's input.
    public func huggingFaceName(postNorms: Bool) -> String {
        switch self {
        case .tokenEmbedding: "model.embed_tokens.weight"
        case .outputNorm: "model.norm.weight"
        case .output: "lm_head.weight"
        case .attentionNorm(let layer): "model.layers.\(layer).input_layernorm.weight"
        case .query(let layer): "model.layers.\(layer).self_attn.q_proj.weight"
        case .key(let layer): "model.layers.\(layer).self_attn.k_proj.weight"
        case .value(let layer): "model.layers.\(layer).self_attn.v_proj.weight"
        case .queryBias(let layer): "model.layers.\(layer).self_attn.q_proj.bias"
        case .keyBias(let layer): "model.layers.\(layer).self_attn.k_proj.bias"
        case .valueBias(let layer): "model.layers.\(layer).self_attn.v_proj.bias"
        case .queryNorm(let layer): "model.layers.\(layer).self_attn.q_norm.weight"
        case .keyNorm(let layer): "model.layers.\(layer).self_attn.k_norm.weight"
        case .attentionOutput(let layer): "model.layers.\(layer).self_attn.o_proj.weight"
        case .postAttentionNorm(let layer): "model.layers.\(layer).post_attention_layernorm.weight"
        case .feedForwardNorm(let layer):
            postNorms
                ? "model.layers.\(layer).pre_feedforward_layernorm.weight"
                : "model.layers.\(layer).post_attention_layernorm.weight"
        case .gate(let layer): "model.layers.\(layer).mlp.gate_proj.weight"
        case .up(let layer): "model.layers.\(layer).mlp.up_proj.weight"
        case .down(let layer): "model.layers.\(layer).mlp.down_proj.weight"
        case .postFeedForwardNorm(let layer): "model.layers.\(layer).post_feedforward_layernorm.weight"
        }
    }
}
