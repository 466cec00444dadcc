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
            let slot = running[index]
            guard sequences[slot].remainingCount == 1 else {
                index += 1
                continue
            }
            if sequences[slot].tokens.count > sequences[slot].blockTable.count * pool.pageSize {
                while pool.freeCount == 0 {
                    preemptYoungest()
                    preempted = true
                }
                // The youngest may have been this very sequence.
                guard index < running.count else { break }
                sequences[slot].blockTable.append(pool.allocate()!)
            }
            sequences[slot].scheduledCount = 1
            budget -= 1
            index += 1
        }
        return preempted
    }

    /// Spends the budget on the running sequences with more than one token to compute, oldest first.
    mutating func scheduleChunks(_ budget: inout Int) {
        for slot in running where budget > 0 && sequences[slot].remainingCount > 1 {
            scheduleChunk(of: slot, &budget)
        }
    }

    /// Admits waiting sequences in their order until the budget, the places or the pages run out.
    mutating func admit(_ budget: inout Int) {
        while budget > 0, running.count < configuration.maxSequences, let slot = waiting.first {
            guard take(slot) else { return }
            waiting.removeFirst()
            running.append(slot)
            scheduleChunk(of: slot, &budget)
        }
    }

    /// Puts the scheduled tokens of the running sequences into one batch.
    func assemble() -> StepBatch {
        var batch = StepBatch(pageSize: pool.pageSize)
        for slot in besideSharers(running.filter { sequences[$0].scheduledCount == 1 }) {
            batch.append(sequences[slot])
        }
        for slot in besideSharers(running.filter { sequences[$0].scheduledCount > 1 }) { batch.append(sequences[slot]) }
        return batch
    }

    /// Sequences in their order, but those that begin with the same page together, where the first of them is: what neighbours share
    /// can be read once.
    private func besideSharers(_ slots: [Int]) -> [Int] {
        func firstPage(_ slot: Int) -> Int32? {
            guard let page = sequences[slot].blockTable.first, pool.references(to: page) > 1 else { return nil }
            return page
        }
        guard slots.contains(where: { firstPage($0) != nil }) else { return slots }
        var groups: [[Int]] = []
        var places: [Int32: Int] = [:]
        for slot in slots {
            let page = firstPage(slot)
            if let place = page.flatMap({ places[$0] }) {
                groups[place].append(slot)
            } else {
                if let page { places[page] = groups.count }
                groups.append([slot])
            }
        }
        return groups.flatMap { $0 }
    }

    private mutating func scheduleChunk(of slot: Int, _ budget: inout Int) {
        let count = min(sequences[slot].remainingCount, configuration.prefillChunk, budget)
        sequences[slot].scheduledCount = count
        budget -= count
    }

    /// Gives a waiting sequence the pages it needs for every known token, if that leaves room for the others to grow.
    ///
    /// - Returns: whether it got them.
    private mutating func take(_ slot: Int) -> Bool {
        var prefix = CachedPrefix(pages: [], link: .root)
        if configuration.reusesPrefixes {
            // The last known token is always computed, so that there are logits to sample from.
            let longest = sequences[slot].tokens.count - 1
            sequences[slot].extendPageHashes(toTokens: longest, pageSize: pool.pageSize)
            let usable = sequences[slot].pageHashes.prefix(longest / pool.pageSize)
            prefix = pool.longestCachedPrefix(hashes: usable, tokens: sequences[slot].tokens)
            if prefix.pages.count < usable.count, isBeingComputed(usable, from: prefix.pages.count) { return false }
        }
        // A running sequence that can still grow may want a page soon; to admit another one and push it out at once
        // would be a waste.
        let growing = running.count { canGrow(sequences[$0]) }
        let taken = prefix.pages.count { pool.references(to: $0) == 0 }
        let fresh = pool.pagesNeeded(forTokens: sequences[slot].tokens.count) - prefix.pages.count
        guard pool.freeCount >= taken + fresh + growing else { return false }
        pool.retain(prefix.pages)
        let table = prefix.pages + (0..<fresh).map { _ in pool.allocate()! }
        sequences[slot].start(table, cached: prefix, pageSize: pool.pageSize)
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
        running.contains { other in
            sequences[other].publishedCount <= index && sequences[other].pageHashes.count > index
                && sequences[other].pageHashes[index] == hashes[index]
        }
    }

    private mutating func preemptYoungest() {
        let slot = running.removeLast()
        pool.release(sequences[slot].blockTable)
        sequences[slot].preempt()
        waiting.prepend(slot)
    }
}
