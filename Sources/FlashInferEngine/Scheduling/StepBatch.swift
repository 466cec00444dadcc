/// The work of one step: some new tokens of some sequences, as one ragged batch over the paged cache.
///
/// There is no prefill or decode phase: an entry of one token and an entry of five hundred differ only in length. The
/// entries that compute a single token come first, so that a runner that treats them specially finds them in front.
///
/// Per row means per token to compute; there are ``rowCount`` rows, entry after entry.
public struct StepBatch: Sendable, Equatable {
    /// One sequence's part of a step.
    public struct Entry: Sendable, Equatable {
        /// Whose part it is.
        public let id: RequestID
        /// The number of tokens to compute, at least 1.
        public let tokenCount: Int
        /// The position of the first of them; as many tokens are in the cache already.
        public let startPosition: Int
        /// The sequence's pages from position 0, at least enough for ``endPosition`` tokens.
        public let blockTable: [Int32]
        /// Whether the logits of the last row are needed: this step ends at the newest known token.
        public let samples: Bool

        /// The number of tokens in the cache once this step has run.
        public var endPosition: Int { startPosition + tokenCount }
    }

    /// The parts, shortest kind first, in order of arrival within a kind; but those that begin with the same page together.
    public private(set) var entries: [Entry] = []
    /// The positions a page holds.
    public let pageSize: Int
    /// [rows] the token ids to compute.
    public private(set) var tokenIDs: [Int32] = []
    /// [rows] the position of each row in its sequence.
    public private(set) var positions: [Int32] = []
    /// [rows] the entry each row belongs to.
    public private(set) var entryOfRow: [Int32] = []
    /// [rows] where each row's keys and values go: `page × pageSize + offset in the page`. No two rows share a slot.
    public private(set) var slots: [Int32] = []
    /// [entries + 1] the first row of each entry, then the number of rows.
    public private(set) var queryIndptr: [Int32] = [0]
    /// [entries + 1] the first element of each entry in ``kvIndices``, then their number.
    public private(set) var kvIndptr: [Int32] = [0]
    /// [pages in use] the pages that hold each entry's keys once this step has run, unused reserve left out.
    public private(set) var kvIndices: [Int32] = []
    /// [entries] the number of positions in use in each entry's last page, 1 through ``pageSize``.
    public private(set) var kvLastPageLengths: [Int32] = []
    /// [sampled] the rows whose logits are needed, ascending.
    public private(set) var sampledRows: [Int32] = []

    /// The number of tokens to compute.
    public var rowCount: Int { tokenIDs.count }
    /// The entries that sample, in the order of ``sampledRows``.
    public var samplingEntries: [Entry] { entries.filter(\.samples) }

    init(pageSize: Int) { self.pageSize = pageSize }

    /// Adds the scheduled tokens of `sequence`.
    mutating func append(_ sequence: SequenceState) {
        let entry = Entry(
            id: sequence.request.id, tokenCount: sequence.scheduledCount, startPosition: sequence.computedCount,
            blockTable: sequence.blockTable, samples: sequence.scheduledCount == sequence.remainingCount)
        append(entry, tokens: sequence.tokens[entry.startPosition..<entry.endPosition])
    }

    /// Adds an entry, whose rows are `tokens`.
    mutating func append(_ entry: Entry, tokens: ArraySlice<Int32>) {
        for (position, token) in zip(entry.startPosition..., tokens) {
            let page = Int(entry.blockTable[position / pageSize])
            tokenIDs.append(token)
            positions.append(Int32(position))
            entryOfRow.append(Int32(entries.count))
            slots.append(Int32(page * pageSize + position % pageSize))
        }
        let pagesInUse = (entry.endPosition + pageSize - 1) / pageSize
        queryIndptr.append(Int32(tokenIDs.count))
        kvIndices.append(contentsOf: entry.blockTable[..<pagesInUse])
        kvIndptr.append(Int32(kvIndices.count))
        kvLastPageLengths.append(Int32(entry.endPosition - (pagesInUse - 1) * pageSize))
        if entry.samples { sampledRows.append(Int32(tokenIDs.count - 1)) }
        entries.append(entry)
    }
}
