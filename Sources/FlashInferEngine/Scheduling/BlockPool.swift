/// The pages of one paged KV cache: who holds each, which are free, and which still hold a prefix worth reusing.
///
/// The pool knows page numbers and token ids only; the keys and values live with the model runner. A page is in one
/// of three states:
///
/// - *held*: one or more sequences have it in their block table (``references(to:)`` > 0);
/// - *cached*: nobody holds it, but its keys and values are those of a known prefix, so that a later request may
///   take it back by ``retain(_:)``. It counts as free: ``allocate()`` evicts the least recently released first;
/// - *empty*: nobody holds it and nothing in it is worth keeping. Empty pages are handed out before cached ones.
///
/// A page handed out by ``allocate()`` has exactly one holder and is not in the prefix cache, so it may be written. A
/// page that was published into the prefix cache is full and is never written again while it is cached.
///
/// Every operation on one page is O(1): the free list is doubly linked through the pages themselves.
public struct BlockPool: Sendable {
    /// The number of pages.
    public let pageCount: Int
    /// The number of token positions a page holds.
    public let pageSize: Int
    /// The number of pages nobody holds, cached ones included.
    public internal(set) var freeCount: Int
    /// The number of pages whose contents can be found by ``longestCachedPrefix(hashes:tokens:)``, held ones included.
    public var cachedCount: Int { pageByHash.count }
    /// The number of pages that at least one sequence holds.
    public var heldCount: Int { pageCount - freeCount }
    /// The largest ``heldCount`` there has been.
    public internal(set) var peakHeldCount = 0

    /// The state of one page, and its place in the free list.
    struct Page: Sendable {
        var references: Int32 = 0
        var previous: Int32 = 0
        var next: Int32 = 0
        /// The number given to the contents when they were published; 0 when they are not in the prefix cache.
        var serial: UInt64 = 0
        var parentSerial: UInt64 = 0
        var hash: UInt64 = 0
    }

    /// `pageCount` pages and, last, the sentinel that closes the free list into a ring. From the sentinel forward:
    /// empty pages, then cached pages from the least to the most recently released.
    var pages: [Page]
    /// [pageCount, pageSize] the token ids of the published pages; anything in the rows of the others.
    var cachedTokens: [Int32]
    /// The published pages by the hash of the whole prefix that ends with them.
    var pageByHash: [UInt64: Int32] = [:]
    /// The serial that the next published contents get. Never reused, so a serial names one prefix for ever.
    var nextSerial: UInt64 = 1

    /// Makes a pool of empty pages.
    ///
    /// - Parameters:
    ///   - pageCount: the number of pages, at least 1.
    ///   - pageSize: the token positions of a page, at least 1; `pageCount × pageSize` must fit `Int32`, because
    ///     kernels address slots with 32 bits.
    /// - Throws: ``SchedulingError/invalidConfiguration(name:value:requirement:)``.
    public init(pageCount: Int, pageSize: Int) throws(SchedulingError) {
        guard pageSize >= 1 else {
            throw .invalidConfiguration(name: "pageSize", value: pageSize, requirement: "at least 1")
        }
        guard pageCount >= 1 else {
            throw .invalidConfiguration(name: "pageCount", value: pageCount, requirement: "at least 1")
        }
        let (slots, overflow) = pageCount.multipliedReportingOverflow(by: pageSize)
        guard !overflow, slots <= Int(Int32.max) else {
            throw .invalidConfiguration(
                name: "pageCount", value: pageCount,
                requirement: "at most \(Int(Int32.max) / pageSize) pages of \(pageSize) tokens")
        }
        self.pageCount = pageCount
        self.pageSize = pageSize
        freeCount = pageCount
        cachedTokens = [Int32](repeating: 0, count: slots)
        pages = (0...Int32(pageCount)).map { page in
            Page(previous: page == 0 ? Int32(pageCount) : page - 1, next: page == pageCount ? 0 : page + 1)
        }
    }

    /// The number of pages that `tokenCount` positions need.
    public func pagesNeeded(forTokens tokenCount: Int) -> Int {
        (tokenCount + pageSize - 1) / pageSize
    }

    /// The number of sequences that hold `page`.
    public func references(to page: Int32) -> Int { Int(pages[Int(page)].references) }

    /// Whether the contents of `page` are in the prefix cache.
    public func isCached(_ page: Int32) -> Bool { pages[Int(page)].serial != 0 }

    /// Hands out a page for writing: one holder, no cached contents.
    ///
    /// Takes an empty page if there is one, else evicts the cached page that was released longest ago.
    ///
    /// - Returns: the page, or nil when every page is held.
    /// - Complexity: O(1).
    public mutating func allocate() -> Int32? {
        guard freeCount > 0 else { return nil }
        let page = pages[pageCount].next
        if isCached(page) { forgetContents(of: page) }
        hold(page)
        return page
    }

    /// Adds a holder to each of `shared`, which must be held or cached: an empty page has nothing to share.
    ///
    /// - Complexity: O(number of pages).
    public mutating func retain(_ shared: [Int32]) {
        for page in shared {
            if references(to: page) == 0 {
                precondition(isCached(page), "page \(page) is free and holds no cached prefix: nothing to retain")
                hold(page)
            } else {
                pages[Int(page)].references += 1
            }
        }
    }

    /// Takes one holder away from each page of `table`, last page first.
    ///
    /// A cached page stays cached when its last holder goes. The order makes the end of a prefix older than its
    /// start, so that eviction shortens cached prefixes from their tails and leaves no unreachable remains.
    ///
    /// - Complexity: O(number of pages).
    public mutating func release(_ table: [Int32]) {
        for page in table.reversed() {
            precondition(references(to: page) > 0, "page \(page) was released more often than it was taken")
            pages[Int(page)].references -= 1
            guard pages[Int(page)].references == 0 else { continue }
            freeCount += 1
            if isCached(page) {
                link(page, after: pages[pageCount].previous)
            } else {
                link(page, after: Int32(pageCount))
            }
        }
    }

    /// Gives a free page its first holder.
    private mutating func hold(_ page: Int32) {
        unlink(page)
        pages[Int(page)].references = 1
        freeCount -= 1
        peakHeldCount = max(peakHeldCount, heldCount)
    }

    /// Takes `page` out of the free list.
    mutating func unlink(_ page: Int32) {
        let (previous, next) = (pages[Int(page)].previous, pages[Int(page)].next)
        pages[Int(previous)].next = next
        pages[Int(next)].previous = previous
    }

    /// Puts `page` into the free list behind `previous`.
    mutating func link(_ page: Int32, after previous: Int32) {
        let next = pages[Int(previous)].next
        pages[Int(page)].previous = previous
        pages[Int(page)].next = next
        pages[Int(previous)].next = page
        pages[Int(next)].previous = page
    }
}
