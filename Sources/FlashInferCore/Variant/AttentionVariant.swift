/// What is computed between a query and a key: mask, window, caps and position encoding, as a plain value.
///
/// The score of query `i` and key `j` is `scale · (q · k)`, then ALiBi's slope is added or the soft cap applied, then what
/// the mask or the window hides becomes −∞. Tensors that a variant needs (mask bits, slopes, sinks) belong to the run, not to
/// the plan: see ``AttentionOperation``.
public struct AttentionVariant: Sendable, Hashable {
    /// Which keys a query sees, before the window.
    public enum Mask: Sendable, Hashable {
        /// All.
        case none
        /// Those up to the query's own position. Queries are aligned to the end of the keys: query `i` sees key `j` where
        /// `j ≤ i + kvLength − queryLength`. Queries before the first key see nothing: output 0, LSE −∞.
        case causal
        /// Those with a true element in the run's mask: one byte an element, request after request, row-major
        /// `[queryLength, kvLength]`.
        case custom
        /// As `custom`, but eight elements a byte, lowest bit first, each request padded to a whole byte.
        case customPacked
    }

    /// How positions enter the score.
    public enum PositionEncoding: Sendable, Hashable {
        /// Not here (keys and queries may have been rotated before).
        case none
        /// ALiBi (arXiv 2108.12409): adds `slope[head] · (j − i)`, with `i` the query's row in its request.
        case alibi
        /// Rotates queries and (pre-RoPE) keys as they are loaded; the query's position is `kvLength − queryLength + i`.
        case rope(RoPEParameters)
    }

    /// Which keys a query sees, before the window.
    public var mask: Mask

    /// A sliding window: only keys `j ≥ (i + kvLength − queryLength) − windowLeft` are seen, so `windowLeft + 1` with the query's own.
    /// `nil` for no window.
    public var windowLeft: Int?

    /// Scores become `cap · tanh(score / cap)`. `nil` for no cap.
    public var logitsSoftCap: Float?

    /// Multiplies `q · k`; `nil` for `1 / √headDimQK`.
    public var scale: Float?

    /// How positions enter the score.
    public var positionEncoding: PositionEncoding

    /// Whether each head has an attention sink: a logit (natural scale) that joins the softmax's sum and has no value.
    public var hasSinks: Bool

    /// A variant; plain softmax attention by default.
    public init(
        mask: Mask = .none, windowLeft: Int? = nil, logitsSoftCap: Float? = nil, scale: Float? = nil,
        positionEncoding: PositionEncoding = .none, hasSinks: Bool = false
    ) {
        self.mask = mask
        self.windowLeft = windowLeft
        self.logitsSoftCap = logitsSoftCap
        self.scale = scale
        self.positionEncoding = positionEncoding
        self.hasSinks = hasSinks
    }

    /// Causal attention with the default scale.
    public static var causal: AttentionVariant { AttentionVariant(mask: .causal) }

    /// Attention to all keys with the default scale.
    public static var full: AttentionVariant { AttentionVariant() }

    /// ALiBi's slopes for `heads` heads, as its paper gives them for any count: powers of `2^(−8/n)` for the largest power of
    /// two `n ≤ heads`, then every other power of `2^(−4/n)`.
    public static func alibiSlopes(heads: Int) -> [Float] {
        var closest = 1
        while closest * 2 <= heads { closest *= 2 }
        return (0..<heads).map { head in
            let exponent =
                head < closest
                ? -8 * Double(head + 1) / Double(closest)
                : -4 * Double(2 * (head - closest) + 1) / Double(closest)
            return Float(ElementaryFunctions.pow(2, exponent))
        }
    }
}
