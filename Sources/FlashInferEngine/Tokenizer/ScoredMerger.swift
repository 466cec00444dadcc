/// SentencePiece's byte-pair merges: of all neighbouring pairs whose text together is a token, the one with the best
/// score goes first, the leftmost of equals (Kudo and Richardson 2018, arXiv 1808.06226).
struct ScoredMerger {
    private struct Symbol {
        var start: Int
        /// Zero when the symbol was joined to the one on its left.
        var length: Int
        var previous: Int32
        var next: Int32
    }

    private var symbols: [Symbol] = []
    private var queue = MergeQueue()

    /// Calls `body` with the pieces of `text`, each a token or a single scalar that no token holds.
    mutating func pieces(
        of text: UnsafeBufferPointer<UInt8>, _ table: ByteStringTable, scores: [Float],
        _ body: (UnsafeBufferPointer<UInt8>) -> Void
    ) {
        symbols.removeAll(keepingCapacity: true)
        queue.removeAll()
        var start = 0
        while start < text.count {
            let width = UTF8Decoding.scalar(in: text, at: start).width
            let index = Int32(symbols.count)
            let end = start + width
            symbols.append(
                Symbol(start: start, length: width, previous: index - 1, next: end < text.count ? index + 1 : -1))
            start = end
        }
        for index in 0..<max(symbols.count - 1, 0) { propose(index, text, table, scores) }
        while let entry = queue.pop() { apply(entry, text, table, scores) }
        for symbol in symbols where symbol.length > 0 {
            body(UnsafeBufferPointer(rebasing: text[symbol.start..<symbol.start + symbol.length]))
        }
    }

    @inline(__always)
    private mutating func propose(
        _ left: Int, _ text: UnsafeBufferPointer<UInt8>, _ table: ByteStringTable, _ scores: [Float]
    ) {
        let next = symbols[left].next
        guard next >= 0 else { return }
        let start = symbols[left].start
        let length = symbols[left].length + symbols[Int(next)].length
        let id = table.id(of: UnsafeBufferPointer(rebasing: text[start..<start + length]))
        guard id >= 0 else { return }
        queue.push(MergeQueue.Entry(priority: -Float64(scores[Int(id)]), position: left, witness: length))
    }

    private mutating func apply(
        _ entry: MergeQueue.Entry, _ text: UnsafeBufferPointer<UInt8>, _ table: ByteStringTable, _ scores: [Float]
    ) {
        let left = entry.position
        guard symbols[left].length > 0, symbols[left].next >= 0 else { return }
        let right = Int(symbols[left].next)
        guard symbols[left].length + symbols[right].length == entry.witness else { return }
        symbols[left].length = entry.witness
        symbols[left].next = symbols[right].next
        symbols[right].length = 0
        if symbols[left].next >= 0 { symbols[Int(symbols[left].next)].previous = Int32(left) }
        if symbols[left].previous >= 0 { propose(Int(symbols[left].previous), text, table, scores) }
        propose(left, text, table, scores)
    }
}
