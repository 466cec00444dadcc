internal import DequeModule

extension Scheduler {
    /// Gives one token to each running sequence that is one token behind, oldest first.
    ///
    /// Only these can need a page: a sequence with more to compute got its pages when it was admitted.
    ///
    /// - Returns: whether a sequence had to be pushed out.
    mutating func scheduleSingleTokens(_ budget: inout Int) -> Bool {
        var preempted = false
        var index = 0
        while index < running.count {
            let id = running[index]
            guard sequences[id]!.remainingCount == 1 else {
                index += 1
                continue
            }
            if sequences[id]!.tokens.count > sequences[id]!.blockTable.count * pool.pageSize {
                while pool.freeCount == 0 {
                    preemptYoungest()
                    preempted = true
                }
                // The youngest may have been this very sequence.
                guard index < running.count else { break }
                sequences[id]!.blockTable.append(pool.allocate()!)
            }
            sequences[id]!.scheduledCount = 1
            budget -= 1
            index += 1
        }
        return preempted
    }

    /// Spends the budget on the running sequences with more than one token to compute, oldest first.
    mutating func scheduleChunks(_ budget: inout Int) {
        for id in running where budget > 0 && sequences[id]!.remainingCount > 1 {
            scheduleChunk(of: id, &budget)
        }
    }

    /// Admits waiting sequences in their order until the budget, the places or the pages run out.
    mutating func admit(_ budget: inout Int) {
        while budget > 0, running.count < configuration.maxSequences, let id = waiting.first {
            guard take(id) else { return }
            waiting.removeFirst()
            running.append(id)
            scheduleChunk(of: id, &budget)
        }
    }

    /// Puts the scheduled tokens of the running sequences into one batch.
    func assemble() -> StepBatch {
        var batch = StepBatch(pageSize: pool.pageSize)
        for id in running where sequences[id]!.scheduledCount == 1 { batch.append(sequences[id]!) }
        for id in running where sequences[id]!.scheduledCount > 1 { batch.append(sequences[id]!) }
        return batch
    }

    private mutating func scheduleChunk(of id: RequestID, _ budget: inout Int) {
        let count = min(sequences[id]!.remainingCount, configuration.prefillChunk, budget)
        sequences[id]!.scheduledCount = count
        budget -= count
    }

    /// Gives a waiting sequence the pages it needs for every known token, if that leaves room for the others to grow.
    ///
    /// - Returns: whether it got them.
    private mutating func take(_ id: RequestID) -> Bool {
        var sequence = sequences[id]!
        var prefix = CachedPrefix(pages: [], link: .root)
        if configuration.reusesPrefixes {
            // The last known token is always computed, so that there are logits to sample from.
            sequence.extendPageHashes(toTokens: sequence.tokens.count - 1, pageSize: pool.pageSize)
            let usable = sequence.pageHashes.prefix((sequence.tokens.count - 1) / pool.pageSize)
            prefix = pool.longestCachedPrefix(hashes: usable, tokens: sequence.tokens)
            sequences[id]!.pageHashes = sequence.pageHashes
            if prefix.pages.count < usable.count, isBeingComputed(usable, from: prefix.pages.count) { return false }
        }
        // A running sequence that can still grow may want a page soon; to admit another one and push it out at once
        // would be a waste.
        let growing = running.count { canGrow(sequences[$0]!) }
        let taken = prefix.pages.count { pool.references(to: $0) == 0 }
        let fresh = pool.pagesNeeded(forTokens: sequence.tokens.count) - prefix.pages.count
        guard pool.freeCount >= taken + fresh + growing else { return false }
        pool.retain(prefix.pages)
        sequence.blockTable = prefix.pages + (0..<fresh).map { _ in pool.allocate()! }
        sequence.computedCount = prefix.pages.count * pool.pageSize
        sequence.publishedCount = prefix.pages.count
        sequence.publishedLink = prefix.link
        if sequence.status == .waiting {
            sequence.cachedPromptCount = sequence.computedCount
        }
        sequence.status = .running
        sequences[id] = sequence
        return true
    }

    /// Whether `sequence` may come to need more pages than it has. Its last token's keys are never stored.
    private func canGrow(_ sequence: SequenceState) -> Bool {
        let longest = sequence.request.promptTokens.count + sequence.tokenLimit - 1
        return pool.pagesNeeded(forTokens: longest) > sequence.blockTable.count
    }

    /// Whether a running sequence is on its way to publish page `index` of the prefix `hashes`.
    ///
    /// Requests with a common start often come together. The later ones wait for the first to compute it, which it
    /// does in every step, instead of computing the same pages side by side. Equal hashes need not mean equal tokens
    /// here: waiting in vain does no harm.
    private func isBeingComputed(_ hashes: ArraySlice<UInt64>, from index: Int) -> Bool {
        running.contains { id in
            let other = sequences[id]!
            return other.publishedCount <= index && other.pageHashes.count > index
                && other.pageHashes[index] == hashes[index]
        }
    }

    private mutating func preemptYoungest() {
        let id = running.removeLast()
        pool.release(sequences[id]!.blockTable)
        sequences[id]!.losePages()
        sequences[id]!.status = .preempted
        sequences[id]!.preemptionCount += 1
        waiting.prepend(id)
    }
}
