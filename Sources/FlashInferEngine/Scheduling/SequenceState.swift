/// A request on its way: its tokens so far, how many of them are in the cache, and the pages that hold them.
///
/// Invariant: `0 ≤ computedCount < tokens.count` while unfinished, since the newest token's keys and values are
/// written by the step that predicts the one after it.
public struct SequenceState: Sendable {
    /// Where a sequence stands.
    public enum Status: Hashable, Sendable {
        /// Submitted, holding no pages.
        case waiting
        /// Taking part in steps.
        case running
        /// Pushed out to make room; waiting, holding no pages, first in line.
        case preempted
    }

    /// What was asked for.
    public let request: Request
    /// The place in the order of submission.
    public let arrival: UInt64
    /// The most tokens that will be generated: the request's limit, or less if the context or the pool is smaller.
    public let tokenLimit: Int
    /// Where the sequence stands.
    public internal(set) var status = Status.waiting
    /// The prompt, then the generated tokens.
    public internal(set) var tokens: [Int32]
    /// The number of leading tokens whose keys and values are in the cache.
    public internal(set) var computedCount = 0
    /// The pages of the sequence, in order; enough for every token while running, none otherwise.
    public internal(set) var blockTable: [Int32] = []
    /// The number of prompt tokens that the first admission found in the prefix cache.
    public internal(set) var cachedPromptCount = 0
    /// How often the sequence was pushed out.
    public internal(set) var preemptionCount = 0

    /// The tokens that the step being planned or run computes.
    var scheduledCount = 0
    /// The number of leading pages already entered into the prefix cache, or found there.
    var publishedCount = 0
    /// Where the published part ends.
    var publishedLink = PrefixLink.root
    /// The chained hashes of the full pages of `tokens`, as far as they have been worked out.
    var pageHashes: [UInt64] = []

    init(request: Request, arrival: UInt64, tokenLimit: Int) {
        self.request = request
        self.arrival = arrival
        self.tokenLimit = tokenLimit
        tokens = request.promptTokens
    }

    /// The number of tokens sampled so far.
    public var generatedCount: Int { tokens.count - request.promptTokens.count }
    /// The number of known tokens that still have to be computed.
    var remainingCount: Int { tokens.count - computedCount }
    /// The counts that outlive the sequence.
    var counts: SequenceCounts {
        SequenceCounts(
            prompt: request.promptTokens.count, cachedPrompt: cachedPromptCount, generated: generatedCount,
            preemptions: preemptionCount)
    }

    /// Works out the chained hashes of the full pages among the first `tokenCount` tokens.
    mutating func extendPageHashes(toTokens tokenCount: Int, pageSize: Int) {
        while (pageHashes.count + 1) * pageSize <= tokenCount {
            let start = pageHashes.count * pageSize
            let parent = pageHashes.last ?? PrefixLink.root.hash
            pageHashes.append(BlockPool.hash(tokens[start..<start + pageSize], after: parent))
        }
    }

    /// Begins or resumes with the pages of `table`, of which the first are those of `prefix`.
    mutating func start(_ table: [Int32], cached prefix: CachedPrefix, pageSize: Int) {
        blockTable = table
        computedCount = prefix.pages.count * pageSize
        publishedCount = prefix.pages.count
        publishedLink = prefix.link
        if status == .waiting { cachedPromptCount = computedCount }
        status = .running
    }

    /// Forgets everything that lives in pages; the tokens stay.
    mutating func preempt() {
        blockTable = []
        computedCount = 0
        scheduledCount = 0
        publishedCount = 0
        publishedLink = .root
        status = .preempted
        preemptionCount += 1
    }

    /// What stands in a slot of the scheduler that holds no sequence.
    static let vacant = SequenceState(
        request: Request(id: RequestID(.max), promptTokens: [], maxTokens: 0), arrival: .max, tokenLimit: 0)
}

/// What a sequence went through, in numbers.
public struct SequenceCounts: Hashable, Sendable {
    /// Prompt tokens.
    public var prompt: Int
    /// Prompt tokens found in the prefix cache, so not computed.
    public var cachedPrompt: Int
    /// Sampled tokens, the stop token included.
    public var generated: Int
    /// How often the sequence was pushed out and computed again.
    public var preemptions: Int
}
