import FlashInferEngine
import Testing

@Suite struct BlockPoolTests {
    /// Takes a page and publishes `tokens` in it.
    static func publish(
        _ tokens: [Int32], after parent: PrefixLink = .root, hash: UInt64? = nil, in pool: inout BlockPool
    ) -> (page: Int32, link: PrefixLink) {
        let page = pool.allocate()!
        let link = pool.publish(
            page, tokens: tokens[...], hash: hash ?? BlockPool.hash(tokens[...], after: parent.hash), after: parent)
        return (page, link)
    }

    static func hashes(of tokens: [Int32], pageSize: Int) -> [UInt64] {
        var parent = PrefixLink.root.hash
        return stride(from: 0, to: tokens.count / pageSize * pageSize, by: pageSize).map { start in
            parent = BlockPool.hash(tokens[start..<start + pageSize], after: parent)
            return parent
        }
    }

    @Test func sizesOutOfRangeNameTheLimit() {
        #expect(throws: SchedulingError.self) { try BlockPool(pageCount: 0, pageSize: 4) }
        #expect(throws: SchedulingError.self) { try BlockPool(pageCount: 4, pageSize: 0) }
        #expect(throws: SchedulingError.self) { try BlockPool(pageCount: .max, pageSize: 2) }
        #expect(throws: SchedulingError.self) { try BlockPool(pageCount: 1 << 28, pageSize: 16) }
    }

    @Test func everyPageIsHandedOutOnce() throws {
        var pool = try BlockPool(pageCount: 9, pageSize: 2)
        let pages = (0..<9).compactMap { _ in pool.allocate() }
        #expect(Set(pages) == Set(0..<9))
        #expect(pool.allocate() == nil)
        try pool.checkInvariants(heldBy: [pages])
        pool.release(pages)
        #expect(pool.freeCount == 9)
        #expect(pool.peakHeldCount == 9)
        try pool.checkInvariants(heldBy: [])
    }

    @Test func evictionTakesEmptyPagesFirstThenTheLeastRecentlyReleased() throws {
        var pool = try BlockPool(pageCount: 4, pageSize: 1)
        let first = Self.publish([1], in: &pool)
        let second = Self.publish([2], in: &pool)
        let third = Self.publish([3], in: &pool)
        let empty = pool.allocate()!
        pool.release([second.page])
        pool.release([first.page])
        pool.release([empty])
        pool.release([third.page])
        try pool.checkInvariants(heldBy: [])
        #expect((0..<4).map { _ in pool.allocate() } == [empty, second.page, first.page, third.page])
        #expect(pool.cachedCount == 0)
        try pool.checkInvariants(heldBy: [[0, 1, 2, 3]])
    }

    @Test func aReleasedPrefixIsFoundAndSharedUntilEvicted() throws {
        var pool = try BlockPool(pageCount: 4, pageSize: 2)
        let tokens: [Int32] = [5, 6, 7, 8]
        let head = Self.publish([5, 6], in: &pool)
        let tail = Self.publish([7, 8], after: head.link, in: &pool)
        pool.release([head.page, tail.page])
        let found = pool.longestCachedPrefix(hashes: Self.hashes(of: tokens, pageSize: 2), tokens: tokens)
        #expect(found.pages == [head.page, tail.page])
        #expect(found.link == tail.link)
        pool.retain(found.pages)
        pool.retain([head.page])
        #expect(pool.references(to: head.page) == 2)
        try pool.checkInvariants(heldBy: [found.pages, [head.page]])
        #expect(pool.freeCount == 2)
        pool.release(found.pages)
        // The tail goes before anything that is held.
        _ = (0..<3).map { _ in pool.allocate() }
        let left = pool.longestCachedPrefix(hashes: Self.hashes(of: tokens, pageSize: 2), tokens: tokens)
        #expect(left.pages == [head.page])
    }

    @Test func equalContentsAreCachedOnce() throws {
        var pool = try BlockPool(pageCount: 4, pageSize: 2)
        let one = Self.publish([1, 2], in: &pool)
        let two = Self.publish([1, 2], in: &pool)
        #expect(one.link == two.link)
        #expect(pool.isCached(one.page) && !pool.isCached(two.page))
        try pool.checkInvariants(heldBy: [[one.page], [two.page]])
    }

    @Test func collidingHashesNeverGiveAWrongHit() throws {
        var pool = try BlockPool(pageCount: 8, pageSize: 2)
        let right = Self.publish([1, 2], hash: 42, in: &pool)
        #expect(pool.longestCachedPrefix(hashes: [42], tokens: [1, 2]).pages == [right.page])
        #expect(pool.longestCachedPrefix(hashes: [42], tokens: [2, 1]).pages.isEmpty)
        // The same tokens behind another start, under the same hash: the serial of the start tells them apart.
        let child = Self.publish([3, 4], after: right.link, hash: 43, in: &pool)
        let usurper = Self.publish([9, 9], hash: 42, in: &pool)
        #expect(pool.longestCachedPrefix(hashes: [42, 43], tokens: [1, 2, 3, 4]).pages.isEmpty)
        #expect(pool.longestCachedPrefix(hashes: [42, 43], tokens: [9, 9, 3, 4]).pages == [usurper.page])
        try pool.checkInvariants(heldBy: [[right.page, child.page], [usurper.page]])
        pool.release([right.page, child.page])
        try pool.checkInvariants(heldBy: [[usurper.page]])
    }

    @Test func forgettingEverythingEmptiesTheCacheOnly() throws {
        var pool = try BlockPool(pageCount: 4, pageSize: 1)
        let held = Self.publish([1], in: &pool)
        let freed = Self.publish([2], in: &pool)
        pool.release([freed.page])
        pool.forgetAllPrefixes()
        #expect(pool.cachedCount == 0)
        #expect(pool.references(to: held.page) == 1)
        try pool.checkInvariants(heldBy: [[held.page]])
    }

    @Test func hashesDependOnOrderLengthAndParent() {
        var seen: Set<UInt64> = []
        for tokens: [Int32] in [[0], [0, 0], [0, 1], [1, 0], [1], [-1]] {
            for parent: UInt64 in [0, 1, PrefixLink.root.hash] {
                seen.insert(BlockPool.hash(tokens[...], after: parent))
            }
        }
        #expect(seen.count == 18)
    }

    @Test func misuseTraps() async {
        await #expect(processExitsWith: .failure) {
            var pool = try BlockPool(pageCount: 2, pageSize: 1)
            let page = pool.allocate()!
            pool.release([page])
            pool.release([page])
        }
        await #expect(processExitsWith: .failure) {
            var pool = try BlockPool(pageCount: 2, pageSize: 1)
            pool.retain([0])
        }
    }

    @Test func brokenTablesAreReported() throws {
        var pool = try BlockPool(pageCount: 2, pageSize: 1)
        let page = pool.allocate()!
        #expect(throws: InvariantViolation.self) { try pool.checkInvariants(heldBy: []) }
        #expect(throws: InvariantViolation.self) { try pool.checkInvariants(heldBy: [[page, page]]) }
        #expect(throws: InvariantViolation.self) { try pool.checkInvariants(heldBy: [[page, 7]]) }
    }
}
