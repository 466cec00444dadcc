internal import Synchronization

/// What is computed between a query and a key, as a plain value: mask, logits, weights, sink and rotation, each ordinary Swift over
/// ``Expr``.
///
/// ```swift
/// let gemma = AttentionVariant("gemma-2", mask: .causal && .window(left: 4095), logits: .softCap(50))
/// ```
/// A variant is compared and hashed by what it computes, not by its name, and is the key under which compiled kernels are kept.
/// What it comes to in terms of the hand-written kernels is found out once, when it is made (``form``): forms they have run in them,
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
    ///   - logits: what becomes of scores.
    ///   - weights: the softmax, or weights of their own.
    ///   - sink: a logit that joins the softmax's sum.
    public init(
        _ name: String, mask: Mask = .none, scale: Float? = nil, rope: RoPEParameters? = nil,
        logits: Logits = .plain, weights: Weights = .softmax, sink: Sink = .none
    ) {
        self.name = name
        content = VariantContent(
            mask: mask, logits: logits, weights: weights, sink: sink, scale: scale, rope: rope)
    }

    /// A variant whose logits are given by their rule.
    public init(
        _ name: String, mask: Mask = .none, scale: Float? = nil, rope: RoPEParameters? = nil,
        weights: Weights = .softmax, sink: Sink = .none, fileID: String = #fileID, line: Int = #line,
        logits: (_ score: Expr<Float>, _ at: Site) -> Expr<Float>
    ) {
        self.init(
            name, mask: mask, scale: scale, rope: rope, logits: Logits(fileID: fileID, line: line, logits),
            weights: weights, sink: sink)
    }

    /// Which keys a query sees.
    public var mask: Mask {
        get { content.mask }
        set { replace(mask: newValue) }
    }

    /// What becomes of scores.
    public var logits: Logits {
        get { content.logits }
        set { replace(logits: newValue) }
    }

    /// How logits become weights.
    public var weights: Weights {
        get { content.weights }
        set { replace(weights: newValue) }
    }

    /// A logit that joins the softmax's sum.
    public var sink: Sink {
        get { content.sink }
        set { replace(sink: newValue) }
    }

    /// Multiplies `q · k`; `nil` for `1 / √headDimQK`.
    public var scale: Float? {
        get { content.scale }
        set { replace(scale: .some(newValue)) }
    }

    /// The rotation of queries and keys; `nil` for none.
    public var rope: RoPEParameters? {
        get { content.rope }
        set { replace(rope: .some(newValue)) }
    }

    /// What it comes to in terms of the hand-written kernels, and what is left over.
    package var form: VariantForm { content.form }

    /// Whether the hooks were found to be sound before; they never change.
    var isKnownSound: Bool {
        get { content.isKnownSound.load(ordering: .relaxed) }
        nonmutating set { content.isKnownSound.store(newValue, ordering: .relaxed) }
    }

    private mutating func replace(
        mask: Mask? = nil, logits: Logits? = nil, weights: Weights? = nil, sink: Sink? = nil, scale: Float?? = nil,
        rope: RoPEParameters?? = nil
    ) {
        content = VariantContent(
            mask: mask ?? content.mask, logits: logits ?? content.logits, weights: weights ?? content.weights,
            sink: sink ?? content.sink, scale: scale ?? content.scale, rope: rope ?? content.rope)
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

/// A variant's hooks, with what is derived from them once.
private final class VariantContent: Sendable {
    let mask: Mask
    let logits: Logits
    let weights: Weights
    let sink: Sink
    let scale: Float?
    let rope: RoPEParameters?
    let form: VariantForm
    let hash: Int
    let isKnownSound = Atomic(false)

    init(mask: Mask, logits: Logits, weights: Weights, sink: Sink, scale: Float?, rope: RoPEParameters?) {
        self.mask = mask
        self.logits = logits
        self.weights = weights
        self.sink = sink
        self.scale = scale
        self.rope = rope
        form = VariantForm(mask: mask, logits: logits, weights: weights)
        var hasher = Hasher()
        hasher.combine(mask)
        hasher.combine(logits)
        hasher.combine(weights)
        hasher.combine(sink)
        hasher.combine(scale)
        hasher.combine(rope)
        hash = hasher.finalize()
    }

    func isEqual(to other: VariantContent) -> Bool {
        hash == other.hash && mask == other.mask && logits == other.logits && weights == other.weights
            && sink == other.sink && scale == other.scale && rope == other.rope
    }
}
