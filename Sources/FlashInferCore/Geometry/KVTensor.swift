/// The keys or the values of a cache, in whatever layout, as base address and three strides.
///
/// Element `d` of head `h` at row `t` of block `b` lies at element offset
/// `b · blockStride + t · tokenStride + h · headStride + d`. Offsets are 64-bit throughout.
public struct KVTensor: Sendable, Equatable {
    /// The tensor as it was given.
    public let view: TensorView

    /// Elements between the starts of neighbouring blocks.
    public let blockStride: Int

    /// Elements between neighbouring tokens of a block.
    public let tokenStride: Int

    /// Elements between neighbouring heads.
    public let headStride: Int

    /// Block ids are below this: pages, or the rows of a ragged tensor.
    public let blockCount: Int

    /// Tokens in a block, or `nil` for a ragged tensor, whose "blocks" start at every token.
    public let blockSize: Int?

    /// The number of key/value heads.
    public let headCount: Int

    /// Elements of one head.
    public let headDim: Int

    /// The type of the elements.
    public var dtype: DType { view.dtype }

    /// Pages: `[pages, pageSize, heads, headDim]` (``KVLayout/nhd``) or `[pages, heads, pageSize, headDim]` (``KVLayout/hnd``).
    ///
    /// Any strides, but those within a head must be 1.
    public static func paged(
        _ view: TensorView, layout: KVLayout, name: String = "cache"
    ) throws(FlashInferError) -> KVTensor {
        try check(view, rank: 4, name: name)
        let (token, head) = layout == .nhd ? (1, 2) : (2, 1)
        return KVTensor(
            view: view, blockStride: view.strides[0], tokenStride: view.strides[token], headStride: view.strides[head],
            blockCount: view.shape[0], blockSize: view.shape[token], headCount: view.shape[head], headDim: view.shape[3]
        )
    }

    /// Tokens one after another: `[tokens, heads, headDim]` (``KVLayout/nhd``) or `[heads, tokens, headDim]`
    /// (``KVLayout/hnd``).
    public static func ragged(
        _ view: TensorView, layout: KVLayout = .nhd, name: String = "keys or values"
    ) throws(FlashInferError) -> KVTensor {
        try check(view, rank: 3, name: name)
        let (token, head) = layout == .nhd ? (0, 1) : (1, 0)
        return KVTensor(
            view: view, blockStride: view.strides[token], tokenStride: view.strides[token],
            headStride: view.strides[head], blockCount: view.shape[token], blockSize: nil, headCount: view.shape[head],
            headDim: view.shape[2])
    }

    /// Pages without heads: `[pages, pageSize, headDim]`.
    static func headless(_ view: TensorView, name: String) throws(FlashInferError) -> KVTensor {
        try check(view, rank: 3, name: name)
        return KVTensor(
            view: view, blockStride: view.strides[0], tokenStride: view.strides[1], headStride: 0,
            blockCount: view.shape[0], blockSize: view.shape[1], headCount: 1, headDim: view.shape[2])
    }

    private static func check(_ view: TensorView, rank: Int, name: String) throws(FlashInferError) {
        guard view.rank == rank else {
            throw .invalidArgument(name, found: "of shape \(view.shape)", expected: "of rank \(rank)")
        }
        guard view.dtype.isCacheType else {
            throw .invalidArgument(
                name, found: "\(view.dtype)", expected: "float32, float16, bfloat16, float8-e4m3, float8-e5m2 or int8")
        }
        guard view.strides[rank - 1] == 1 || view.shape[rank - 1] <= 1 else {
            throw .invalidArgument(
                "\(name) strides", found: "\(view.strides)", expected: "1 in the last dimension")
        }
    }
}
