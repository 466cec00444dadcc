extension AttentionVariant {
    /// What the mask shows of each block of a request's queries and keys: what the planner skips, and where no mask is needed.
    ///
    /// ```swift
    /// let picture = try AttentionVariant.causal.explain(.contiguous(queryLength: 512, kvLength: 512))
    /// print(picture)                  // ■ full, ▒ partial, · empty
    /// print(picture.skippedFraction)  // 0.375
    /// ```
    ///
    /// - Parameters:
    ///   - geometry: the lengths.
    ///   - shape: the heads; matters to masks that ask for the head.
    ///   - parameters: elements of the mask's parameters; blocks that depend on others are partial.
    ///   - request: which request of the batch.
    ///   - head: which query head; `nil` for what all of them come to together.
    ///   - block: queries and keys of a block.
    /// - Throws: ``FlashInferError/invalidArgument(_:found:expected:)`` for a request, head or block that there is not.
    public func explain(
        _ geometry: BatchGeometry, shape: AttentionShape? = nil, parameters: [String: ParameterValue] = [:],
        request: Int = 0, head: Int? = nil, block: (queries: Int, keys: Int) = (128, 128)
    ) throws(FlashInferError) -> BlockPicture {
        let single = try AttentionShape(queryHeads: 1, kvHeads: 1, headDimQK: 64)
        let shape = shape ?? single
        guard request >= 0, request < geometry.requestCount else {
            throw .invalidArgument("request", found: "\(request)", expected: "in 0 ..< \(geometry.requestCount)")
        }
        guard head ?? 0 >= 0, head ?? 0 < shape.queryHeads else {
            throw .invalidArgument("head", found: "\(head ?? 0)", expected: "in 0 ..< \(shape.queryHeads)")
        }
        guard block.queries > 0, block.keys > 0 else {
            throw .invalidArgument("block", found: "\(block.queries) × \(block.keys)", expected: "1 or more")
        }
        let analysis = BlockAnalysis(mask.expression.graph, geometry: geometry, shape: shape, values: parameters)
        let heads = head.map { $0..<$0 + 1 } ?? 0..<shape.queryHeads
        let (queries, keys) = (geometry.queryLength(request), geometry.kvLength(request))
        var kinds: [BlockKind] = []
        for query in stride(from: 0, to: queries, by: block.queries) {
            for key in stride(from: 0, to: keys, by: block.keys) {
                kinds.append(
                    analysis.kind(
                        SiteBlock(
                            request: request, heads: heads, queries: query..<min(query + block.queries, queries),
                            keys: key..<min(key + block.keys, keys))))
            }
        }
        let rows = (queries + block.queries - 1) / block.queries
        return BlockPicture(
            name: name, rows: rows, columns: rows == 0 ? 0 : (keys + block.keys - 1) / block.keys, kinds: kinds)
    }
}

/// The blocks of a request's queries and keys, and what a mask shows of each.
public struct BlockPicture: Sendable, Hashable {
    /// The variant's name.
    public let name: String
    /// Blocks of queries.
    public let rows: Int
    /// Blocks of keys.
    public let columns: Int
    /// `[rows, columns]`
    public let kinds: [BlockKind]

    /// What a mask shows of a block.
    public subscript(row: Int, column: Int) -> BlockKind { kinds[row * columns + column] }

    /// Blocks that are not computed, of all.
    public var skippedFraction: Double { fraction(of: .empty) }

    /// Blocks that need no mask, of all.
    public var fullFraction: Double { fraction(of: .full) }

    private func fraction(of kind: BlockKind) -> Double {
        kinds.isEmpty ? 0 : Double(kinds.count { $0 == kind }) / Double(kinds.count)
    }

    /// As an image, a pixel a block: a binary PGM file of full white, partial grey and empty black.
    public var pgm: [UInt8] {
        Array("P5\n\(columns) \(rows)\n255\n".utf8)
            + kinds.map { kind in
                switch kind {
                case .empty: 0
                case .partial: 128
                case .full: 255
                }
            }
    }
}

extension BlockPicture: CustomStringConvertible {
    /// A line for each block of queries, after what is skipped.
    public var description: String {
        func percent(_ fraction: Double) -> String {
            "\(Int((fraction * 1000).rounded()) / 10).\(Int((fraction * 1000).rounded()) % 10) %"
        }
        var text = "\(name): \(percent(skippedFraction)) skipped, \(percent(fullFraction)) without a mask\n"
        for row in 0..<rows {
            for column in 0..<columns {
                switch self[row, column] {
                case .empty: text += "·"
                case .partial: text += "▒"
                case .full: text += "■"
                }
            }
            text += "\n"
        }
        return text
    }
}
