/// Copies whole pages of a cache, keys and values: forking a sequence, or moving pages together.
///
/// All copies happen as if at once: a page that is both a source and a destination gives what it held before.
public struct CopyPagesOperation: Sendable, Equatable {
    /// One move of the schedule that has the effect of copying all at once.
    public enum Move: Sendable, Hashable {
        /// Copy a page.
        case copy(source: Int32, destination: Int32)
        /// Copy a page to the spare page.
        case save(source: Int32)
        /// Copy the spare page to a page.
        case restore(destination: Int32)
    }

    /// A paged cache.
    public var cache: KVCacheView

    /// The pages read.
    public var sources: [Int32]

    /// The pages written, each at most once; as many as `sources`.
    public var destinations: [Int32]

    /// An operation; call ``validate()`` before it is executed.
    public init(cache: KVCacheView, sources: [Int32], destinations: [Int32]) {
        self.cache = cache
        self.sources = sources
        self.destinations = destinations
    }

    /// Checks the cache and every page id.
    ///
    /// - Throws: ``FlashInferError`` that names the place, the value and the limit.
    /// - Complexity: O(copies · log copies).
    public func validate() throws(FlashInferError) {
        guard cache.keys.blockSize != nil else {
            throw .invalidArgument("cache", found: "ragged", expected: "paged")
        }
        guard sources.count == destinations.count else {
            throw .lengthMismatch("destinations", found: destinations.count, expected: sources.count)
        }
        let checks = TensorChecks(device: cache.keys.view.device)
        try checks.writable(cache.keys.view, "keys of the cache")
        try checks.writable(cache.values.view, "values of the cache")
        for (name, pages) in [("sources", sources), ("destinations", destinations)] {
            for (index, page) in pages.enumerated() where page < 0 || Int(page) >= cache.keys.blockCount {
                throw .invalidArgument(
                    "\(name)[\(index)]", found: "\(page)", expected: "in 0 ..< \(cache.keys.blockCount)")
            }
        }
        let sorted = destinations.sorted()
        for (page, next) in zip(sorted, sorted.dropFirst()) where page == next {
            throw .invalidArgument("destinations", found: "page \(page) twice", expected: "each page at most once")
        }
    }

    /// The order in which single copies have the effect of all at once: a page is written when nobody needs to read it any
    /// more, and each cycle goes through the spare page.
    ///
    /// - Complexity: O(copies).
    public func schedule() -> [Move] {
        var source: [Int32: Int32] = [:]
        var readers: [Int32: Int] = [:]
        for (from, to) in zip(sources, destinations) where from != to {
            source[to] = from
            readers[from, default: 0] += 1
        }
        var moves: [Move] = []
        var ready = destinations.filter { source[$0] != nil && readers[$0] == nil }
        while let to = ready.popLast() {
            guard let from = source.removeValue(forKey: to) else { continue }
            moves.append(.copy(source: from, destination: to))
            let left = (readers[from] ?? 1) - 1
            readers[from] = left
            if left == 0, source[from] != nil { ready.append(from) }
        }
        // Only cycles are left, in which every page has one reader.
        for start in destinations where source[start] != nil {
            moves.append(.save(source: start))
            var to = start
            while let from = source.removeValue(forKey: to), from != start {
                moves.append(.copy(source: from, destination: to))
                to = from
            }
            moves.append(.restore(destination: to))
        }
        return moves
    }
}
