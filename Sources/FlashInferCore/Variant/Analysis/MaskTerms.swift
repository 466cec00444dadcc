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

extension MaskTerms {
    /// Whether rows far from the first key may see it, and have no run of keys between it and the last one hidden from them for certain:
    /// neighbouring tiles of rows then mostly begin at the same key, and go through the same ones. So of prefixes, strides, trees and
    /// documents, but not of windows and what is made of them.
    ///
    /// Of the mask alone, as kernels are chosen by it, and another batch's parameters must not change which.
    var mayReachFirstKey: Bool {
        let (rows, length, heads) = (128, 1 << 20, 1024)
        // Both are valid whatever the mask.
        guard let geometry = try? BatchGeometry.contiguous(queryLength: length, kvLength: length),
            let shape = try? AttentionShape(queryHeads: heads, kvHeads: heads, headDimQK: 1)
        else { return false }
        let analysis = BlockAnalysis(self, geometry: geometry, shape: shape, values: [:])
        var block = SiteBlock(request: 0, heads: 0..<heads, queries: length - rows..<length, keys: 0..<length)
        block.keys = analysis.visible(block)
        return block.keys.lowerBound == 0 && !block.keys.isEmpty && analysis.runs(block).empty.isEmpty
    }
}

extension MaskTerms: Hashable {
    /// By the mask: all else follows from it.
    static func == (left: MaskTerms, right: MaskTerms) -> Bool { left.graph == right.graph }

    /// Feeds the mask.
    func hash(into hasher: inout Hasher) { hasher.combine(graph) }
}
