/// Gathers terms, each once, and simplifies them on the way.
package struct ExprBuilder {
    package private(set) var nodes: [ExprGraph.Node] = []
    package private(set) var parameters: [ParameterDeclaration] = []
    private var known: [ExprGraph.Node: Int] = [:]

    package init() {}

    /// Adds the terms of a graph; gives where its result is.
    ///
    /// - Parameter score: the term that takes the place of the graph's score, where not the score itself.
    package mutating func append(_ graph: ExprGraph, score: Int? = nil) -> Int {
        var places: [Int] = []
        places.reserveCapacity(graph.nodes.count)
        for node in graph.nodes {
            if node.operation == .score, let score {
                places.append(score)
                continue
            }
            let operands = node.operands.map { places[$0] }
            if node.operation == .load {
                places.append(load(graph.parameters[Int(node.payload)], operands))
            } else {
                places.append(add(node.operation, node.type, operands, payload: node.payload))
            }
        }
        return places[graph.root]
    }

    /// A load of an element of a parameter.
    package mutating func load(_ parameter: ParameterDeclaration, _ indices: [Int]) -> Int {
        let number: Int
        if let place = parameters.firstIndex(of: parameter) {
            number = place
        } else {
            number = parameters.count
            parameters.append(parameter)
        }
        return intern(
            .init(
                .load, parameter.type.expression, indices.first ?? -1, indices.count > 1 ? indices[1] : -1,
                payload: UInt32(number)))
    }

    /// Adds a term; gives where it is, or where what it comes to is.
    package mutating func add(
        _ operation: ExprOperation, _ type: ExprType, _ operands: [Int], payload: UInt32 = 0
    ) -> Int {
        var operands = operands
        if operation.isCommutative, nodes[operands[0]].operation == .constant, nodes[operands[1]].operation != .constant
        {
            operands.swapAt(0, 1)
        }
        if let simpler = simplified(operation, type, operands) { return simpler }
        return intern(
            .init(
                operation, type, operands.first ?? -1, operands.count > 1 ? operands[1] : -1,
                operands.count > 2 ? operands[2] : -1, payload: payload))
    }

    /// A constant.
    mutating func constant(_ type: ExprType, _ bits: UInt32) -> Int { intern(.init(.constant, type, payload: bits)) }

    private mutating func intern(_ node: ExprGraph.Node) -> Int {
        if let place = known[node] { return place }
        nodes.append(node)
        known[node] = nodes.count - 1
        return nodes.count - 1
    }

    /// The graph of one result: what it needs, in the order in which it needs it.
    package func graph(of root: Int) -> ExprGraph { graph(of: [root]).graph }

    /// The graph that has several results, the last of them at its end, and where each is.
    package func graph(of roots: [Int]) -> (graph: ExprGraph, places: [Int]) {
        var order: [Int] = []
        var places = [Int](repeating: -1, count: nodes.count)
        // A list of what is left to do, and no recursion: a long sum is no reason to run out of stack.
        for root in roots {
            var pending = [root]
            while let next = pending.last {
                if places[next] >= 0 {
                    pending.removeLast()
                    continue
                }
                let missing = nodes[next].operands.filter { places[$0] < 0 }
                if missing.isEmpty {
                    places[next] = order.count
                    order.append(next)
                    pending.removeLast()
                } else {
                    pending.append(contentsOf: missing.reversed())
                }
            }
        }
        var used: [ParameterDeclaration] = []
        let compact = order.map { place in
            var node = nodes[place]
            if node.a >= 0 { node.a = Int32(places[Int(node.a)]) }
            if node.b >= 0 { node.b = Int32(places[Int(node.b)]) }
            if node.c >= 0 { node.c = Int32(places[Int(node.c)]) }
            if node.operation == .load {
                let parameter = parameters[Int(node.payload)]
                let number = used.firstIndex(of: parameter) ?? used.count
                if number == used.count { used.append(parameter) }
                node.payload = UInt32(number)
            }
            return node
        }
        return (ExprGraph(nodes: compact, parameters: used), roots.map { places[$0] })
    }
}
