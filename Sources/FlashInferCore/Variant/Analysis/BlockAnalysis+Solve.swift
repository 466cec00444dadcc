/// Of a block of queries: the keys that some of them may see, and those that some of them may not.
struct SolvedKeys: BitwiseCopyable {
    var seen: KeySet
    var hidden: KeySet

    /// Any key may be seen or not.
    static func unknown(_ keys: Range<Int>) -> SolvedKeys {
        let all = KeySet(keys.lowerBound, keys.upperBound)
        return SolvedKeys(seen: all, hidden: all)
    }

    /// Keys for which `coefficient · key + rest` may be 0 or more, and for which it may be less.
    static func atLeastZero(_ coefficient: Int, _ rest: (low: Int, high: Int), _ keys: Range<Int>) -> SolvedKeys {
        let (first, end) = (keys.lowerBound, keys.upperBound)
        if coefficient == 0 {
            return SolvedKeys(
                seen: rest.high >= 0 ? KeySet(first, end) : KeySet(),
                hidden: rest.low < 0 ? KeySet(first, end) : KeySet()
            )
        }
        // The key from which on, or up to which, the sum is 0 or more: for the greatest rest and for the least.
        func clipped(_ key: Int) -> Int { min(max(key, first), end) }
        if coefficient > 0 {
            return SolvedKeys(
                seen: KeySet(clipped(divideUp(-rest.high, coefficient)), end),
                hidden: KeySet(first, clipped(divideUp(-rest.low, coefficient))))
        }
        return SolvedKeys(
            seen: KeySet(first, clipped(divideDown(rest.high, -coefficient) + 1)),
            hidden: KeySet(clipped(divideDown(rest.low, -coefficient) + 1), end))
    }

    /// Keys for which `coefficient · key + rest` may be 0, and for which it may be something else.
    static func zero(_ coefficient: Int, _ rest: (low: Int, high: Int), _ keys: Range<Int>) -> SolvedKeys {
        let above = atLeastZero(coefficient, rest, keys)
        let below = atLeastZero(-coefficient, (-rest.high, -rest.low), keys)
        return SolvedKeys(seen: above.seen.intersection(below.seen), hidden: above.hidden.union(below.hidden))
    }

    private static func divideDown(_ a: Int, _ b: Int) -> Int { a >= 0 ? a / b : -((b - 1 - a) / b) }
    private static func divideUp(_ a: Int, _ b: Int) -> Int { -divideDown(-a, b) }
}

extension BlockAnalysis {
    /// The site's numbers over a block as whole numbers, each found where it is asked for.
    struct Numbers {
        private let block: SiteBlock
        private let analysis: BlockAnalysis
        private let queryLength: Int
        private let keyLength: Int

        @inline(__always)
        init(_ block: SiteBlock, _ analysis: BlockAnalysis) {
            (self.block, self.analysis) = (block, analysis)
            (queryLength, keyLength) = analysis.lengths(block.request)
        }

        /// What a query's position is more than its index.
        var offset: Int { keyLength - queryLength }

        /// The first and the last value.
        @inline(__always)
        func ends(_ field: SiteField) -> (Int, Int) {
            switch field {
            case .request: (block.request, block.request)
            case .head: (block.heads.lowerBound, block.heads.upperBound - 1)
            case .kvHead: (block.heads.lowerBound / analysis.group, (block.heads.upperBound - 1) / analysis.group)
            case .queryIndex: (block.queries.lowerBound, block.queries.upperBound - 1)
            case .queryPosition: (block.queries.lowerBound + offset, block.queries.upperBound - 1 + offset)
            case .keyPosition: (block.keys.lowerBound, block.keys.upperBound - 1)
            case .queryLength: (queryLength, queryLength)
            case .keyLength: (keyLength, keyLength)
            }
        }
    }

    /// The keys of a block that some of its queries may see, and those that some may not; `nil` where the mask's conditions were not
    /// solved, or a tensor's elements are not in order.
    func solve(_ block: SiteBlock) -> SolvedKeys? {
        guard let solver, !block.keys.isEmpty, !block.queries.isEmpty, !block.heads.isEmpty else { return nil }
        let numbers = Numbers(block, self)
        if solver.terms.isEmpty { return solve(block, solver, numbers) { _ in Interval(0) } }
        let site = Ranges(block, self)
        return withUnsafeTemporaryAllocation(of: Interval.self, capacity: graph.nodes.count) { values in
            for place in solver.terms {
                let node = graph.nodes[place]
                let a = node.a >= 0 ? values[Int(node.a)] : Interval(0)
                let b = node.b >= 0 ? values[Int(node.b)] : Interval(0)
                values[place] = value(node, place, a, b, node.c >= 0 ? values[Int(node.c)] : a, site)
            }
            return solve(block, solver, numbers) { values[$0] }
        }
    }

    private func solve(
        _ block: SiteBlock, _ solver: KeySolver, _ numbers: Numbers, _ term: (Int) -> Interval
    ) -> SolvedKeys? {
        let keys = block.keys
        return withUnsafeTemporaryAllocation(of: SolvedKeys.self, capacity: KeySolver.depth) { stack in
            var top = -1
            for step in solver.steps {
                switch step {
                case .constant(let isSeen):
                    top += 1
                    let (all, none) = (KeySet(keys.lowerBound, keys.upperBound), KeySet())
                    stack[top] = SolvedKeys(seen: isSeen ? all : none, hidden: isSeen ? none : all)
                case .sum(let coefficient, let rest, let isEqual):
                    top += 1
                    let bounds = rest.bounds(numbers)
                    stack[top] = isEqual ? .zero(coefficient, bounds, keys) : .atLeastZero(coefficient, bounds, keys)
                case .terms(let coefficient, let left, let right, let isStrict, let isEqual):
                    top += 1
                    guard let a = bounds(left, term), let b = bounds(right, term) else {
                        stack[top] = .unknown(keys)
                        continue
                    }
                    let rest = (low: b.low - a.high - (isStrict ? 1 : 0), high: b.high - a.low - (isStrict ? 1 : 0))
                    stack[top] = isEqual ? .zero(coefficient, rest, keys) : .atLeastZero(coefficient, rest, keys)
                case .element(let parameter, let value):
                    top += 1
                    guard let table = tables[parameter] else {
                        stack[top] = .unknown(keys)
                        continue
                    }
                    guard let (some, all) = table.positions(of: term(value), row: block.request, in: keys) else {
                        return nil
                    }
                    stack[top] = SolvedKeys(
                        seen: KeySet(some.lowerBound, some.upperBound),
                        hidden: KeySet(keys.lowerBound, all.lowerBound).union(KeySet(all.upperBound, keys.upperBound)))
                case .and, .or:
                    let (a, b) = (stack[top - 1], stack[top])
                    top -= 1
                    let isAnd = if case .and = step { true } else { false }
                    stack[top] =
                        isAnd
                        ? SolvedKeys(seen: a.seen.intersection(b.seen), hidden: a.hidden.union(b.hidden))
                        : SolvedKeys(seen: a.seen.union(b.seen), hidden: a.hidden.intersection(b.hidden))
                case .not: stack[top] = SolvedKeys(seen: stack[top].hidden, hidden: stack[top].seen)
                }
            }
            return stack[0]
        }
    }

    /// The least and the greatest value of a side; `nil` where nothing is known.
    private func bounds(_ part: KeySolver.Part, _ term: (Int) -> Interval) -> (low: Int, high: Int)? {
        guard let place = part.term else { return (part.constant, part.constant) }
        let value = term(place)
        return value.mayWrap ? nil : (Int(value.low), Int(value.high))
    }
}
