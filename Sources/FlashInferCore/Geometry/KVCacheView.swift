/// The scales by which a quantised cache's stored numbers are multiplied to give keys and values.
public struct KVScales: Sendable, Equatable {
    /// Multiplies every key.
    public var key: Float

    /// Multiplies every value.
    public var value: Float

    /// `[kvHeads]`, float32: multiplies the keys of each head, on top of `key`.
    public var keyPerHead: TensorView?

    /// `[kvHeads]`, float32: multiplies the values of each head, on top of `value`.
    public var valuePerHead: TensorView?

    /// Scales; all 1 by default.
    public init(key: Float = 1, value: Float = 1, keyPerHead: TensorView? = nil, valuePerHead: TensorView? = nil) {
        self.key = key
        self.value = value
        self.keyPerHead = keyPerHead
        self.valuePerHead = valuePerHead
    }
}

/// Keys and values of one layer, wherever and however they lie.
public struct KVCacheView: Sendable, Equatable {
    /// The keys, with head dimension `headDimQK`.
    public let keys: KVTensor

    /// The values, with head dimension `headDimVO`.
    public let values: KVTensor

    /// The scales of a quantised cache.
    public var scales: KVScales

    /// Keys and values made by ``KVTensor``'s checked forms.
    ///
    /// - Throws: ``FlashInferError`` where their heads, blocks, types or devices differ.
    public init(keys: KVTensor, values: KVTensor, scales: KVScales = KVScales()) throws(FlashInferError) {
        guard keys.headCount == values.headCount else {
            throw .lengthMismatch("value heads", found: values.headCount, expected: keys.headCount)
        }
        guard keys.blockCount == values.blockCount else {
            throw .lengthMismatch("value blocks", found: values.blockCount, expected: keys.blockCount)
        }
        guard keys.blockSize == values.blockSize else {
            throw .lengthMismatch("value page size", found: values.blockSize ?? 1, expected: keys.blockSize ?? 1)
        }
        guard keys.dtype == values.dtype else {
            throw .invalidArgument("values", found: "\(values.dtype)", expected: "\(keys.dtype), as the keys")
        }
        guard keys.view.device == values.view.device else {
            throw .invalidArgument(
                "values", found: "on \(values.view.device)", expected: "on \(keys.view.device), as the keys")
        }
        for (name, scale) in [("key scale", scales.keyPerHead), ("value scale", scales.valuePerHead)] {
            guard let scale else { continue }
            guard scale.dtype == .float32, scale.rank == 1, scale.shape[0] == keys.headCount, scale.isContiguous else {
                throw .invalidArgument(
                    name, found: "\(scale.dtype) \(scale.shape)", expected: "contiguous float32 [\(keys.headCount)]")
            }
        }
        self.keys = keys
        self.values = values
        self.scales = scales
    }

    /// Values that are the keys' own elements.
    init(shared keys: KVTensor, scales: KVScales) { (self.keys, values, self.scales) = (keys, keys, scales) }

    /// A combined paged cache: `[pages, 2, pageSize, heads, headDim]` or `[pages, 2, heads, pageSize, headDim]`,
    /// keys at index 0 of the second dimension, values at 1.
    public static func paged(
        combined: TensorView, layout: KVLayout = .nhd, scales: KVScales = KVScales()
    ) throws(FlashInferError) -> KVCacheView {
        guard combined.rank == 5, combined.shape[1] == 2 else {
            throw .invalidArgument(
                "combined cache", found: "of shape \(combined.shape)",
                expected: "of rank 5 with extent 2 in dimension 1")
        }
        return try paged(
            keys: combined.select(0, along: 1), values: combined.select(1, along: 1), layout: layout, scales: scales)
    }

    /// A split paged cache: keys and values each `[pages, pageSize, heads, headDim]` or `[pages, heads, pageSize, headDim]`.
    public static func paged(
        keys: TensorView, values: TensorView, layout: KVLayout = .nhd, scales: KVScales = KVScales()
    ) throws(FlashInferError) -> KVCacheView {
        try KVCacheView(
            keys: .paged(keys, layout: layout, name: "key cache"),
            values: .paged(values, layout: layout, name: "value cache"), scales: scales)
    }

    /// Ragged or contiguous keys and values: `[tokens, heads, headDim]` or `[heads, tokens, headDim]`.
    public static func ragged(
        keys: TensorView, values: TensorView, layout: KVLayout = .nhd, scales: KVScales = KVScales()
    ) throws(FlashInferError) -> KVCacheView {
        try KVCacheView(
            keys: .ragged(keys, layout: layout, name: "keys"), values: .ragged(values, layout: layout, name: "values"),
            scales: scales)
    }
}
