/// What is found out of a mask once for all batches.
struct MaskTerms: Sendable {
    let graph: ExprGraph
    /// Of each comparison of whole numbers: right minus left, where that is a sum.
    let differences: [Affine?]
    /// The conditions solved for the key, where they can be.
    let solver: KeySolver?

    init(_ graph: ExprGraph) {
        self.graph = graph
        let forms = Affine.forms(of: graph)
        differences = graph.nodes.map { node in
            switch node.operation {
            case .less, .lessEqual, .equal:
                guard graph.nodes[Int(node.a)].type == .int, let left = forms[Int(node.a)],
                    let right = forms[Int(node.b)]
                else { return nil }
                return right.adding(left, times: -1)
            default: return nil
            }
        }
        solver = KeySolver(graph, forms)
    }
}

extension MaskTerms: Hashable {
    /// By the mask: all else follows from it.
    static func == (left: MaskTerms, right: MaskTerms) -> Bool { left.graph == right.graph }

    /// Feeds the mask.
    func hash(into hasher: inout Hasher) { hasher.combine(graph) }
}
