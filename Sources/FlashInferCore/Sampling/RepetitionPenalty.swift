/// The repetition penalty of CTRL (Keskar et al., arXiv 1909.05858) on one row of logits.
public enum RepetitionPenalty {
    /// Divides the positive, and multiplies the negative, logits of `tokens` by `penalty`, each token once.
    ///
    /// Ids outside the row are passed over: a prompt may hold tokens that the model has no logit for.
    ///
    /// - Parameter seen: scratch of at least `logits.count` bytes, all zero; zero again on return.
    /// - Complexity: O(tokens).
    public static func apply(
        _ penalty: Float, to tokens: [Int32], logits: inout MutableSpan<Float>, seen: inout MutableSpan<UInt8>
    ) {
        precondition(seen.count >= logits.count, "one byte of scratch for each logit")
        if penalty == 1 { return }
        for token in tokens {
            guard let index = Int(exactly: token), index >= 0, index < logits.count, seen[index] == 0 else { continue }
            seen[index] = 1
            logits[index] = logits[index] > 0 ? logits[index] / penalty : logits[index] * penalty
        }
        for token in tokens where token >= 0 && Int(token) < logits.count { seen[Int(token)] = 0 }
    }
}
