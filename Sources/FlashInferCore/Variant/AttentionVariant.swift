internal import Synchronization

/// What is computed between a query and a key, as a plain value: scaling, mask, logits, weights, values, sink, normalizer, output and
/// rotation, each ordinary Swift over ``Expr``.
///
/// ```swift
/// let gemma = AttentionVariant("gemma-2", mask: .causal && .window(left: 4095), logits: .softCap(50))
/// ```
/// A variant is compared and hashed by what it computes, not by its name, and is the key under which compiled kernels are kept.
/// What it comes to in terms of the hand-written kernels is found out once, when it is made (`form`): forms they have run in them,
/// and only what is left over is compiled from the expressions.
///
/// Tensors that a variant reads (mask bits, slopes, sinks, parameters) belong to the run, not to the plan: see
/// ``AttentionOperation``.
public struct AttentionVariant: Sendable {
    /// Which keys a query sees, before the window.
    public typealias Mask = FlashInferCore.Mask

    /// Its name, for messages.
    public var name: String

    private var content: VariantContent

    /// A variant by its hooks.
    ///
    /// - Parameters:
    ///   - name: for messages.
    ///   - mask: which keys a query sees.
    ///   - scale: multiplies `q · k`; `nil` for `1 / √headDimQK`.
    ///   - rope: rotates queries and (pre-RoPE) keys as they are loaded; `nil` for none. The query's position is
    ///     `kvLength − queryLength + i`.
    ///   - query: multiplies queries, besides the scale.
    ///   - key: multiplies keys.
    ///   - value: what becomes of values' elements.
    ///   - logits: what becomes of scores.
    ///   - weights: the softmax, or weights of their own.
    ///   - sink: a logit that joins the softmax's sum: what the running maximum and sum start from.
    ///   - normalizer: what the weighted sum is divided by, from the running maximum and sum in the end.
    ///   - output: what becomes of the output's elements.
    public init(
        _ name: String, mask: Mask = .none, scale: Float? = nil, rope: RoPEParameters? = nil,
        query: Scaling = .none, key: Scaling = .none, value: Values = .plain, logits: Logits = .plain,
        weights: Weights = .softmax, sink: Sink = .none, normalizer: Normalizer = .plain, output: Output = .plain
    ) {
        self.name = name
        content = VariantContent(
            VariantHooks(
                mask: mask, query: query, key: key, value: value, logits: logits, weights: weights, sink: sink,
                normalizer: normalizer, output: output, scale: scale, rope: rope))
    }

    /// A variant whose logits are given by their rule.
    public init(
        _ name: String, mask: Mask = .none, scale: Float? = nil, rope: RoPEParameters? = nil,
        query: Scaling = .none, key: Scaling = .none, value: Values = .plain, weights: Weights = .softmax,
        sink: Sink = .none, normalizer: Normalizer = .plain, output: Output = .plain, fileID: String = #fileID,
        line: Int = #line,
        logits: (_ score: Expr<Float>, _ at: Site) -> Expr<Float>
    ) {
        self.init(
            name, mask: mask, scale: scale, rope: rope, query: query, key: key, value: value,
            logits: Logits(fileID: fileID, line: line, logits), weights: weights, sink: sink, normalizer: normalizer,
            output: output)
    }

    /// Which keys a query sees.
    public var mask: Mask {
        get { content.hooks.mask }
        set { replace(\.mask, by: newValue) }
    }

    /// What queries are multiplied by.
    public var query: Scaling {
        get { content.hooks.query }
        set { replace(\.query, by: newValue) }
    }

    /// What keys are multiplied by.
    public var key: Scaling {
        get { content.hooks.key }
        set { replace(\.key, by: newValue) }
    }

    /// What becomes of values' elements.
    public var value: Values {
        get { content.hooks.value }
        set { replace(\.value, by: newValue) }
    }

    /// What becomes of scores.
    public var logits: Logits {
        get { content.hooks.logits }
        set { replace(\.logits, by: newValue) }
    }

    /// How logits become weights.
    public var weights: Weights {
        get { content.hooks.weights }
        set { replace(\.weights, by: newValue) }
    }

    /// A logit that joins the softmax's sum.
    public var sink: Sink {
        get { content.hooks.sink }
        set { replace(\.sink, by: newValue) }
    }

    /// What the weighted sum is divided by.
    public var normalizer: Normalizer {
        get { content.hooks.normalizer }
        set { replace(\.normalizer, by: newValue) }
    }

    /// What becomes of the output's elements.
    public var output: Output {
        get { content.hooks.output }
        set { replace(\.output, by: newValue) }
    }

    /// Multiplies `q · k`; `nil` for `1 / √headDimQK`.
    public var scale: Float? {
        get { content.hooks.scale }
        set { replace(\.scale, by: newValue) }
    }

    /// The rotation of queries and keys; `nil` for none.
    public var rope: RoPEParameters? {
        get { content.hooks.rope }
        set { replace(\.rope, by: newValue) }
    }

    /// The logits of a score that queries and keys are not yet multiplied into.
    package var scaledLogits: ExprGraph { content.hooks.scaledLogits.expression.graph }

    /// What it comes to in terms of the hand-written kernels, and what is left over.
    package var form: VariantForm { content.form }

    /// Whether the hooks were found to be sound before; they never change.
    var isKnownSound: Bool {
        get { content.isKnownSound.load(ordering: .relaxed) }
        nonmutating set { content.isKnownSound.store(newValue, ordering: .relaxed) }
    }

    private mutating func replace<Hook>(_ hook: WritableKeyPath<VariantHooks, Hook>, by value: Hook) {
        var hooks = content.hooks
        hooks[keyPath: hook] = value
        content = VariantContent(hooks)
    }
}

extension AttentionVariant: Hashable {
    /// By what they compute; names and places do not count.
    public static func == (left: AttentionVariant, right: AttentionVariant) -> Bool {
        left.content === right.content || left.content.isEqual(to: right.content)
    }

    /// Feeds the hash that was made with the value.
    public func hash(into hasher: inout Hasher) { hasher.combine(content.hash) }
}

/// All that a variant computes.
struct VariantHooks: Hashable, Sendable {
    var mask: Mask
    var query: Scaling
    var key: Scaling
    var value: Values
    var logits: Logits
    var weights: Weights
    var sink: Sink
    var normalizer: Normalizer
    var output: Output
    var scale: Float?
    var rope: RoPEParameters?

    /// The logits with the factors of queries and keys, which a score is multiplied by first.
    var scaledLogits: Logits {
        let factors = [query.expression, key.expression].compactMap { $0 }
        if factors.isEmpty { return logits }
        return Logits(factors.reduce(.score) { $0 * $1 }, at: logits.place).then(logits)
    }
}

/// A variant's hooks, with what is derived from them once.
private final class VariantContent: Sendable {
    let hooks: VariantHooks
    let form: VariantForm
    let hash: Int
    let isKnownSound = Atomic(false)

    init(_ hooks: VariantHooks) {
        self.hooks = hooks
        form = VariantForm(hooks)
        hash = hooks.hashValue
    }

    func isEqual(to other: VariantContent) -> Bool { hash == other.hash && hooks == other.hooks }
}
