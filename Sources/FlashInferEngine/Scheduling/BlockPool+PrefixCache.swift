/// A place in the tree of published prefixes: the end of a chain of full pages.
public struct PrefixLink: Hashable, Sendable {
    /// The chained hash of every token from the start of the prefix to here.
    public let hash: UInt64
    /// The serial of the published contents that end here; 0 at the root.
    public let serial: UInt64

    /// The empty prefix.
    public static let root = PrefixLink(hash: 0x9e37_79b9_7f4a_7c15, serial: 0)
}

/// The pages of a cached prefix, as found by ``BlockPool/longestCachedPrefix(hashes:tokens:)``.
public struct CachedPrefix: Sendable {
    /// The pages from the start of the prefix. They are not held yet: see ``BlockPool/retain(_:)``.
    public let pages: [Int32]
    /// Where the prefix ends.
    public let link: PrefixLink
}

extension BlockPool {
    /// The hash of the prefix that ends with a page of `tokens` behind a prefix with hash `parent`.
    ///
    /// Each token is mixed in by folding a 128-bit product (as in wyhash); collisions cost a cache miss and never a wrong hit,
    /// because ``longestCachedPrefix(hashes:tokens:)`` compares tokens and serials as well.
    public static func hash(_ tokens: ArraySlice<Int32>, after parent: UInt64) -> UInt64 {
        var state = parent
        for token in tokens {
            let mixed = (state ^ 0xa076_1d64_78bd_642f)
                .multipliedFullWidth(by: UInt64(UInt32(bitPattern: token)) ^ 0xe703_7ed1_a0b4_28db)
            state = mixed.high ^ mixed.low
        }
        // A last round, so that the length of the page counts too.
        let mixed = (state ^ 0x8ebc_6af0_9c88_c6e3).multipliedFullWidth(by: UInt64(tokens.count) | 1 << 63)
        return mixed.high ^ mixed.low
    }

    /// Finds the longest chain of published pages that holds the start of `tokens`.
    ///
    /// A match is exact: at every page the stored token ids must be equal, and the page must have been published
    /// behind the very contents matched before it (its parent's serial), so hash collisions are harmless.
    ///
    /// - Parameters:
    ///   - hashes: the chained hash of each full page of `tokens`, from the first; as many as may be matched.
    ///   - tokens: the token ids; at least `hashes.count × pageSize` of them.
    /// - Complexity: O(matched tokens).
    public func longestCachedPrefix(hashes: some Collection<UInt64>, tokens: [Int32]) -> CachedPrefix {
        var found: [Int32] = []
        var link = PrefixLink.root
        for hash in hashes {
            let start = found.count * pageSize
            guard let page = pageByHash[hash],
                holds(page, tokens[start..<start + pageSize], after: link)
            else { break }
            found.append(page)
            link = PrefixLink(hash: hash, serial: pages[Int(page)].serial)
        }
        return CachedPrefix(pages: found, link: link)
    }

    /// Enters a full, held page into the prefix cache.
    ///
    /// When the same contents are already published in another page, that page stays the published one and `page`
    /// stays private: both sequences keep their tables, and the chain goes on behind the published one.
    ///
    /// - Parameters:
    ///   - page: a page with at least one holder, not yet published, whose keys and values are all written.
    ///   - tokens: its `pageSize` token ids.
    ///   - hash: the chained hash of the prefix that ends with this page.
    ///   - parent: where the prefix before this page ends.
    /// - Returns: where the prefix ends now.
    /// - Complexity: O(pageSize).
    public mutating func publish(
        _ page: Int32, tokens: ArraySlice<Int32>, hash: UInt64, after parent: PrefixLink
    ) -> PrefixLink {
        precondition(references(to: page) > 0 && !isCached(page), "page \(page) is not a private page of a sequence")
        precondition(tokens.count == pageSize, "only full pages are published")
        if let other = pageByHash[hash] {
            if holds(other, tokens, after: parent) {
                return PrefixLink(hash: hash, serial: pages[Int(other)].serial)
            }
            // Either a true collision, or what is left of a prefix whose start was evicted: nothing can reach it.
            withdraw(other)
        }
        let serial = nextSerial
        nextSerial += 1
        pageByHash[hash] = page
        pages[Int(page)].hash = hash
        pages[Int(page)].serial = serial
        pages[Int(page)].parentSerial = parent.serial
        let row = Int(page) * pageSize
        for (offset, token) in tokens.enumerated() { cachedTokens[row + offset] = token }
        return PrefixLink(hash: hash, serial: serial)
    }

    /// Empties the prefix cache. Held pages stay held.
    ///
    /// - Complexity: O(pageCount).
    public mutating func forgetAllPrefixes() {
        for page in 0..<Int32(pageCount) where isCached(page) { withdraw(page) }
    }

    /// Whether the published contents of `page` are `tokens` behind `parent`.
    private func holds(_ page: Int32, _ tokens: ArraySlice<Int32>, after parent: PrefixLink) -> Bool {
        let row = Int(page) * pageSize
        return pages[Int(page)].parentSerial == parent.serial && cachedTokens[row..<row + pageSize] == tokens
    }

    /// Takes `page` out of the prefix cache; if nobody holds it, it becomes an empty page.
    private mutating func withdraw(_ page: Int32) {
        forgetContents(of: page)
        if references(to: page) == 0 {
            unlink(page)
            link(page, after: Int32(pageCount))
        }
    }

    /// Takes the contents of `page` out of the prefix cache, leaving its place in the free list as it is.
    mutating func forgetContents(of page: Int32) {
        pageByHash[pages[Int(page)].hash] = nil
        pages[Int(page)].serial = 0
        pages[Int(page)].parentSerial = 0
        pages[Int(page)].hash = 0
    }
}
