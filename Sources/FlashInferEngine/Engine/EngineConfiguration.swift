/// The size and the limits of an ``Engine``.
public struct EngineConfiguration: Hashable, Sendable {
    /// The limits of the scheduler, the context length among them.
    public var scheduling: SchedulerConfiguration
    /// The pages of the cache; the model runner must have room for as many.
    public var pageCount: Int
    /// The positions of a page.
    public var pageSize: Int
    /// The tokens that end a text unless a request says otherwise.
    public var endOfSequenceTokens: Set<Int32>

    /// Makes a configuration.
    public init(
        scheduling: SchedulerConfiguration, pageCount: Int, pageSize: Int, endOfSequenceTokens: Set<Int32>
    ) {
        self.scheduling = scheduling
        self.pageCount = pageCount
        self.pageSize = pageSize
        self.endOfSequenceTokens = endOfSequenceTokens
    }
}

/// What an ``Engine`` is doing, and has done.
public struct EngineStatus: Hashable, Sendable {
    /// Requests taking part in steps.
    public let running: Int
    /// Requests waiting for their turn.
    public let waiting: Int
    /// The pages of the cache.
    public let pageCount: Int
    /// The pages that requests hold.
    public let heldPages: Int
    /// The most pages that requests held at a time.
    public let peakHeldPages: Int
    /// The pages whose contents later requests can reuse, held ones included.
    public let cachedPages: Int
    /// The steps run.
    public let steps: Int
    /// The tokens computed in them, prompts included.
    public let computedTokens: Int
}
