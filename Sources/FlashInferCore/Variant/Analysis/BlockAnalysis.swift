/// What a mask shows of a block of queries and keys.
public enum BlockKind: Sendable, Hashable {
    /// Nothing.
    case empty
    /// Perhaps something, perhaps not all.
    case partial
    /// All.
    case full
}

/// A block of a request's queries and keys, for some query heads.
package struct SiteBlock: Hashable, Sendable {
    package var request: Int
    package var heads: Range<Int>
    /// Rows of the request.
    package var queries: Range<Int>
    /// Keys of the request.
    package var keys: Range<Int>

    package init(request: Int, heads: Range<Int>, queries: Range<Int>, keys: Range<Int>) {
        (self.request, self.heads, self.queries, self.keys) = (request, heads, queries, keys)
    }
}

/// Interval arithmetic over blocks of a batch: which of them a mask leaves empty, and which it shows in full.
///
/// Conservative for every mask: a block is called empty or full only if it is. Exact for conditions on sums of the site's
/// numbers, such as causal, window and prefix, for their conjunctions, and for documents that are numbered in order: those are solved for
/// the key (``KeySolver``), others found by halving.
package final class BlockAnalysis: Sendable {
    private let terms: MaskTerms
    private let geometry: BatchGeometry
    let group: Int
    /// Of each parameter: what is known of its elements.
    let tables: [RangeTable?]
    /// The mask's conditions solved for the key, where they can be.
    let solver: KeySolver?

    var graph: ExprGraph { terms.graph }
    private let columnOffset: Int?
    private let isSequential: Bool
    private let columns: Int

    /// An analysis of `mask` over a batch.
    ///
    /// - Parameter values: the parameters that are known when planning.
    package convenience init(
        _ mask: ExprGraph, geometry: BatchGeometry, shape: AttentionShape, values: [String: ParameterValue] = [:]
    ) {
        self.init(MaskTerms(mask), geometry: geometry, shape: shape, values: values)
    }

    /// An analysis of a mask whose terms are known.
    init(
        _ terms: MaskTerms, geometry: BatchGeometry, shape: AttentionShape, values: [String: ParameterValue]
    ) {
        self.terms = terms
        self.geometry = geometry
        group = shape.group
        tables = terms.graph.parameters.map { parameter in
            values[parameter.name]?.ranges(rows: parameter.extent.rows(geometry, shape))
        }
        columns = geometry.blocks.blockLimit * geometry.blocks.blockSize
        columnOffset = geometry.blocks.keyPositions == .columns ? columns - geometry.queryCount : nil
        isSequential = geometry.blocks.keyPositions == .sequential
        let longest = geometry.blocks.lengths.reduce(Int32(0), Swift.max)
        let limit = [Int(longest), geometry.queryCount, geometry.requestCount, shape.queryHeads].reduce(1, Swift.max)
        solver = isSequential && limit < KeySolver.limit ? terms.solver : nil
    }

    /// The query rows and the keys of a request.
    @inline(__always)
    func lengths(_ request: Int) -> (queries: Int, keys: Int) {
        (geometry.queryLength(request), geometry.kvLength(request))
    }

    /// What a block shows.
    package func kind(_ block: SiteBlock) -> BlockKind {
        if block.queries.isEmpty || block.keys.isEmpty || block.heads.isEmpty { return .empty }
        let result = withUnsafeTemporaryAllocation(of: Interval.self, capacity: graph.nodes.count) { values in
            evaluate(Ranges(block, self), into: values)
        }
        return result.isFalse ? .empty : result.isTrue ? .full : .partial
    }

    /// The least range that has every key of `keys` which the analysis does not call hidden from the block's queries; empty where all are.
    package func visible(_ block: SiteBlock) -> Range<Int> {
        if let seen = solve(block) {
            let hull = seen.hull
            if hull.isEmpty { return block.keys.lowerBound..<block.keys.lowerBound }
            // From and to multiples of a leaf, where kernels' blocks begin too.
            let first = Swift.max(hull.lowerBound / Self.leaf * Self.leaf, block.keys.lowerBound)
            let end = (hull.upperBound + Self.leaf - 1) / Self.leaf * Self.leaf
            return first..<Swift.min(end, block.keys.upperBound)
        }
        guard let first = edge(block, fromEnd: false), let last = edge(block, fromEnd: true) else {
            return block.keys.lowerBound..<block.keys.lowerBound
        }
        return first..<last + 1
    }

    /// Keys below which blocks are not halved.
    private static let leaf = 16

    /// The first, or last, key that may be seen: halves that are empty are left out.
    private func edge(_ block: SiteBlock, fromEnd: Bool) -> Int? {
        let kind = kind(block)
        if kind == .empty { return nil }
        let keys = block.keys
        if kind == .full || keys.count <= Self.leaf { return fromEnd ? keys.upperBound - 1 : keys.lowerBound }
        // At multiples of a leaf, where kernels' blocks begin too.
        let half = keys.lowerBound + (keys.count + 1) / 2
        let middle = half / Self.leaf * Self.leaf > keys.lowerBound ? half / Self.leaf * Self.leaf : half
        var (near, far) = (block, block)
        near.keys = fromEnd ? middle..<keys.upperBound : keys.lowerBound..<middle
        far.keys = fromEnd ? keys.lowerBound..<middle : middle..<keys.upperBound
        return edge(near, fromEnd: fromEnd) ?? edge(far, fromEnd: fromEnd)
    }

    /// The site's numbers over a block.
    struct Ranges {
        let request: Int
        let values: (SIMD8<Double>, SIMD8<Double>)
        /// Query position minus query index.
        let offset: Int

        init(_ block: SiteBlock, _ analysis: BlockAnalysis) {
            let (request, geometry, columns) = (block.request, analysis.geometry, analysis.columnOffset)
            self.request = request
            let (queryLength, keyLength) = (geometry.queryLength(request), geometry.sequenceLength(request))
            let offset =
                columns.map { $0 + Int(geometry.queryIndptr[request]) } ?? keyLength - queryLength
            self.offset = offset
            // Whatever order a block-sparse matrix's keys come in, they are columns of it, and chosen pages' keys are the sequence's.
            let keys =
                analysis.isSequential
                ? block.keys : 0..<Swift.max(columns == nil ? keyLength : analysis.columns, 1)
            let (heads, group, queries) = (block.heads, analysis.group, block.queries)
            // In the order of the fields.
            values = (
                SIMD8(
                    Double(request), Double(heads.lowerBound), Double(heads.lowerBound / group),
                    Double(queries.lowerBound), Double(queries.lowerBound + offset), Double(keys.lowerBound),
                    Double(queryLength), Double(keyLength)),
                SIMD8(
                    Double(request), Double(heads.upperBound - 1), Double((heads.upperBound - 1) / group),
                    Double(queries.upperBound - 1), Double(queries.upperBound - 1 + offset),
                    Double(keys.upperBound - 1), Double(queryLength), Double(keyLength))
            )
        }

        subscript(_ payload: UInt32) -> Interval { Interval(values.0[Int(payload)], values.1[Int(payload)]) }

        /// The least and the largest value of a sum: exact, as its numbers are independent once the query's two are one.
        func bounds(_ sum: Affine) -> Interval {
            var coefficients = sum.coefficients
            let (index, position) = (Int(SiteField.queryIndex.rawValue), Int(SiteField.queryPosition.rawValue))
            let constant = sum.constant + coefficients[position] * offset
            coefficients[index] += coefficients[position]
            coefficients[position] = 0
            let factors = SIMD8<Double>(coefficients)
            let (x, y) = (factors * values.0, factors * values.1)
            return Interval(
                Double(constant) + x.replacing(with: y, where: y .< x).sum(),
                Double(constant) + x.replacing(with: y, where: y .> x).sum())
        }
    }

    private func evaluate(_ site: Ranges, into values: UnsafeMutableBufferPointer<Interval>) -> Interval {
        for (place, node) in graph.nodes.enumerated() {
            // Terms without an operand read the first value, which then is not looked at.
            let a = node.a >= 0 ? values[Int(node.a)] : Interval(0)
            let b = node.b >= 0 ? values[Int(node.b)] : Interval(0)
            values[place] = value(node, place, a, b, node.c >= 0 ? values[Int(node.c)] : a, site)
        }
        return values[graph.root]
    }

    func value(
        _ node: ExprGraph.Node, _ place: Int, _ a: Interval, _ b: Interval, _ c: Interval, _ site: Ranges
    ) -> Interval {
        switch node.operation {
        case .constant:
            switch node.type {
            case .float:
                return node.float.isNaN ? .unknown(.float) : Interval(Double(node.float))
            case .int: return Interval(Double(node.int))
            case .bool: return Interval(node.bool ? 1 : 0)
            }
        case .score: return .unknown(.float)
        case .site: return site[node.payload]
        case .load:
            guard let table = tables[Int(node.payload)] else { return .unknown(node.type) }
            let row: Interval
            switch graph.parameters[Int(node.payload)].extent {
            case .perPosition: row = Interval(Double(site.request))
            case .perHeadTable: row = b
            default: row = Interval(0)
            }
            return table.range(rows: row, columns: a)
        case .less, .lessEqual, .equal:
            if let difference = terms.differences[place], !a.mayWrap, !b.mayWrap {
                return .comparison(node.operation, difference: site.bounds(difference))
            }
            return .comparison(node.operation, a, b)
        case .and: return Interval(Swift.min(a.low, b.low), Swift.min(a.high, b.high))
        case .or: return Interval(Swift.max(a.low, b.low), Swift.max(a.high, b.high))
        case .not: return Interval(1 - a.high, 1 - a.low)
        case .select: return a.isTrue ? b : a.isFalse ? c : b.joined(c)
        case .toFloat: return Interval(Double(Float(a.low)), Double(Float(a.high)))
        case .toInt:
            let (low, high) = (
                Double(ConstantFolding.truncated(Float(a.low))), Double(ConstantFolding.truncated(Float(a.high)))
            )
            return a.mayBeNaN ? Interval(Swift.min(low, 0), Swift.max(high, 0)) : Interval(low, high)
        default:
            return node.type == .float ? .float(node.operation, a, b) : .int(node.operation, a, b)
        }
    }
}

extension BlockAnalysis: Equatable {
    /// An analysis follows from its problem, so what has one compares its problem.
    package static func == (left: BlockAnalysis, right: BlockAnalysis) -> Bool { true }
}
