/// A mask's conditions solved for the key: for a block of queries, the keys that some of them may see, and those that some may not, in one
/// pass over the conditions. What intervals over blocks of keys find by halving, for the masks that people write.
///
/// A condition is solved where it compares sums in which the key's position is times a constant and the rest does not depend on the key
/// (its own numbers, tensors' elements at the query's place), or asks whether a tensor's element at the key's position is equal to
/// what does not depend on the key, where the elements of the request are in order (documents).
struct KeySolver: Sendable {
    /// A condition, or what joins two: plain numbers, as tiles by the thousand walk over them.
    struct Step: Sendable {
        enum Kind: Sendable {
            /// All keys or none.
            case constant
            /// Whether `coefficient · key + rest + value right − value left` is 0 or more, or is 0.
            case comparison
            /// Whether a parameter's element at the key is value `right`.
            case element
            case and, or
        }

        var kind: Kind
        /// Whether it is meant the other way round: `!` is taken to the conditions.
        var isNegated: Bool
        /// Of a constant: whether it is all keys.
        var isSeen = false
        var isEqual = false
        var coefficient = 0
        var rest = KeylessSum()
        /// Of the values; −1 where there is none.
        var left = -1
        var right = -1
        var parameter = 0
    }

    /// What of a condition does not depend on the key.
    enum Value: Sendable {
        case term(Int)
        /// A parameter's element at a sum: of the request's row, where each has its own.
        case element(parameter: Int, index: KeylessSum, isOfRequest: Bool)
    }

    /// In the order in which they are computed, each condition after its own.
    let steps: [Step]
    let values: [Value]
    /// Terms without the key that the steps ask for, and what those are made of, in order.
    let terms: [Int]
    /// Sets that wait at a time, at most.
    static let depth = 8
    /// The steps hold where all of the site's numbers are below this: then no sum has wrapped.
    static let limit = 1 << 26

    /// The steps of a mask; `nil` where a condition cannot be solved.
    ///
    /// - Parameter forms: the terms that are sums.
    init?(_ graph: ExprGraph, _ forms: [Affine?]) {
        var compiler = Compiler(graph, forms)
        guard compiler.condition(graph.root, isNegated: false), compiler.deepest <= Self.depth else { return nil }
        (steps, values) = (compiler.steps, compiler.values)
        var needed = Set(compiler.needed)
        for place in graph.nodes.indices.reversed() where needed.contains(place) {
            needed.formUnion(graph.nodes[place].operands)
        }
        terms = needed.sorted()
    }

    private struct Compiler {
        let graph: ExprGraph
        let forms: [Affine?]
        /// Terms that depend on the key.
        let hasKey: [Bool]
        var steps: [Step] = []
        var values: [Value] = []
        var needed: [Int] = []
        var deepest = 0
        private var waiting = 0

        init(_ graph: ExprGraph, _ forms: [Affine?]) {
            (self.graph, self.forms) = (graph, forms)
            var hasKey: [Bool] = []
            for node in graph.nodes {
                let isKey = node.operation == .site && node.field == .keyPosition
                let isMask = node.operation == .load && node.operands.isEmpty
                hasKey.append(isKey || isMask || node.operation == .score || node.operands.contains { hasKey[$0] })
            }
            self.hasKey = hasKey
        }

        private mutating func push(_ step: Step) -> Bool {
            waiting += step.kind == .and || step.kind == .or ? -1 : 1
            deepest = max(deepest, waiting)
            steps.append(step)
            // Terms that are used again and again are computed again and again.
            return steps.count <= 64
        }

        /// Adds a condition's steps; false where it cannot be solved.
        mutating func condition(_ place: Int, isNegated: Bool) -> Bool {
            let node = graph.nodes[place]
            switch node.operation {
            case .constant: return push(Step(kind: .constant, isNegated: isNegated, isSeen: node.bool))
            case .and, .or:
                return condition(Int(node.a), isNegated: isNegated) && condition(Int(node.b), isNegated: isNegated)
                    && push(Step(kind: node.operation == .and ? .and : .or, isNegated: isNegated))
            case .not: return condition(Int(node.a), isNegated: !isNegated)
            case .less, .lessEqual, .equal: return comparison(node, isNegated)
            default: return false
            }
        }

        private mutating func comparison(_ node: ExprGraph.Node, _ isNegated: Bool) -> Bool {
            let (a, b) = (Int(node.a), Int(node.b))
            guard graph.nodes[a].type == .int else { return false }
            let (isStrict, isEqual) = (node.operation == .less, node.operation == .equal)
            if let left = forms[a], let right = forms[b], isSmall(left), isSmall(right),
                let difference = right.adding(left, times: -1)
            {
                guard var rest = KeylessSum(difference) else { return false }
                if isStrict { rest.constant -= 1 }
                return push(
                    Step(
                        kind: .comparison, isNegated: isNegated, isEqual: isEqual,
                        coefficient: difference[.keyPosition], rest: rest))
            }
            if isEqual {
                if let parameter = elementAtKey(a), !hasKey[b] { return element(parameter, b, isNegated) }
                if let parameter = elementAtKey(b), !hasKey[a] { return element(parameter, a, isNegated) }
            }
            guard let left = side(a), let right = side(b) else { return false }
            return push(
                Step(
                    kind: .comparison, isNegated: isNegated, isEqual: isEqual,
                    coefficient: right.coefficient - left.coefficient,
                    rest: KeylessSum(right.constant - left.constant - (isStrict ? 1 : 0)), left: left.value,
                    right: right.value))
        }

        private mutating func element(_ parameter: Int, _ term: Int, _ isNegated: Bool) -> Bool {
            push(Step(kind: .element, isNegated: isNegated, right: value(term), parameter: parameter))
        }

        /// The place among the values of a term without the key.
        private mutating func value(_ term: Int) -> Int {
            if let (parameter, index) = load(term), isSmall(index), let sum = KeylessSum(index) {
                let isOfRequest = graph.parameters[parameter].extent == .perPosition
                values.append(.element(parameter: parameter, index: sum, isOfRequest: isOfRequest))
            } else {
                needed.append(term)
                values.append(.term(term))
            }
            return values.count - 1
        }

        /// The parameter whose element a term is, and at which sum.
        private func load(_ place: Int) -> (parameter: Int, index: Affine)? {
            let node = graph.nodes[place]
            guard node.operation == .load, node.a >= 0, node.b < 0, let index = forms[Int(node.a)] else { return nil }
            return (Int(node.payload), index)
        }

        /// The parameter, one for each position, whose element at the key's position a term is.
        private func elementAtKey(_ place: Int) -> Int? {
            guard let (parameter, index) = load(place), index == Affine(.keyPosition),
                graph.parameters[parameter].extent == .perPosition
            else { return nil }
            return parameter
        }

        /// A side of a comparison: a multiple of the key's position and a constant, or a value without the key.
        private mutating func side(_ place: Int) -> (coefficient: Int, constant: Int, value: Int)? {
            if !hasKey[place] { return (0, 0, value(place)) }
            guard let form = forms[place], isSmall(form) else { return nil }
            var others = form
            others.coefficients[Int(SiteField.keyPosition.rawValue)] = 0
            return others.isConstant ? (form[.keyPosition], form.constant, -1) : nil
        }

        /// Whether neither a sum nor what it is made of can wrap.
        private func isSmall(_ sum: Affine) -> Bool {
            (0..<8).reduce(0) { $0 + abs(sum.coefficients[$1]) } <= 16 && abs(sum.constant) < 1 << 29
        }
    }
}

/// A sum of at most three multiples of the site's numbers, without the key's, and a constant.
struct KeylessSum: Sendable {
    var constant: Int
    /// The multiple of what a query's position is more than its index.
    private var offset = 0
    private var fields = (SiteField.request, SiteField.request, SiteField.request)
    private var factors = (0, 0, 0)

    /// A constant.
    init(_ constant: Int = 0) { self.constant = constant }

    /// All of a sum but the key's position; `nil` where it has more numbers than that. The query's two numbers are one.
    init?(_ sum: Affine) {
        constant = sum.constant
        offset = sum[.queryPosition]
        var count = 0
        for field in SiteField.allCases where field != .keyPosition && field != .queryPosition {
            let factor = sum[field] + (field == .queryIndex ? offset : 0)
            if factor == 0 { continue }
            switch count {
            case 0: (fields.0, factors.0) = (field, factor)
            case 1: (fields.1, factors.1) = (field, factor)
            case 2: (fields.2, factors.2) = (field, factor)
            default: return nil
            }
            count += 1
        }
    }

    /// The least and the greatest value over a block.
    @inline(__always)
    func bounds(_ site: BlockAnalysis.Numbers) -> (low: Int, high: Int) {
        var (low, high) = (constant + offset * site.offset, constant + offset * site.offset)
        func add(_ field: SiteField, _ factor: Int) {
            if factor == 0 { return }
            let (first, last) = site.ends(field)
            low += factor * (factor > 0 ? first : last)
            high += factor * (factor > 0 ? last : first)
        }
        add(fields.0, factors.0)
        add(fields.1, factors.1)
        add(fields.2, factors.2)
        return (low, high)
    }
}
