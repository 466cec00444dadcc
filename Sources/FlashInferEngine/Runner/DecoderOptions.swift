public import FlashInfer

/// How a model is laid out in memory and how much it serves at once.
public struct DecoderOptions: Sendable, Equatable {
    /// Tokens of a cache page.
    public var pageSize = 16
    /// Pages of the cache; the default holds 16,384 tokens.
    public var pageCount = 1024
    /// The type that keys and values are stored in.
    public var cacheType = DType.float16
    /// What a quantised cache's stored numbers are multiplied by.
    public var cacheScale: Float = 1
    /// Rows of the largest step.
    public var maximumBatchTokens = 512
    /// Sequences of the largest step.
    public var maximumSequences = 64
    /// Whether a request's tokens must be the same, bit for bit, next to any neighbours.
    public var isBatchInvariant = false

    /// The defaults.
    public init() {}

    /// Checks the options.
    ///
    /// - Throws: ``FlashInferError/invalidArgument(_:found:expected:)`` for the first one out of range.
    public func validate() throws(FlashInferError) {
        for (name, value) in [
            ("pageSize", pageSize), ("pageCount", pageCount), ("maximumBatchTokens", maximumBatchTokens),
            ("maximumSequences", maximumSequences),
        ] where value < 1 || value > 1 << 24 {
            throw .invalidArgument(name, found: "\(value)", expected: "in 1 ... \(1 << 24)")
        }
        guard cacheType.isCacheType else {
            throw .invalidArgument("cacheType", found: "\(cacheType)", expected: "a floating-point type or int8")
        }
        guard cacheScale > 0, cacheScale.isFinite else {
            throw .invalidArgument("cacheScale", found: "\(cacheScale)", expected: "positive and finite")
        }
    }
}
