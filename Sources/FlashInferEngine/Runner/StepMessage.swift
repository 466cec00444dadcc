internal import FlashInfer

/// What rank 0, which alone schedules and samples, tells the others before each step.
package enum StepMessage: Equatable {
    /// Compute these rows.
    case step(StepBatch)
    /// Nothing to do yet: said now and then, so that nobody takes the wait for a failure.
    case wait
    /// There are no more steps.
    case end

    private enum Kind: Int32 {
        case step = 1
        case wait, end
    }

    /// The message as 32-bit words in this machine's order: all ranks of a world run the same code.
    ///
    /// A step is its page size and its number of entries, and for each entry its start, its numbers of tokens and pages, whether it
    /// samples, its pages and its tokens.
    package var bytes: [UInt8] {
        var words: [Int32]
        switch self {
        case .wait: words = [Kind.wait.rawValue]
        case .end: words = [Kind.end.rawValue]
        case .step(let batch):
            words = [Kind.step.rawValue, Int32(batch.pageSize), Int32(batch.entries.count)]
            words.reserveCapacity(3 + 4 * batch.entries.count + batch.kvIndices.count + batch.rowCount)
            for (index, entry) in batch.entries.enumerated() {
                let rows = Int(batch.queryIndptr[index])..<Int(batch.queryIndptr[index + 1])
                let pages = Int(batch.kvIndptr[index])..<Int(batch.kvIndptr[index + 1])
                words += [Int32(entry.startPosition), Int32(rows.count), Int32(pages.count), entry.samples ? 1 : 0]
                words += batch.kvIndices[pages]
                words += batch.tokenIDs[rows]
            }
        }
        return words.withUnsafeBytes { Array($0) }
    }

    /// Reads a message; `nil` for what is none.
    package init?(_ bytes: [UInt8]) {
        guard bytes.count % 4 == 0, !bytes.isEmpty else { return nil }
        var words = bytes.withUnsafeBytes { bytes in
            (0..<bytes.count / 4).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Int32.self) }
        }[...]
        func take(_ count: Int32) -> ArraySlice<Int32>? {
            guard count >= 0, count <= words.count else { return nil }
            defer { words = words.dropFirst(Int(count)) }
            return words.prefix(Int(count))
        }
        switch take(1)?.first.flatMap(Kind.init) {
        case nil: return nil
        case .wait: self = .wait
        case .end: self = .end
        case .step:
            guard let head = take(2).map(Array.init), head[0] >= 1 else { return nil }
            var batch = StepBatch(pageSize: Int(head[0]))
            for index in 0..<UInt64(max(head[1], 0)) {
                guard let numbers = take(4).map(Array.init), numbers[0] >= 0, let pages = take(numbers[2]),
                    let tokens = take(numbers[1]),
                    (Int(numbers[0]) + tokens.count + batch.pageSize - 1) / batch.pageSize == pages.count
                else { return nil }
                let entry = StepBatch.Entry(
                    id: RequestID(index), tokenCount: tokens.count, startPosition: Int(numbers[0]),
                    blockTable: Array(pages), samples: numbers[3] != 0)
                batch.append(entry, tokens: tokens)
            }
            self = .step(batch)
        }
        guard words.isEmpty else { return nil }
    }
}
