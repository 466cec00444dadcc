/// Verifies drafted tokens against the target model's probabilities, and draws one token after those that stand, so that what is
/// emitted has the target's own distribution: Leviathan et al. (arXiv 2211.17192) for chains, and recursive rejection over siblings
/// (SpecInfer, arXiv 2305.09781) for trees.
///
/// Node 0 of a request is the last token of its text; `target[r, n]` is the distribution of the token after node `n`. From node 0
/// on, the children of a node are tried in their order; a child of token `t` stands where `u · q(t) ≤ p(t)` and `p(t) > 0`:
/// - with draft probabilities, `q` is `draft[r, n]`, from which the node's children were drawn independently; a rejection replaces `p`
///   by `max(p − q, 0)`, divided by its sum;
/// - without, `q` is 1 (the drafts were not drawn: an n-gram, a beam, the k likeliest), and a rejection takes `t` out of `p`.
///
/// The walk goes on from the child that stands. Where none does, one token is drawn from what `p` has become. A child's `u` is the
/// ``Philox4x32`` number of (seed, step) in the stream of the child's node number; the last draw has stream 0.
///
/// Rows are probabilities, that is, sum to 1 up to rounding. FlashInfer's chain accepts where `u · q < p` with `u` in [0, 1), so a token of
/// probability 0 in both can stand; here it cannot. A row that cannot be drawn from gives −1 for that token and its ``RowStatus``.
public struct VerifyDraftsOperation: Sendable, Equatable {
    /// The random numbers of one request.
    public struct Draw: Sendable, Hashable {
        /// The request's seed.
        public var seed: UInt64
        /// Another number for each verification of the request.
        public var step: UInt64

        /// A draw of these numbers.
        public init(seed: UInt64, step: UInt64) {
            self.seed = seed
            self.step = step
        }
    }

    /// Which node follows which.
    public enum Tree: Sendable, Equatable {
        /// Node n + 1 is the only child of node n.
        case chain
        /// `[requests, nodes]` each, int32, contiguous: a node's first child, and the next child of its parent; −1 for none. Links
        /// that lead nowhere end a walk.
        case links(firstChild: TensorView, nextSibling: TensorView)
    }

    /// Nodes of a request at most.
    public static let largestNodeCount = 256

    /// `[requests, nodes, vocabulary]`, float32, stride 1 within a row.
    public var target: TensorView
    /// `[requests, nodes, vocabulary]`, or one node fewer for a chain, whose last has no child; float32, stride 1 within a row.
    public var draft: TensorView?
    /// `[requests, nodes]`, int32, contiguous, whose column 0 is not read; for a chain `[requests, nodes - 1]`, from node 1 on.
    public var tokens: TensorView
    /// Which node follows which.
    public var tree: Tree
    /// One for each request; none where `packedDraws` has them.
    public var draws: [Draw]
    /// `[requests, 16]`, uint8, contiguous, at a multiple of 8 bytes: numbers in the device's memory, as ``Draw/packed(_:)`` lays
    /// them out, instead of `draws`; a captured graph reads what is there at each replay.
    public var packedDraws: TensorView?
    /// `[requests, nodes]`, int32, contiguous: the tokens emitted, the drawn one last, and −1 after it.
    public var output: TensorView
    /// `[requests, nodes]`, int32, contiguous, or none: the nodes that stand, in the order of their tokens, and −1 after them.
    public var outputNodes: TensorView?
    /// `[requests]`, int32, contiguous, or none: of a chain, how many tokens stand if each is looked at alone; of a tree, as `emitted`.
    public var accepted: TensorView?
    /// `[requests]`, int32, contiguous: how many drafted tokens are emitted.
    public var emitted: TensorView
    /// `[requests]`, uint8, contiguous: a ``RowStatus`` for each request's draw.
    public var status: TensorView

    /// An operation; call ``validate()`` before it is executed.
    public init(
        target: TensorView, draft: TensorView? = nil, tokens: TensorView, tree: Tree = .chain, draws: [Draw],
        output: TensorView, outputNodes: TensorView? = nil, accepted: TensorView? = nil, emitted: TensorView,
        status: TensorView
    ) {
        self.target = target
        self.draft = draft
        self.tokens = tokens
        self.tree = tree
        self.draws = draws
        self.output = output
        self.outputNodes = outputNodes
        self.accepted = accepted
        self.emitted = emitted
        self.status = status
    }

    /// Checks every tensor.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor, what it is, and what it must be.
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: target.device)
        guard target.rank == 3, target.shape[1] >= 1, target.shape[1] <= Self.largestNodeCount else {
            throw .invalidArgument(
                "target", found: "of shape \(target.shape)",
                expected: "[requests, nodes, vocabulary] of 1 ... \(Self.largestNodeCount) nodes")
        }
        let (requests, nodes) = (target.shape[0], target.shape[1])
        let childless = tree == .chain ? 1 : 0
        for (view, name, count) in [(target, "target", nodes), (draft, "draft", nodes - childless)] {
            guard let view else { continue }
            guard view.dtype == .float32 else {
                throw .invalidArgument(name, found: "\(view.dtype)", expected: "float32")
            }
            try checks.shape(view, name, [requests, count, target.shape[2]])
            try checks.rows(view, name)
        }
        try checks.width(target, "target")
        try matrix(tokens, "tokens", [requests, nodes - childless])
        if case .links(let firstChild, let nextSibling) = tree {
            try matrix(firstChild, "firstChild", [requests, nodes])
            try matrix(nextSibling, "nextSibling", [requests, nodes])
        }
        try matrix(output, "output", [requests, nodes])
        if let outputNodes { try matrix(outputNodes, "outputNodes", [requests, nodes]) }
        if let accepted { try checks.vector(accepted, "accepted", .int32, requests) }
        try checks.vector(emitted, "emitted", .int32, requests)
        try checks.vector(status, "status", .uint8, requests)
        try checks.packed(packedDraws, "packedDraws", requests, Draw.packedByteCount)
        guard draws.count == (packedDraws == nil ? requests : 0) else {
            throw .lengthMismatch("draws", found: draws.count, expected: packedDraws == nil ? requests : 0)
        }
    }

    private func matrix(_ view: TensorView, _ name: String, _ shape: Shape) throws(FlashInferError) {
        guard view.dtype == .int32, view.shape == shape, view.isContiguous else {
            throw .invalidArgument(
                name, found: "\(view.dtype) \(view.shape)", expected: "contiguous int32 \(shape)")
        }
        try TensorChecks(device: target.device).here(view, name)
    }
}
