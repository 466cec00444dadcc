internal import DequeModule

extension Scheduler {
    /// Checks that the queues, the sequences and the pool agree with each other.
    ///
    /// - Throws: the first violation found.
    /// - Complexity: O(sequences + pages).
    public func checkInvariants() throws(InvariantViolation) {
        try pool.checkInvariants(heldBy: sequences.values.map(\.blockTable))
        guard Set(running).union(waiting) == Set(sequences.keys), running.count + waiting.count == sequences.count
        else {
            throw .init("the queues do not hold each unfinished sequence once")
        }
        guard running.count <= configuration.maxSequences else {
            throw .init("\(running.count) sequences run, the limit is \(configuration.maxSequences)")
        }
        var last: UInt64?
        for id in unfinished {
            let arrival = sequences[id]!.arrival
            if let last, arrival <= last { throw .init("sequence \(id) is out of the order of arrival") }
            last = arrival
        }
        for id in running { try checkRunning(sequences[id]!) }
        for id in waiting {
            let sequence = sequences[id]!
            guard sequence.status == .waiting || sequence.status == .preempted, sequence.blockTable.isEmpty,
                sequence.computedCount == 0, sequence.scheduledCount == 0
            else { throw .init("waiting sequence \(id) is \(sequence.status) or holds pages") }
        }
    }

    private func checkRunning(_ sequence: SequenceState) throws(InvariantViolation) {
        let id = sequence.request.id
        guard sequence.status == .running else { throw .init("sequence \(id) in a step is \(sequence.status)") }
        guard sequence.computedCount < sequence.tokens.count, sequence.generatedCount < sequence.tokenLimit else {
            throw .init("sequence \(id) has nothing left to compute")
        }
        guard sequence.scheduledCount == 0 || isStepInFlight else {
            throw .init("sequence \(id) is scheduled though no step is in flight")
        }
        // A token sampled last step gets its page when it is scheduled.
        let room = sequence.blockTable.count * pool.pageSize
        guard sequence.tokens.count - 1 <= room, sequence.computedCount + sequence.scheduledCount <= room else {
            throw .init("sequence \(id) has \(sequence.tokens.count) tokens and pages for \(room)")
        }
        guard sequence.publishedCount * pool.pageSize <= sequence.computedCount else {
            throw .init("sequence \(id) published a page that is not full")
        }
        for page in sequence.blockTable[sequence.publishedCount...] {
            guard pool.references(to: page) == 1, !pool.isCached(page) else {
                throw .init("sequence \(id) would write to page \(page), which others can see")
            }
        }
    }
}
