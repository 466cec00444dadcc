/// One thing a device can do, as a value: what to compute, on which tensors.
///
/// A device's `execute(_:)` takes it, a ``RecordingDevice`` keeps it for a test to look at. The largest operations lie behind a reference,
/// so that passing on a small one moves few bytes.
public enum Operation: Sendable {
    /// Attention of a planned batch.
    indirect case attention(AttentionOperation)
    /// Multi-head latent attention of a planned batch.
    indirect case mla(MLAOperation)
    /// A merge of states of attention.
    case mergeStates(MergeStatesOperation)
    /// Root-mean-square normalisation.
    case rmsNorm(RMSNormOperation)
    /// Layer normalisation.
    case layerNorm(LayerNormOperation)
    /// Rotary position embedding.
    case rope(RoPEOperation)
    /// Rotary position embedding of heads in two parts, quantised, and stored.
    indirect case splitRoPE(SplitRoPEOperation)
    /// A gated activation.
    case gatedActivation(GatedActivationOperation)
    /// A weighted sum, or one tensor scaled.
    case add(AddOperation)
    /// Conversion between element types.
    case convert(ConvertOperation)
    /// Conversion to 8 bits with scales that are computed.
    case quantize(QuantizeOperation)
    /// Flags packed into bits.
    case packBits(PackBitsOperation)
    /// Rows of a table.
    case embedding(EmbeddingOperation)
    /// Softmax of rows.
    case softmax(SoftmaxOperation)
    /// The greatest entry of rows.
    case argmax(ArgmaxOperation)
    /// The log-probability of one token of each row.
    case logProbability(LogProbabilityOperation)
    /// Sampling one token from each row.
    case sample(SampleOperation)
    /// What top-k, top-p and min-p keep of rows.
    case filter(FilterOperation)
    /// The greatest entries of rows, with their places.
    case topK(TopKOperation)
    /// The pages of the greatest scores of rows.
    case selectPages(SelectPagesOperation)
    /// The bounds of pages' keys after an append.
    indirect case updatePageBounds(UpdatePageBoundsOperation)
    /// Scores of pages by their bounds.
    indirect case scorePages(ScorePagesOperation)
    /// Biases, penalties and masks on rows of logits.
    case adjustLogits(AdjustLogitsOperation)
    /// Speculative sampling: which drafted tokens stand.
    case verifyDrafts(VerifyDraftsOperation)
    /// New keys and values into a cache.
    indirect case appendKV(AppendKVOperation)
    /// Rotary position embedding, and the keys and values stored.
    indirect case ropeAppendKV(RoPEAppendKVOperation)
    /// Whole pages of a cache to other pages.
    indirect case copyPages(CopyPagesOperation)
    /// A product with packed weights.
    case linear(LinearOperation)
}

extension Operation {
    /// Checks every tensor and parameter; see each operation for what it throws.
    public func validate() throws(FlashInferError) {
        switch self {
        case .attention(let operation): try operation.validate()
        case .mla(let operation): try operation.validate()
        case .mergeStates(let operation): try operation.validate()
        case .rmsNorm(let operation): try operation.validate()
        case .layerNorm(let operation): try operation.validate()
        case .rope(let operation): try operation.validate()
        case .splitRoPE(let operation): try operation.validate()
        case .gatedActivation(let operation): try operation.validate()
        case .add(let operation): try operation.validate()
        case .convert(let operation): try operation.validate()
        case .quantize(let operation): try operation.validate()
        case .packBits(let operation): try operation.validate()
        case .embedding(let operation): try operation.validate()
        case .softmax(let operation): try operation.validate()
        case .argmax(let operation): try operation.validate()
        case .logProbability(let operation): try operation.validate()
        case .sample(let operation): try operation.validate()
        case .filter(let operation): try operation.validate()
        case .topK(let operation): try operation.validate()
        case .selectPages(let operation): try operation.validate()
        case .updatePageBounds(let operation): try operation.validate()
        case .scorePages(let operation): try operation.validate()
        case .adjustLogits(let operation): try operation.validate()
        case .verifyDrafts(let operation): try operation.validate()
        case .appendKV(let operation): try operation.validate()
        case .ropeAppendKV(let operation): try operation.validate()
        case .copyPages(let operation): try operation.validate()
        case .linear(let operation): try operation.validate()
        }
    }
}
