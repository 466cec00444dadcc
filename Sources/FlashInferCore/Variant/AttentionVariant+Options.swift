// The usual options of attention as constructors of the same value, and read back from it.

extension AttentionVariant {
    /// How positions enter the score.
    public enum PositionEncoding: Sendable, Hashable {
        /// Not here (keys and queries may have been rotated before).
        case none
        /// ALiBi (arXiv 2108.12409): adds `slope[head] · (j − i)`, with `i` the query's row in its request.
        case alibi
        /// Rotates queries and (pre-RoPE) keys as they are loaded; the query's position is `kvLength − queryLength + i`.
        case rope(RoPEParameters)
    }

    /// A variant by its options; plain softmax attention by default.
    ///
    /// - Parameters:
    ///   - mask: which keys a query sees, before the window.
    ///   - windowLeft: a sliding window: only keys `j ≥ (i + kvLength − queryLength) − windowLeft` are seen, so `windowLeft + 1` with
    ///     the query's own. `nil` for no window.
    ///   - logitsSoftCap: scores become `cap · tanh(score / cap)`. `nil` for no cap.
    ///   - scale: multiplies `q · k`; `nil` for `1 / √headDimQK`.
    ///   - positionEncoding: how positions enter the score.
    ///   - hasSinks: whether each head has an attention sink: a logit (natural scale) that joins the softmax's sum and has no value.
    public init(
        mask: Mask = .none, windowLeft: Int? = nil, logitsSoftCap: Float? = nil, scale: Float? = nil,
        positionEncoding: PositionEncoding = .none, hasSinks: Bool = false
    ) {
        var logits = logitsSoftCap.map { Logits.softCap($0) } ?? .plain
        var rope: RoPEParameters?
        switch positionEncoding {
        case .none: break
        case .alibi: logits = logits.then(.alibi)
        case .rope(let parameters): rope = parameters
        }
        self.init(
            "attention", mask: windowLeft.map { mask && .window(left: $0) } ?? mask, scale: scale, rope: rope,
            logits: logits, sink: hasSinks ? .perHead : .none)
    }

    /// Causal attention with the default scale.
    public static var causal: AttentionVariant { AttentionVariant(mask: .causal) }

    /// Attention to all keys with the default scale.
    public static var full: AttentionVariant { AttentionVariant() }

    /// The narrowest window among the mask's conditions; `nil` for none.
    public var windowLeft: Int? {
        get { form.windowLeft }
        set {
            let rest = form.maskBesidesWindow
            mask = newValue.map { rest && .window(left: $0) } ?? rest
        }
    }

    /// The cap, where the logits are capped and no more than ALiBi is done to them after.
    public var logitsSoftCap: Float? { form.softCap }

    /// How positions enter the score, where it is in one of these ways.
    public var positionEncoding: PositionEncoding {
        if let rope { return .rope(rope) }
        return form.isALiBi ? .alibi : .none
    }

    /// Whether each head has an attention sink of the run's.
    public var hasSinks: Bool { sink == .perHead }

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
