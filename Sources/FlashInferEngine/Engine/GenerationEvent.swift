/// What an ``Engine`` tells about a request as it goes on.
public enum GenerationEvent: Sendable, Hashable {
    /// One more token.
    case token(GeneratedToken)
    /// The last event of every request that does not end with an error.
    case finished(GenerationSummary)
}

/// A generated token and the text it completes.
public struct GeneratedToken: Sendable, Hashable {
    /// The token id. The stop token, if one ends the text, is an event of its own with no text but what was held back.
    public let id: Int32
    /// The text that is certain with this token. Text that may be the start of a stop string or of a character comes
    /// with a later token; all events together hold the whole text.
    public let text: String
    /// The natural logarithm of the token's probability, if it was asked for.
    public let logProbability: Float?
}

/// How a request ended.
public struct GenerationSummary: Sendable, Hashable {
    /// Why it ended.
    public let reason: FinishReason
    /// What it took.
    public let statistics: GenerationStatistics
}

/// What a request took.
public struct GenerationStatistics: Sendable, Hashable {
    /// Token and preemption counts.
    public var counts: SequenceCounts
    /// From submission to the first token; nil when there was none.
    public var timeToFirstToken: Duration?
    /// From each token to the next; one fewer than there are tokens.
    public var interTokenLatencies: [Duration]
    /// From submission to the end.
    public var total: Duration

    /// The latency that a fraction `rank` of the inter-token latencies do not exceed: 0.5 for the median. Nil with
    /// fewer than two tokens.
    public func interTokenLatency(rank: Double) -> Duration? {
        Self.nearestRank(rank, of: interTokenLatencies.sorted())
    }

    /// The least of `sorted` that a fraction `rank` of them do not exceed; nil when there are none.
    public static func nearestRank(_ rank: Double, of sorted: [Duration]) -> Duration? {
        guard !sorted.isEmpty else { return nil }
        let position = (rank * Double(sorted.count)).rounded(.up) - 1
        return sorted[Int(min(max(position, 0), Double(sorted.count - 1)))]
    }

    /// Tokens per second after the first one; nil with fewer than two tokens.
    public var tokensPerSecond: Double? {
        let time = interTokenLatencies.reduce(Duration.zero, +) / Duration.seconds(1)
        return time > 0 ? Double(interTokenLatencies.count) / time : nil
    }
}
