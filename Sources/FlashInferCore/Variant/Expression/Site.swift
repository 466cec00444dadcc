/// Where attention is evaluated: a query, a key, and what surrounds them. What hooks are given.
public struct Site: Sendable {
    init() {}

    private func number(_ field: SiteField) -> Expr<Int32> {
        Expr(graph: ExprGraph(.init(.site, .int, payload: field.rawValue)))
    }

    /// The request of the batch.
    public var request: Expr<Int32> { number(.request) }
    /// The query head.
    public var head: Expr<Int32> { number(.head) }
    /// The key/value head that the query head uses.
    public var kvHead: Expr<Int32> { number(.kvHead) }
    /// The query's row in its request, from 0.
    public var queryIndex: Expr<Int32> { number(.queryIndex) }
    /// The query's position among the keys: `queryIndex + keyLength − queryLength`, so that the last query stands at the last key. Of
    /// a block-sparse matrix, its row's, aligned to the last column.
    public var queryPosition: Expr<Int32> { number(.queryPosition) }
    /// The key's position in its request; of a block-sparse matrix, its column.
    public var keyPosition: Expr<Int32> { number(.keyPosition) }
    /// The query rows of the request.
    public var queryLength: Expr<Int32> { number(.queryLength) }
    /// The keys of the request.
    public var keyLength: Expr<Int32> { number(.keyLength) }
}

/// A place in Swift code, for messages and for compilers' line directives.
public struct SourcePlace: Sendable, Hashable, CustomStringConvertible {
    /// `Module/File.swift`
    public let file: String
    /// From 1.
    public let line: Int

    /// A place.
    public init(file: String, line: Int) {
        self.file = file
        self.line = line
    }

    /// `Module/File.swift:12`
    public var description: String { "\(file):\(line)" }

    /// Whether it is where a constant of this library is written, which helps nobody find a mistake.
    var isOfLibrary: Bool { file.hasPrefix("FlashInferCore/") }
}
