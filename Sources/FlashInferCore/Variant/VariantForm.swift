/// A variant in terms of the hand-written kernels: the options that they have, read off the expressions, and what is left over.
package struct VariantForm: Sendable, Hashable {
    /// The masks that the kernels have.
    package enum FusedMask: Sendable, Hashable {
        case none, causal, custom, customPacked
    }

    /// The mask, apart from window and rest.
    package private(set) var mask = FusedMask.none
    /// The narrowest window.
    package private(set) var windowLeft: Int?
    /// What else a key must be to be seen; `nil` for nothing.
    package private(set) var restOfMask: ExprGraph?
    /// What is known of that.
    private(set) var restTerms: MaskTerms?
    /// Whether that leaves neighbouring rows the same keys, from the first on: see ``MaskTerms/mayReachFirstKey``.
    package private(set) var restMayReachFirstKey = true
    /// The cap.
    package private(set) var softCap: Float?
    /// Whether ALiBi's bias is added.
    package private(set) var isALiBi = false
    /// The logits where they are none of the above; `nil` where they are.
    package private(set) var logits: ExprGraph?
    /// The weights where they are not the softmax's.
    package private(set) var weights: ExprGraph?
    /// What becomes of the output's elements; `nil` for nothing.
    package private(set) var output: ExprGraph?
    /// What becomes of the values' elements; `nil` for nothing.
    package private(set) var values: ExprGraph?
    /// What each value is multiplied by, where that is all that becomes of it.
    package private(set) var valueFactor: ExprGraph?
    /// The sink's logit, where it is computed for each row.
    package private(set) var sink: ExprGraph?
    /// What becomes of the logarithm of a row's sum; `nil` for nothing.
    package private(set) var normalizer: ExprGraph?
    /// Whether the conditions can never hold together.
    package private(set) var isContradictory = false
    /// How the run's own mask is stored, where any hook reads it.
    package private(set) var maskTensor: ParameterDeclaration?
    /// Parameters without an argument of their own in a run, in order of first use.
    package private(set) var parameters: [ParameterDeclaration] = []
    /// Whether any hook reads ALiBi's slopes.
    package private(set) var readsSlopes = false
    /// The mask without its windows.
    package private(set) var maskBesidesWindow: Mask

    /// What must hold of a key beyond causality and window, the run's own mask included: what is left to be asked of each pair where
    /// keys' positions are in order. `nil` for nothing.
    package var maskBesidesRanges: ExprGraph? {
        let custom: Mask?
        switch mask {
        case .none, .causal: custom = nil
        case .custom: custom = .custom
        case .customPacked: custom = .customPacked
        }
        guard let custom = custom?.expression.graph else { return restOfMask }
        return restOfMask.map { .term(.and, .bool, custom, $0) } ?? custom
    }

    /// Whether the hand-written kernels do all of it.
    package var isFused: Bool {
        hasFusedScores && output == nil && values == nil && sink == nil && normalizer == nil
    }

    /// Whether they do all of it up to the weights.
    package var hasFusedScores: Bool { restOfMask == nil && logits == nil && weights == nil }

    init(_ hooks: VariantHooks) {
        let (mask, logits) = (hooks.mask, hooks.scaledLogits)
        maskBesidesWindow = mask
        recognise(mask)
        restTerms = restOfMask.map { MaskTerms($0) }
        restMayReachFirstKey = restTerms?.mayReachFirstKey ?? true
        recognise(logits)
        weights = hooks.weights.expression?.graph
        output = hooks.output.expression?.graph
        values = hooks.value.expression?.graph
        valueFactor = values?.factorOfScore
        normalizer = hooks.normalizer.expression?.graph
        if case .rule(let rule) = hooks.sink { sink = rule.expression.graph }
        let graphs = [mask.expression.graph, logits.expression.graph, weights, output, values, sink, normalizer]
        for graph in graphs.compactMap({ $0 }) {
            for parameter in graph.parameters {
                switch parameter.extent {
                case .maskBytes, .maskBits: maskTensor = maskTensor ?? parameter
                default:
                    if parameter == .alibiSlopes {
                        readsSlopes = true
                    } else if !parameters.contains(parameter) {
                        parameters.append(parameter)
                    }
                }
            }
        }
    }

    // MARK: The mask

    private mutating func recognise(_ mask: Mask) {
        let graph = mask.expression.graph
        let forms = Affine.forms(of: graph)
        var rest: [Int] = []
        var besidesWindow: [Int] = []
        var isCausal = false
        var (nearest, farthest) = (Int.min, Int.max)
        for place in Self.conditions(graph) {
            if let margin = Self.margin(graph, place, forms), Self.isDiagonal(margin) {
                // Query minus key is at least −constant, or at most the constant.
                if margin[.queryPosition] == 1 { nearest = max(nearest, -margin.constant) }
                if margin[.queryPosition] == -1 { farthest = min(farthest, margin.constant) }
            }
            if let window = Self.window(graph, place, forms) {
                windowLeft = min(windowLeft ?? window, window)
                continue
            }
            besidesWindow.append(place)
            let node = graph.nodes[place]
            if Self.isCausal(graph, place, forms) {
                isCausal = true
            } else if node.operation == .load {
                if self.mask == .none {
                    self.mask = graph.parameters[Int(node.payload)] == .maskBytes ? .custom : .customPacked
                } else {
                    rest.append(place)
                }
            } else if !(node.operation == .constant && node.bool) {
                rest.append(place)
            }
        }
        let root = graph.nodes[graph.root]
        isContradictory = nearest > farthest || (root.operation == .constant && !root.bool)
        if isCausal {
            // The kernels have one mask at a time; the other is then left over.
            if self.mask == .none {
                self.mask = .causal
            } else {
                let causal = Self.conjunction(Mask.causal.expression.graph, [Mask.causal.expression.graph.root])
                restOfMask = causal
            }
        }
        if let others = Self.conjunction(graph, rest) {
            restOfMask = restOfMask.map { .term(.and, .bool, $0, others) } ?? others
        }
        if windowLeft != nil {
            maskBesidesWindow = Mask(
                Expr(graph: Self.conjunction(graph, besidesWindow) ?? .constant(true)), at: mask.place)
        }
    }

    /// The terms that must all hold.
    private static func conditions(_ graph: ExprGraph) -> [Int] {
        var conditions: [Int] = []
        var pending = [graph.root]
        while let place = pending.popLast() {
            let node = graph.nodes[place]
            if node.operation == .and {
                pending.append(Int(node.b))
                pending.append(Int(node.a))
            } else if !conditions.contains(place) {
                conditions.append(place)
            }
        }
        return conditions
    }

    private static func conjunction(_ graph: ExprGraph, _ places: [Int]) -> ExprGraph? {
        if places.isEmpty { return nil }
        var builder = ExprBuilder()
        var copies: [Int] = []
        for node in graph.nodes {
            let operands = node.operands.map { copies[$0] }
            copies.append(
                node.operation == .load
                    ? builder.load(graph.parameters[Int(node.payload)], operands)
                    : builder.add(node.operation, node.type, operands, payload: node.payload))
        }
        let root = places.map { copies[$0] }.reduce(nil) { (sum: Int?, place) in
            guard let sum else { return place }
            return builder.add(.and, .bool, [sum, place])
        }
        return root.map { builder.graph(of: $0) }
    }

    /// What must be 0 or more for a comparison to hold.
    private static func margin(_ graph: ExprGraph, _ place: Int, _ forms: [Affine?]) -> Affine? {
        let node = graph.nodes[place]
        guard node.operation == .less || node.operation == .lessEqual, let left = forms[Int(node.a)],
            let right = forms[Int(node.b)], let margin = right.adding(left, times: -1)
        else { return nil }
        return node.operation == .less ? margin.adding(Affine(1), times: -1) : margin
    }

    /// The distance from query to key that a condition allows, where that is all it says.
    private static func window(_ graph: ExprGraph, _ place: Int, _ forms: [Affine?]) -> Int? {
        guard let margin = margin(graph, place, forms), isDiagonal(margin), margin[.queryPosition] == -1,
            margin.constant >= 0
        else { return nil }
        return margin.constant
    }

    private static func isCausal(_ graph: ExprGraph, _ place: Int, _ forms: [Affine?]) -> Bool {
        guard let margin = margin(graph, place, forms), isDiagonal(margin) else { return false }
        return margin[.queryPosition] == 1 && margin.constant == 0
    }

    /// Whether only the distance between query and key counts.
    private static func isDiagonal(_ margin: Affine) -> Bool {
        var others = margin
        others.coefficients[Int(SiteField.queryPosition.rawValue)] = 0
        others.coefficients[Int(SiteField.keyPosition.rawValue)] = 0
        return others.isConstant && margin[.queryPosition] == -margin[.keyPosition]
    }

    // MARK: The logits

    /// By construction and comparison: a graph that is what an option makes is that option.
    private mutating func recognise(_ logits: Logits) {
        if logits == .plain { return }
        if logits == .alibi {
            isALiBi = true
            return
        }
        let constants = logits.expression.graph.nodes.filter { $0.operation == .constant && $0.type == .float }
        for cap in constants.map(\.float) + [1] {
            let capped = Logits.softCap(cap)
            if logits == capped || logits == capped.then(.alibi) {
                softCap = cap
                isALiBi = logits != capped
                return
            }
        }
        self.logits = logits.expression.graph
    }
}
