extension Mask {
    /// All keys.
    public static let none = Mask { _ in true }

    /// Keys up to the query's own position. Queries are aligned to the end of the keys; those before the first key see nothing:
    /// output 0, LSE −∞.
    public static let causal = Mask { at in at.keyPosition <= at.queryPosition }

    /// Keys at most `left` positions before the query's, so `left + 1` with its own, and any after it.
    public static func window(left: Int, fileID: String = #fileID, line: Int = #line) -> Mask {
        // Positions have 31 bits: a wider window hides nothing.
        if left >= Int(Int32.max) { return .none }
        return Mask(fileID: fileID, line: line) { at in at.queryPosition - at.keyPosition <= Expr(left) }
    }

    /// Keys at most `left` positions before and `right` positions after the query's.
    public static func window(
        left: Int, right: Int, fileID: String = #fileID, line: Int = #line
    ) -> Mask {
        let before = window(left: left, fileID: fileID, line: line)
        if right >= Int(Int32.max) { return before }
        return before
            && Mask(fileID: fileID, line: line) { at in at.keyPosition - at.queryPosition <= Expr(right) }
    }

    /// The first `length` keys of each request: an image's or a system prompt's tokens, or attention's sinks (StreamingLLM, arXiv
    /// 2309.17453).
    public static func prefix(_ length: Int, fileID: String = #fileID, line: Int = #line) -> Mask {
        Mask(fileID: fileID, line: line) { at in at.keyPosition < Expr(length) }
    }

    /// The first keys of each request, as many as a parameter of extent `.perRequest` says (prefix-LM, arXiv 1910.10683).
    public static func prefix(
        _ lengths: Parameter<Int32>, fileID: String = #fileID, line: Int = #line
    ) -> Mask {
        Mask(fileID: fileID, line: line) { at in at.keyPosition < lengths[at.request] }
    }

    /// Keys of the query's own document: a parameter of extent `.perPosition` numbers the documents that are packed in a request.
    public static func documents(
        _ ids: Parameter<Int32>, fileID: String = #fileID, line: Int = #line
    ) -> Mask {
        Mask(fileID: fileID, line: line) { at in ids[at.queryPosition] == ids[at.keyPosition] }
    }

    /// Keys whose distance from the query is a multiple of `stride` (the strided pattern of Sparse Transformers, arXiv 1904.10509).
    public static func strided(_ stride: Int, fileID: String = #fileID, line: Int = #line) -> Mask {
        Mask(fileID: fileID, line: line) { at in (at.queryPosition - at.keyPosition) % Expr(stride) == 0 }
    }

    /// Keys of the query's own block of `size` positions.
    public static func blockDiagonal(_ size: Int, fileID: String = #fileID, line: Int = #line) -> Mask {
        Mask(fileID: fileID, line: line) { at in at.queryPosition / Expr(size) == at.keyPosition / Expr(size) }
    }

    /// A tree of drafted tokens (SpecInfer, arXiv 2305.09781): the queries are the tree's nodes, at most 32, and see all keys before
    /// them and the nodes that a parameter of extent `.perPosition` has bits for: bit `n` of `ancestors[p]` for node `n` at
    /// the node of position `p`, its own bit included.
    public static func tree(
        ancestors: Parameter<Int32>, fileID: String = #fileID, line: Int = #line
    ) -> Mask {
        Mask(fileID: fileID, line: line) { at in
            let node = at.keyPosition - (at.keyLength - at.queryLength)
            return node < 0 || (ancestors[at.queryPosition] >> node) & 1 == 1
        }
    }

    /// Scoring many items after one prompt: a token sees the prompt, whose length a parameter of extent `.perRequest` gives, and its own
    /// item, which one of extent `.perPosition` numbers, up to itself.
    public static func items(
        prompt: Parameter<Int32>, item: Parameter<Int32>, fileID: String = #fileID, line: Int = #line
    ) -> Mask {
        .causal && (.prefix(prompt, fileID: fileID, line: line) || .documents(item, fileID: fileID, line: line))
    }

    /// Keys with a true element in the run's mask: one byte an element, request after request, row-major `[queryLength, kvLength]`.
    public static let custom = Mask(Expr(graph: .mask(.maskBytes)), at: SourcePlace(file: #fileID, line: #line))

    /// As `custom`, but eight elements a byte, lowest bit first, each request padded to a whole byte.
    public static let customPacked = Mask(Expr(graph: .mask(.maskBits)), at: SourcePlace(file: #fileID, line: #line))
}

extension ExprGraph {
    /// The element of the run's mask.
    fileprivate static func mask(_ declaration: ParameterDeclaration) -> ExprGraph {
        var builder = ExprBuilder()
        let root = builder.load(declaration, [])
        return builder.graph(of: root)
    }
}
