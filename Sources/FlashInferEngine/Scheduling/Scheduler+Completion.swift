/// What a completed step means for one sequence that sampled.
public struct SequenceUpdate: Sendable, Equatable {
    /// The sequence.
    public let id: RequestID
    /// The sampled token, now the last of the sequence.
    public let token: Int32
    /// The index of the token in the step's sampled rows.
    public let sampledIndex: Int
    /// Why the sequence ended with this token; nil if it goes on.
    public let finishReason: FinishReason?
    /// What the sequence has been through, this token included.
    public let counts: SequenceCounts
}

extension Scheduler {
    /// Takes the results of a step: advances its sequences, publishes their full pages, and ends those that stop.
    ///
    /// Sequences aborted while the step was in flight are passed over.
    ///
    /// - Parameters:
    ///   - batch: the step that ``schedule()`` returned last.
    ///   - sampled: one token for each of the batch's `sampledRows`.
    /// - Returns: the sequences that sampled, in the order of their rows.
    /// - Throws: ``SchedulingError/sampledTokenCount(expected:found:)``; the step stays in flight then.
    public mutating func complete(
        _ batch: StepBatch, sampled: [Int32]
    ) throws(SchedulingError) -> [SequenceUpdate] {
        precondition(isStepInFlight, "only the step in flight can be completed")
        guard sampled.count == batch.sampledRows.count else {
            throw .sampledTokenCount(expected: batch.sampledRows.count, found: sampled.count)
        }
        isStepInFlight = false
        var updates: [SequenceUpdate] = []
        var nextSample = 0
        for entry in batch.entries {
            if entry.samples { nextSample += 1 }
            guard let slot = slots[entry.id], sequences[slot].scheduledCount == entry.tokenCount else { continue }
            advance(slot, to: entry.endPosition)
            guard entry.samples else { continue }
            updates.append(append(sampled[nextSample - 1], to: slot, sampledIndex: nextSample - 1))
        }
        return updates
    }

    private mutating func advance(_ slot: Int, to endPosition: Int) {
        let pageSize = pool.pageSize
        sequences[slot].computedCount = endPosition
        sequences[slot].scheduledCount = 0
        guard configuration.reusesPrefixes else { return }
        sequences[slot].extendPageHashes(toTokens: endPosition, pageSize: pageSize)
        while (sequences[slot].publishedCount + 1) * pageSize <= endPosition {
            let index = sequences[slot].publishedCount
            sequences[slot].publishedLink = pool.publish(
                sequences[slot].blockTable[index],
                tokens: sequences[slot].tokens[index * pageSize..<(index + 1) * pageSize],
                hash: sequences[slot].pageHashes[index], after: sequences[slot].publishedLink)
            sequences[slot].publishedCount = index + 1
        }
    }

    private mutating func append(_ token: Int32, to slot: Int, sampledIndex: Int) -> SequenceUpdate {
        sequences[slot].tokens.append(token)
        let (id, counts) = (sequences[slot].request.id, sequences[slot].counts)
        var reason: FinishReason?
        if sequences[slot].request.stopTokens.contains(token) {
            reason = .stopToken(token)
        } else if counts.generated == sequences[slot].tokenLimit {
            reason = sequences[slot].tokenLimit < sequences[slot].request.maxTokens ? .contextFull : .maxTokens
        }
        if reason != nil { abort(id) }
        return SequenceUpdate(id: id, token: token, sampledIndex: sampledIndex, finishReason: reason, counts: counts)
    }
}
