/// A broken invariant of the scheduler or its pool: a defect of this package, not of the input.
public struct InvariantViolation: Error, Hashable, CustomStringConvertible {
    /// What does not hold.
    public let description: String

    init(_ description: String) { self.description = description }
}

extension BlockPool {
    /// Checks that the free list, the prefix cache and the counts agree with each other and with `tables`.
    ///
    /// - Parameter tables: the block tables of every sequence that holds pages.
    /// - Throws: the first violation found.
    /// - Complexity: O(pageCount + pages in the tables).
    public func checkInvariants(heldBy tables: some Sequence<[Int32]>) throws(InvariantViolation) {
        var holders = [Int32](repeating: 0, count: pageCount)
        for table in tables {
            for page in table {
                guard page >= 0, page < pageCount else { throw .init("page \(page) in a table is not in the pool") }
                holders[Int(page)] += 1
            }
        }
        for page in 0..<pageCount where holders[page] != pages[page].references {
            throw .init("page \(page) counts \(pages[page].references) holders, the tables have \(holders[page])")
        }
        try checkFreeList()
        try checkPrefixCache()
        guard heldCount <= peakHeldCount else {
            throw .init("the peak of \(peakHeldCount) held pages is below the present \(heldCount)")
        }
    }

    private func checkFreeList() throws(InvariantViolation) {
        var seen = 0
        var sawCached = false
        var page = pages[pageCount].next
        var previous = Int32(pageCount)
        while page != pageCount {
            guard seen < pageCount else { throw .init("the free list is a cycle that misses its sentinel") }
            guard references(to: page) == 0 else { throw .init("held page \(page) is in the free list") }
            guard pages[Int(page)].previous == previous else { throw .init("page \(page) has a broken back link") }
            guard isCached(page) || !sawCached else { throw .init("empty page \(page) stands behind a cached one") }
            sawCached = isCached(page)
            seen += 1
            previous = page
            page = pages[Int(page)].next
        }
        let unheld = pages.dropLast().count { $0.references == 0 }
        guard seen == freeCount, seen == unheld, pages[pageCount].previous == previous else {
            throw .init("the free list has \(seen) pages, the count says \(freeCount), \(unheld) have no holder")
        }
    }

    private func checkPrefixCache() throws(InvariantViolation) {
        for (hash, page) in pageByHash where pages[Int(page)].hash != hash || !isCached(page) {
            throw .init("the prefix cache finds page \(page) by a hash that is not its own")
        }
        let published = pages.dropLast().count { $0.serial != 0 }
        guard published == pageByHash.count else {
            throw .init("\(published) pages are published but \(pageByHash.count) can be found")
        }
        for page in pages where page.serial >= nextSerial {
            throw .init("serial \(page.serial) was never given out")
        }
    }
}
