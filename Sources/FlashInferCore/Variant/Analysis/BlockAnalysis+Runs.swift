extension BlockAnalysis {
    /// What kernels are told of a block: the longest run of keys that it leaves empty, and the longest that it shows in full.
    package struct Runs: Equatable, Sendable {
        /// Empty where there is none.
        package var empty = 0..<0
        /// Empty where there is none.
        package var full = 0..<0

        package init() {}
    }

    /// Keys that a run has at least, and blocks that are asked for: a plan has thousands of items, so each gets a bounded time.
    private static let leaf = 64, budget = 96

    /// The runs of a block: solved for, or by halving what is partial, all of one size before any of the next.
    package func runs(_ block: SiteBlock) -> Runs {
        if block.keys.isEmpty { return Runs() }
        if let seen = solve(block), let hidden = solve(block, hidden: true) {
            var runs = Runs()
            runs.empty = seen.longestGap(in: block.keys)
            runs.full = hidden.longestGap(in: block.keys)
            return runs
        }
        var parts = [(keys: block.keys, kind: kind(block))]
        var asked = 1
        while true {
            let halved = parts.filter { $0.kind == .partial && $0.keys.count > Self.leaf }.count
            if halved == 0 || asked + 2 * halved > Self.budget { break }
            asked += 2 * halved
            parts = parts.flatMap { part in
                guard part.kind == .partial, part.keys.count > Self.leaf else { return [part] }
                let middle = part.keys.lowerBound + (part.keys.count + 1) / 2
                return [part.keys.lowerBound..<middle, middle..<part.keys.upperBound].map { keys in
                    var half = block
                    half.keys = keys
                    return (keys, kind(half))
                }
            }
        }
        var runs = Runs()
        runs.empty = Self.longest(.empty, parts)
        runs.full = Self.longest(.full, parts)
        return runs
    }

    private static func longest(_ kind: BlockKind, _ parts: [(keys: Range<Int>, kind: BlockKind)]) -> Range<Int> {
        var (best, run) = (0..<0, 0..<0)
        for part in parts {
            if part.kind != kind {
                run = part.keys.upperBound..<part.keys.upperBound
            } else {
                run = (run.isEmpty ? part.keys.lowerBound : run.lowerBound)..<part.keys.upperBound
                if run.count > best.count { best = run }
            }
        }
        return best
    }
}
