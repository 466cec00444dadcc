extension KeySet {
    /// The keys of `keys` for which `coefficient · key + greatest` is 0 or more: those for which a sum may be, whose rest is `greatest` at most.
    @inline(__always)
    static func atLeastZero(_ coefficient: Int, _ greatest: Int, _ keys: Range<Int>) -> KeySet {
        let (first, end) = (keys.lowerBound, keys.upperBound)
        if coefficient == 0 { return greatest >= 0 ? KeySet(first, end) : KeySet() }
        // The key from which on, or before which, the sum is 0 or more. Most coefficients are 1, and divisions are slow.
        if coefficient > 0 {
            let from = coefficient == 1 ? -greatest : divideUp(-greatest, coefficient)
            return KeySet(Swift.max(from, first), end)
        }
        let before = (coefficient == -1 ? greatest : -divideUp(-greatest, -coefficient)) + 1
        return KeySet(first, Swift.min(before, end))
    }

    private static func divideUp(_ a: Int, _ b: Int) -> Int { a <= 0 ? -(-a / b) : (a - 1) / b + 1 }

    /// The keys of `keys` for which `coefficient · key + rest` may be 0 or more, or 0; or for which it may not.
    @inline(__always)
    static func comparison(
        _ coefficient: Int, _ rest: (low: Int, high: Int), isEqual: Bool, isNegated: Bool, _ keys: Range<Int>
    ) -> KeySet {
        switch (isEqual, isNegated) {
        case (false, false): return atLeastZero(coefficient, rest.high, keys)
        case (false, true): return atLeastZero(-coefficient, -rest.low - 1, keys)
        case (true, false):
            return atLeastZero(coefficient, rest.high, keys).intersection(atLeastZero(-coefficient, -rest.low, keys))
        case (true, true):
            return atLeastZero(coefficient, rest.high - 1, keys).union(
                atLeastZero(-coefficient, -rest.low - 1, keys))
        }
    }
}

extension BlockAnalysis {
    /// The site's numbers over a block as whole numbers, each found where it is asked for.
    struct Numbers {
        private let block: SiteBlock
        private let group: Int
        private let queryLength: Int
        private let keyLength: Int

        @inline(__always)
        init(_ block: SiteBlock, _ analysis: BlockAnalysis) {
            (self.block, group) = (block, analysis.group)
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
            case .kvHead: (block.heads.lowerBound / group, (block.heads.upperBound - 1) / group)
            case .queryIndex: (block.queries.lowerBound, block.queries.upperBound - 1)
            case .queryPosition: (block.queries.lowerBound + offset, block.queries.upperBound - 1 + offset)
            case .keyPosition: (block.keys.lowerBound, block.keys.upperBound - 1)
            case .queryLength: (queryLength, queryLength)
            case .keyLength: (keyLength, keyLength)
            }
        }
    }

    /// The keys of a block that some of its queries may see; or, `hidden`, those that some may not. `nil` where the mask's conditions were
    /// not solved, or a tensor's elements are not in order.
    func solve(_ block: SiteBlock, hidden: Bool = false) -> KeySet? {
        guard let solver, !block.keys.isEmpty, !block.queries.isEmpty, !block.heads.isEmpty else { return nil }
        let numbers = Numbers(block, self)
        if solver.terms.isEmpty { return solve(block, solver, numbers, hidden) { _ in Interval(0) } }
        let site = Ranges(block, self)
        return withUnsafeTemporaryAllocation(of: Interval.self, capacity: graph.nodes.count) { values in
            for place in solver.terms {
                let node = graph.nodes[place]
                let a = node.a >= 0 ? values[Int(node.a)] : Interval(0)
                let b = node.b >= 0 ? values[Int(node.b)] : Interval(0)
                values[place] = value(node, place, a, b, node.c >= 0 ? values[Int(node.c)] : a, site)
            }
            return solve(block, solver, numbers, hidden) { values[$0] }
        }
    }

    /// What hides a key is what shows it with each of its conditions the other way round, and "and" for "or".
    @inline(__always)
    private func solve(
        _ block: SiteBlock, _ solver: KeySolver, _ numbers: Numbers, _ hidden: Bool, _ term: (Int) -> Interval
    ) -> KeySet? {
        let keys = block.keys
        let (all, none) = (KeySet(keys.lowerBound, keys.upperBound), KeySet())
        return withUnsafeTemporaryAllocation(of: KeySet.self, capacity: KeySolver.depth) { stack in
            var top = -1
            for index in solver.steps.indices {
                let isNegated = solver.steps[index].isNegated != hidden
                switch solver.steps[index].kind {
                case .constant:
                    top += 1
                    stack[top] = solver.steps[index].isSeen != isNegated ? all : none
                case .comparison:
                    top += 1
                    guard let rest = rest(solver.steps[index], solver, block.request, numbers, term) else {
                        stack[top] = all
                        continue
                    }
                    stack[top] = .comparison(
                        solver.steps[index].coefficient, rest, isEqual: solver.steps[index].isEqual,
                        isNegated: isNegated, keys)
                case .element:
                    top += 1
                    guard let table = tables[solver.steps[index].parameter] else {
                        stack[top] = all
                        continue
                    }
                    let found =
                        switch solver.values[solver.steps[index].right] {
                        case .element(solver.steps[index].parameter, let place, _):
                            table.positions(ofElements: place.bounds(numbers), row: block.request, in: keys)
                        case .term(let place): table.positions(of: term(place), row: block.request, in: keys)
                        case .element(let other, let place, let isOfRequest):
                            table.positions(
                                of: interval(other, isOfRequest ? block.request : 0, place.bounds(numbers)),
                                row: block.request, in: keys)
                        }
                    guard let (some, isOne) = found else { return nil }
                    if !isNegated {
                        stack[top] = KeySet(some.lowerBound, some.upperBound)
                    } else {
                        stack[top] =
                            isOne
                            ? KeySet(keys.lowerBound, some.lowerBound).union(KeySet(some.upperBound, keys.upperBound))
                            : all
                    }
                case .and, .or:
                    top -= 1
                    let isAnd = (solver.steps[index].kind == .and) != isNegated
                    stack[top] =
                        isAnd ? stack[top].intersection(stack[top + 1]) : stack[top].union(stack[top + 1])
                }
            }
            return stack[0]
        }
    }

    /// The least and the greatest value of what of a comparison does not depend on the key; `nil` where nothing is known.
    @inline(__always)
    private func rest(
        _ step: KeySolver.Step, _ solver: KeySolver, _ request: Int, _ numbers: Numbers, _ term: (Int) -> Interval
    ) -> (low: Int, high: Int)? {
        var rest = step.rest.bounds(numbers)
        if step.right >= 0 {
            guard let value = bounds(solver.values[step.right], request, numbers, term) else { return nil }
            rest = (rest.low + value.low, rest.high + value.high)
        }
        if step.left >= 0 {
            guard let value = bounds(solver.values[step.left], request, numbers, term) else { return nil }
            rest = (rest.low - value.high, rest.high - value.low)
        }
        return rest
    }

    @inline(__always)
    private func bounds(
        _ value: KeySolver.Value, _ request: Int, _ numbers: Numbers, _ term: (Int) -> Interval
    ) -> (low: Int, high: Int)? {
        switch value {
        case .term(let place):
            let value = term(place)
            return value.mayWrap ? nil : (Int(value.low), Int(value.high))
        case .element(let parameter, let index, let isOfRequest):
            return tables[parameter]?.bounds(row: isOfRequest ? request : 0, columns: index.bounds(numbers))
        }
    }

    /// What an element at some places of a parameter may be.
    private func interval(_ parameter: Int, _ row: Int, _ places: (low: Int, high: Int)) -> Interval {
        tables[parameter]?.bounds(row: row, columns: places).map { Interval(Double($0.low), Double($0.high)) }
            ?? .unknown(.int)
    }
}
