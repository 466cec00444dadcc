public import FlashInferCore

/// The name of a request, unique among the unfinished requests of a scheduler.
public struct RequestID: Hashable, Sendable, Comparable, CustomStringConvertible {
    /// The number.
    public let rawValue: UInt64

    /// Names a request by number.
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// The number in decimal.
    public var description: String { String(rawValue) }

    /// Orders ids by number.
    public static func < (left: RequestID, right: RequestID) -> Bool { left.rawValue < right.rawValue }
}

/// What a scheduler is asked to do: continue a prompt until something stops it.
public struct Request: Sendable {
    /// The name of the request.
    public var id: RequestID
    /// The token ids to continue; at least one.
    public var promptTokens: [Int32]
    /// The most tokens to generate; at least one. The scheduler lowers it to what the context and the pool can hold.
    public var maxTokens: Int
    /// The token ids that end the text when they are sampled, such as end-of-sequence.
    public var stopTokens: Set<Int32>
    /// How tokens are chosen.
    public var sampling: SamplingParameters

    /// Makes a request.
    public init(
        id: RequestID, promptTokens: [Int32], maxTokens: Int, stopTokens: Set<Int32> = [],
        sampling: SamplingParameters = .greedy
    ) {
        self.id = id
        self.promptTokens = promptTokens
        self.maxTokens = maxTokens
        self.stopTokens = stopTokens
        self.sampling = sampling
    }
}

/// Why a request ended.
public enum FinishReason: Hashable, Sendable {
    /// A stop token was sampled, such as end-of-sequence.
    case stopToken(Int32)
    /// The text reached a stop string.
    case stopString(String)
    /// The request's own token limit was reached.
    case maxTokens
    /// The model's context, or the whole page pool, is full.
    case contextFull
    /// The request was cancelled.
    case cancelled
}
