// What models of today do, by name: each the hooks that its paper or its code has.

extension AttentionVariant {
    /// Mistral (arXiv 2310.06825): causal, over a sliding window of `window` keys with the query's own.
    public static func mistral(window: Int = 4096) -> AttentionVariant {
        AttentionVariant("mistral", mask: .causal && .window(left: window - 1))
    }

    /// Gemma 2 (arXiv 2408.00118): logits capped, every other layer over a sliding window.
    ///
    /// - Parameters:
    ///   - window: keys with the query's own; `nil` for a layer that sees all.
    ///   - scale: `nil` for `1 / √headDim`; the model's is by another number for some sizes.
    public static func gemma2(window: Int? = 4096, softCap: Float = 50, scale: Float? = nil) -> AttentionVariant {
        AttentionVariant(
            "gemma-2", mask: window.map { .causal && .window(left: $0 - 1) } ?? .causal, scale: scale,
            logits: .softCap(softCap))
    }

    /// GPT-OSS (arXiv 2508.10925): a learned sink for each head, every other layer over a sliding window. Runs take `sinks`.
    ///
    /// - Parameter window: keys with the query's own; `nil` for a layer that sees all.
    public static func gptOSS(window: Int? = 128) -> AttentionVariant {
        AttentionVariant(
            "gpt-oss", mask: window.map { .causal && .window(left: $0 - 1) } ?? .causal, sink: .perHead)
    }

    /// Sigmoid attention (arXiv 2409.04431): weights that do not compete, with a bias of −log of the keys.
    public static let sigmoid = AttentionVariant(
        "sigmoid", mask: .causal,
        weights: Weights { logit, at in FlashInferCore.sigmoid(logit - log(at.keyLength.float)) })

    /// Both halves of differential attention (arXiv 2410.05258) in one run: heads come in pairs that share values, an even one for
    /// what is kept and an odd one for what is taken off, and the sum of a pair's outputs is the output of the head.
    ///
    /// - Parameter lambda: the share that is taken off, of extent `.perHead`, read at the odd heads.
    public static func differential(lambda: Parameter<Float>) -> AttentionVariant {
        AttentionVariant(
            "differential", mask: .causal,
            output: Output { value, at in select(at.head % 2 == 0, value, -lambda[at.head] * value) })
    }
}
