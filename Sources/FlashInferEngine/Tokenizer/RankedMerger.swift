/// Byte-pair merges by rank: of all neighbouring pairs with a rule, the one with the lowest rank goes first, the
/// leftmost of equals (Sennrich et al. 2016, arXiv 1508.07909, in the order of Hugging Face `tokenizers`).
///
/// A linked list of symbols and a heap of proposals make a word of n symbols O(n log n).
///
/// A proposal is stale when the pair at its place no longer makes the token that it was for. It is the token that is
/// compared, not the pair, since that is that library's rule: vocabularies converted from rank-only formats have several
/// rules for one token, and ids would differ there otherwise.
struct RankedMerger {
    private struct Symbol {
        var id: Int32
        var previous: Int32
        var next: Int32
        /// Whether it was joined to the symbol on its left.
        var isGone = false
    }

    private var symbols: [Symbol] = []
    private var queue = MergeQueue()

    mutating func reset() {
        symbols.removeAll(keepingCapacity: true)
        queue.removeAll()
    }

    /// Adds a symbol at the end of the word.
    mutating func append(_ id: Int32) {
        let index = Int32(symbols.count)
        if index > 0 { symbols[Int(index) - 1].next = index }
        symbols.append(Symbol(id: id, previous: index - 1, next: -1))
    }

    /// Applies the rules and appends the word's ids.
    mutating func merge(_ table: MergeTable, into output: inout [Int32]) {
        if symbols.count > 1 {
            for index in 0..<symbols.count - 1 { propose(index, table) }
            while let entry = queue.pop() { apply(entry, table) }
        }
        for symbol in symbols where !symbol.isGone { output.append(symbol.id) }
    }

    @inline(__always)
    private mutating func propose(_ left: Int, _ table: MergeTable) {
        let next = symbols[left].next
        guard next >= 0 else { return }
        let rule = table.rule(symbols[left].id, symbols[Int(next)].id)
        if rule.rank >= 0 {
            queue.push(MergeQueue.Entry(priority: Float64(rule.rank), position: left, witness: Int(rule.merged)))
        }
    }

    private mutating func apply(_ entry: MergeQueue.Entry, _ table: MergeTable) {
        let left = entry.position
        guard !symbols[left].isGone, symbols[left].next >= 0 else { return }
        let right = Int(symbols[left].next)
        let rule = table.rule(symbols[left].id, symbols[right].id)
        guard rule.rank >= 0, Int(rule.merged) == entry.witness else { return }
        symbols[left].id = rule.merged
        symbols[left].next = symbols[right].next
        symbols[right].isGone = true
        if symbols[left].next >= 0 { symbols[Int(symbols[left].next)].previous = Int32(left) }
        if symbols[left].previous >= 0 { propose(Int(symbols[left].previous), table) }
        propose(left, table)
    }
}
