/// An expression as a list of nodes, each after its operands, the result last.
///
/// Equal terms are one node, constants are folded, what does nothing is left out, and nodes stand in the order in which a walk from
/// the result first needs them: two expressions that were built alike are equal, hash alike and print alike, whatever else was
/// built beside them. It is all that analysis and lowering see.
package struct ExprGraph: Sendable, Hashable {
    /// One term. Operands are places in the list, −1 where there is none.
    package struct Node: Sendable, Hashable {
        package var operation: ExprOperation
        package var type: ExprType
        package var a: Int32 = -1
        package var b: Int32 = -1
        package var c: Int32 = -1
        package var payload: UInt32 = 0

        package init(
            _ operation: ExprOperation, _ type: ExprType, _ a: Int = -1, _ b: Int = -1, _ c: Int = -1,
            payload: UInt32 = 0
        ) {
            self.operation = operation
            self.type = type
            (self.a, self.b, self.c) = (Int32(a), Int32(b), Int32(c))
            self.payload = payload
        }

        /// The operands that there are.
        package var operands: [Int] { [a, b, c].filter { $0 >= 0 }.map { Int($0) } }

        /// The number of a constant, as the types have it.
        package var float: Float { Float(bitPattern: payload) }
        package var int: Int32 { Int32(bitPattern: payload) }
        package var bool: Bool { payload != 0 }
        package var field: SiteField? { SiteField(rawValue: payload) }
    }

    /// The terms; the last is the result.
    package let nodes: [Node]
    /// What loads take their elements from, in order of first use.
    package let parameters: [ParameterDeclaration]

    /// Where the result is.
    package var root: Int { nodes.count - 1 }
    /// The result's type.
    package var type: ExprType { nodes[root].type }

    /// Known-good nodes.
    init(nodes: [Node], parameters: [ParameterDeclaration]) {
        self.nodes = nodes
        self.parameters = parameters
    }

    /// One term without operands.
    init(_ node: Node) { self.init(nodes: [node], parameters: []) }

    /// A constant.
    package static func constant(_ value: Float) -> ExprGraph {
        ExprGraph(Node(.constant, .float, payload: value.bitPattern))
    }
    package static func constant(_ value: Int32) -> ExprGraph {
        ExprGraph(Node(.constant, .int, payload: UInt32(bitPattern: value)))
    }
    package static func constant(_ value: Bool) -> ExprGraph {
        ExprGraph(Node(.constant, .bool, payload: value ? 1 : 0))
    }

    /// A term over others.
    static func term(_ operation: ExprOperation, _ type: ExprType, _ operands: ExprGraph...) -> ExprGraph {
        var builder = ExprBuilder()
        let places = operands.map { builder.append($0) }
        let root = builder.add(operation, type, places)
        return builder.graph(of: root)
    }

    /// The expression with `score` in the place of its score.
    package func replacingScore(by score: ExprGraph) -> ExprGraph {
        var builder = ExprBuilder()
        let place = builder.append(score)
        let root = builder.append(self, score: place)
        return builder.graph(of: root)
    }

    /// Whether any term is this operation.
    package func contains(_ operation: ExprOperation) -> Bool { nodes.contains { $0.operation == operation } }

    /// Whether any term is this number of the site.
    package func contains(_ field: SiteField) -> Bool {
        nodes.contains { $0.operation == .site && $0.payload == field.rawValue }
    }
}
