import FlashInferEngine

/// A small seeded generator (SplitMix64), so that every run of a property test sees the same cases.
struct SchedulingRandom: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}

/// A language whose next token depends on every token before it, in order: one wrong, missing or misplaced token
/// anywhere changes everything after it.
enum FakeLanguage {
    static let vocabularySize = 7
    static let stopToken: Int32 = 0

    static func next(after tokens: [Int32]) -> Int32 {
        var state: UInt64 = 1
        for token in tokens { state = (state &* 31 &+ UInt64(token) &+ 1) &* 0x9e37_79b9_7f4a_7c15 }
        return Int32((state >> 33) % UInt64(vocabularySize))
    }

    /// The tokens that a request must get when it is alone in the world, and why it ends.
    static func completion(of prompt: [Int32], limit: Int, cutBy full: Bool) -> ([Int32], FinishReason) {
        var tokens = prompt
        while tokens.count - prompt.count < limit {
            tokens.append(next(after: tokens))
            if tokens.last == stopToken { return (Array(tokens[prompt.count...]), .stopToken(stopToken)) }
        }
        return (Array(tokens[prompt.count...]), full ? .contextFull : .maxTokens)
    }
}

/// A model whose keys and values are the token ids and positions themselves, in pages, poisoned before use.
///
/// It predicts from what it reads back through the block tables, never from the batch's own tokens, so a page that
/// two sequences write, or that is read after its contents changed, shows in the text.
struct FakePagedModel {
    private var cache: [(token: Int32, position: Int32)]
    private(set) var computedTokens = 0

    init(pool: BlockPool) {
        cache = Array(repeating: (token: -999, position: -999), count: pool.pageCount * pool.pageSize)
    }

    /// Runs `batch`, reporting everything that is wrong with it.
    mutating func run(_ batch: StepBatch, pool: BlockPool, report: (String) -> Void) -> [Int32] {
        checkShape(of: batch, pool: pool, report: report)
        computedTokens += batch.rowCount
        for row in 0..<batch.rowCount {
            let slot = Int(batch.slots[row])
            let page = batch.slots[row] / Int32(batch.pageSize)
            if pool.references(to: page) != 1 || pool.isCached(page) { report("row \(row) writes to a shared page") }
            cache[slot] = (batch.tokenIDs[row], batch.positions[row])
        }
        var sampled: [Int32] = []
        for (index, entry) in batch.entries.enumerated() {
            let history = read(index, of: batch, report: report)
            if history.count != entry.endPosition { report("entry \(index) sees \(history.count) keys") }
            if entry.samples { sampled.append(FakeLanguage.next(after: history)) }
        }
        return sampled
    }

    /// What attention would see for entry `index`.
    private func read(_ index: Int, of batch: StepBatch, report: (String) -> Void) -> [Int32] {
        let pages = batch.kvIndices[Int(batch.kvIndptr[index])..<Int(batch.kvIndptr[index + 1])]
        let length = (pages.count - 1) * batch.pageSize + Int(batch.kvLastPageLengths[index])
        return (0..<length).map { position in
            let page = Int(pages[pages.startIndex + position / batch.pageSize])
            let slot = cache[page * batch.pageSize + position % batch.pageSize]
            if slot.position != position { report("position \(position) of entry \(index) holds \(slot.position)") }
            return slot.token
        }
    }

    private func checkShape(of batch: StepBatch, pool: BlockPool, report: (String) -> Void) {
        let entries = batch.entries.count
        if entries == 0 || batch.rowCount == 0 { report("an empty step") }
        if batch.queryIndptr.count != entries + 1 || batch.kvIndptr.count != entries + 1 { report("indptr length") }
        if Set(batch.slots).count != batch.rowCount { report("two rows share a slot") }
        if batch.entries.contains(where: { $0.tokenCount < 1 }) { report("an entry without tokens") }
        let lengths = zip(batch.queryIndptr, batch.queryIndptr.dropFirst()).map { Int($1 - $0) }
        if lengths != batch.entries.map(\.tokenCount) { report("query indptr") }
        if batch.kvLastPageLengths.contains(where: { $0 < 1 || $0 > batch.pageSize }) { report("last page length") }
        for (index, entry) in batch.entries.enumerated() {
            let first = Int(batch.queryIndptr[index])
            for row in 0..<entry.tokenCount {
                let position = entry.startPosition + row
                let page = entry.blockTable[position / batch.pageSize]
                if Int(batch.positions[first + row]) != position { report("positions of entry \(index)") }
                if Int(batch.entryOfRow[first + row]) != index { report("entryOfRow of entry \(index)") }
                if Int(batch.slots[first + row]) != Int(page) * batch.pageSize + position % batch.pageSize {
                    report("slots of entry \(index)")
                }
            }
        }
        let samples = batch.samplingEntries.count
        if batch.sampledRows.count != samples { report("sampled rows") }
    }
}
