internal import DequeModule

/// Decides, step by step, which tokens of which requests are computed next: continuous batching over one page pool.
///
/// Pure and synchronous: no clock, no threads, no device. The life of a request:
///
/// 1. ``submit(_:)`` checks that it can fit alone, lowers its token limit to what fits, and queues it.
/// 2. ``schedule()`` admits it when its turn comes: pages that already hold the start of its tokens are taken from the
///    prefix cache, and pages for all other known tokens are allocated at once.
/// 3. Each ``schedule()`` gives every running sequence that is up to date its one token, then spends what is left of
///    the step's token budget on prompts, oldest first.
/// 4. The runner computes the ``StepBatch``; ``complete(_:sampled:)`` takes the sampled tokens, enters full pages into
///    the prefix cache, and ends sequences at a stop token or a limit.
/// 5. When a sequence needs a page and none is free, the youngest running sequence is pushed out: its pages are
///    released (full ones stay cached) and it goes to the front of the queue with all its tokens, to be computed
///    again.
///
/// The order of arrival is never broken: everything running arrived before everything waiting. So the oldest request
/// cannot be pushed out by another one and moves forward in every step, and every request ends.
public struct Scheduler: Sendable {
    /// The limits.
    public let configuration: SchedulerConfiguration
    /// The pages.
    public internal(set) var pool: BlockPool

    /// Every unfinished sequence, in the slot it got at submission; the other slots are vacant. The queues hold slots and
    /// not ids, because a step looks at every running sequence several times.
    var sequences: [SequenceState] = []
    /// The slot of every unfinished request.
    var slots: [RequestID: Int] = [:]
    /// The sequences that hold pages, by arrival.
    var running: [Int] = []
    /// The sequences that hold none, by arrival.
    var waiting: Deque<Int> = []
    /// Whether a step was handed out and has been neither completed nor abandoned.
    public internal(set) var isStepInFlight = false
    private var vacantSlots: [Int] = []
    private var arrivals: UInt64 = 0

    /// Makes a scheduler with nothing to do.
    ///
    /// - Throws: ``SchedulingError/invalidConfiguration(name:value:requirement:)``.
    public init(configuration: SchedulerConfiguration, pool: BlockPool) throws(SchedulingError) {
        try configuration.validate()
        self.configuration = configuration
        self.pool = pool
    }

    /// The number of sequences that take part in steps.
    public var runningCount: Int { running.count }
    /// The number of sequences waiting for their turn.
    public var waitingCount: Int { waiting.count }
    /// Whether no request is unfinished.
    public var isIdle: Bool { slots.isEmpty }
    /// The unfinished requests, by arrival.
    public var unfinished: [RequestID] { (running + waiting).map { sequences[$0].request.id } }
    /// The longest prompt that fits: one position is left for a generated token, unless the pool is the limit, since
    /// the last token's keys and values are never stored.
    public var promptLimit: Int { min(configuration.contextLength - 1, pool.pageCount * pool.pageSize) }

    /// The state of an unfinished request, or nil.
    public func sequence(_ id: RequestID) -> SequenceState? { slots[id].map { sequences[$0] } }

    /// Queues a request.
    ///
    /// - Returns: the most tokens it will generate: its own limit, or what the context length and the whole page pool
    ///   leave behind its prompt.
    /// - Throws: ``SchedulingError`` when it can never be served; nothing is queued then.
    @discardableResult
    public mutating func submit(_ request: Request) throws(SchedulingError) -> Int {
        guard slots[request.id] == nil else { throw .duplicateRequest(request.id) }
        guard request.maxTokens >= 1 else { throw .invalidMaxTokens(request.maxTokens) }
        guard !request.promptTokens.isEmpty else { throw .emptyPrompt }
        guard request.promptTokens.count <= promptLimit else {
            throw .promptTooLong(tokens: request.promptTokens.count, limit: promptLimit)
        }
        let longest = min(configuration.contextLength, pool.pageCount * pool.pageSize + 1)
        let tokenLimit = min(request.maxTokens, longest - request.promptTokens.count)
        let sequence = SequenceState(request: request, arrival: arrivals, tokenLimit: tokenLimit)
        let slot = vacantSlots.popLast() ?? sequences.endIndex
        if slot == sequences.endIndex { sequences.append(sequence) } else { sequences[slot] = sequence }
        slots[request.id] = slot
        arrivals += 1
        waiting.append(slot)
        return tokenLimit
    }

    /// Plans the next step and marks it as in flight.
    ///
    /// The previous step must have been completed or abandoned: pages freed since then may be written by this one.
    ///
    /// - Returns: the step, or nil when no request is unfinished.
    /// - Complexity: O(sequences + tokens of the step + pages in their tables).
    public mutating func schedule() -> StepBatch? {
        precondition(!isStepInFlight, "complete or abandon the step in flight before scheduling the next")
        var budget = configuration.maxBatchTokens
        let preempted = scheduleSingleTokens(&budget)
        scheduleChunks(&budget)
        // Whoever was just pushed out is first in line; let the rest of this step use the room instead.
        if !preempted { admit(&budget) }
        guard !running.isEmpty else { return nil }
        isStepInFlight = true
        return assemble()
    }

    /// Ends a request early and frees its pages, at any moment, also while a step with it is in flight.
    ///
    /// Pages freed during a step are not handed out before the next ``schedule()``.
    ///
    /// - Returns: what it went through, or nil when there is no such unfinished request.
    @discardableResult
    public mutating func abort(_ id: RequestID) -> SequenceCounts? {
        guard let slot = slots.removeValue(forKey: id) else { return nil }
        let counts = sequences[slot].counts
        if sequences[slot].status == .running {
            pool.release(sequences[slot].blockTable)
            running.removeAll { $0 == slot }
        } else {
            waiting.removeAll { $0 == slot }
        }
        sequences[slot] = .vacant
        vacantSlots.append(slot)
        return counts
    }

    /// Gives up the step in flight: nothing it computed counts, and its sequences will be scheduled again.
    public mutating func abandonStep() {
        for slot in running { sequences[slot].scheduledCount = 0 }
        isStepInFlight = false
    }

    /// Empties the prefix cache, for when what the pages hold can no longer be trusted.
    public mutating func forgetAllPrefixes() { pool.forgetAllPrefixes() }
}
