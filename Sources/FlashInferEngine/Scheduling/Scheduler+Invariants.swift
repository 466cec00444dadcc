internal import DequeModule

extension Scheduler {
    /// Checks that the queues, the sequences and the pool agree with each other.
    ///
    /// - Throws: the first violation found.
    /// - Complexity: O(sequences + pages).
    public func checkInvariants() throws(InvariantViolation) {
        try pool.checkInvariants(heldBy: sequences.map(\.blockTable))
        let queued = running + waiting
        guard Set(queued) == Set(slots.values), queued.count == slots.count else {
            throw .init("the queues do not hold each unfinished sequence once")
        }
        for (id, slot) in slots where sequences[slot].request.id != id {
            throw .init("the slot of sequence \(id) holds another one")
        }
        guard running.count <= configuration.maxSequences else {
            throw .init("\(running.count) sequences run, the limit is \(configuration.maxSequences)")
        }
        var last: UInt64?
        for slot in queued {
            let arrival = sequences[slot].arrival
            if let last, arrival <= last {
                throw .init("sequence \(sequences[slot].request.id) is out of the order of arrival")
            }
            last = arrival
        }
        for slot in running { try checkRunning(sequences[slot]) }
        for slot in waiting {
            let sequence = sequences[slot]
            guard sequence.status == .waiting || sequence.status == .preempted, sequence.blockTable.isEmpty,
                sequence.computedCount == 0, sequence.scheduledCount == 0
            else { throw .init("waiting sequence \(sequence.request.id) is \(sequence.status) or holds pages") }
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
