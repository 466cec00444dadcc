package import FlashInferCore

/// A batch whose keys are spread over ranks, with its oracle; unread pages and rows hold NaNs, and unused page ids are wild.
package struct KVParallelFixture: Sendable, CustomStringConvertible {
    /// (queries, keys) of each request.
    package var lengths: [(Int, Int)]
    /// How each request is cut.
    package var splits: [KVSplit]
    package var worldSize: Int
    package var pageSize: Int
    package var kvHeads: Int
    package var group: Int
    package var headDim: Int
    package var variant: AttentionVariant
    package var seed: UInt64

    /// A fixture by its parts; every request is cut alike.
    package init(
        lengths: [(Int, Int)], split: KVSplit, worldSize: Int = 4, pageSize: Int = 4, kvHeads: Int = 2, group: Int = 2,
        headDim: Int = 16, variant: AttentionVariant = .causal, seed: UInt64 = 1
    ) {
        self.lengths = lengths
        splits = lengths.map { _ in split }
        (self.worldSize, self.pageSize, self.kvHeads, self.group) = (worldSize, pageSize, kvHeads, group)
        (self.headDim, self.variant, self.seed) = (headDim, variant, seed)
    }

    /// A random batch: of lengths, zero ones too, heads, page sizes and splits.
    package static func random(_ seed: UInt64, headDim: Int = 16) -> KVParallelFixture {
        var g = SeededGenerator(seed: seed)
        let requests = Int.random(in: 1...4, using: &g)
        let isDecode = Bool.random(using: &g)
        let lengths = (0..<requests).map { _ in
            let keys = Bool.random(using: &g) ? Int.random(in: 0...8, using: &g) : Int.random(in: 0...150, using: &g)
            return (isDecode ? 1 : min(keys, Int.random(in: 0...20, using: &g)), keys)
        }
        var fixture = KVParallelFixture(
            lengths: lengths, split: .interleaved(pages: 1), worldSize: Int.random(in: 2...4, using: &g),
            pageSize: [1, 3, 4, 16].randomElement(using: &g)!, kvHeads: Int.random(in: 1...2, using: &g),
            group: Int.random(in: 1...4, using: &g), headDim: headDim,
            variant: AttentionVariant(
                mask: Bool.random(using: &g) ? .causal : .none, logitsSoftCap: Bool.random(using: &g) ? 2 : nil,
                hasSinks: Bool.random(using: &g)), seed: seed)
        fixture.splits = lengths.map { _ in
            let pages = Int.random(in: 1...4, using: &g)
            return [.chunks(pages: pages), .interleaved(pages: pages), .zigzag(pages: pages)].randomElement(using: &g)!
        }
        return fixture
    }

    /// The text shown to people.
    package var description: String {
        "lengths \(lengths) splits \(splits) ranks \(worldSize) page \(pageSize) heads \(kvHeads)x\(group) D \(headDim) "
            + "\(variant.form.mask)\(variant.logitsSoftCap == nil ? "" : " cap")\(variant.hasSinks ? " sinks" : "") seed \(seed)"
    }

    /// The heads.
    package var shape: AttentionShape {
        get throws { try AttentionShape(queryHeads: kvHeads * group, kvHeads: kvHeads, headDimQK: headDim) }
    }

    /// `[requests + 1]`
    package var queryIndptr: [Int32] { lengths.reduce(into: [0]) { $0.append($0[$0.count - 1] + Int32($1.0)) } }

    /// Query rows of all requests.
    package var rows: Int { lengths.reduce(0) { $0 + $1.0 } }

    /// A number of a tensor, the same wherever it is asked for.
    private func number(_ tensor: UInt64, _ a: Int, _ b: Int, _ c: Int, _ d: Int = 0) -> Float {
        var state = seed &* 0x2545_F491_4F6C_DD1D &+ tensor
        for index in [a, b, c, d] { state = (state ^ UInt64(index)) &* 0x9E37_79B9_7F4A_7C15 ^ state >> 29 }
        var g = SeededGenerator(seed: state)
        return Float(Float16(g.normal()))
    }

    /// Element `d` of key (or value) `j`.
    package func key(_ request: Int, _ j: Int, _ head: Int, _ d: Int) -> Float { number(1, request, j, head, d) }
    /// The like for values.
    package func value(_ request: Int, _ j: Int, _ head: Int, _ d: Int) -> Float { number(2, request, j, head, d) }

    /// `[rows, heads, headDim]`
    package var queries: [Float] {
        (0..<rows).flatMap { row in
            (0..<kvHeads * group).flatMap { head in (0..<headDim).map { number(3, row, head, $0) } }
        }
    }

    /// `[heads]`, where the variant has sinks.
    package var sinks: [Float]? { variant.hasSinks ? (0..<kvHeads * group).map { number(4, $0, 0, 0) } : nil }

    /// The keys and values that a rank has, in a paged cache of its own.
    package struct Part: Sendable {
        /// What the rank plans.
        package var geometry: BatchGeometry
        /// `[pages, 2, pageSize, kvHeads, headDim]`
        package var cache: [Float]
        package var pageCount: Int
        /// Ids of the rank's pages, request after request, and a wild one that no request has.
        package var pages: [Int32]
    }

    /// A rank's part; with `worldSize` 1, everything.
    package func part(ofRank rank: Int, worldSize: Int) throws -> Part {
        var g = SeededGenerator(seed: seed &+ UInt64(rank) &* 77)
        let shares = try splits.map { try KVShare($0, pageSize: pageSize, rank: rank, worldSize: worldSize) }
        let counts = zip(shares, lengths).map { $0.pageCount(forLength: $1.1) }
        let pageCount = counts.reduce(0, +) + 3
        let pool = (0..<Int32(pageCount)).shuffled(using: &g)
        let indptr = counts.reduce(into: [Int32(0)]) { $0.append($0[$0.count - 1] + Int32($1)) }
        let row = kvHeads * headDim
        var cache = [Float](repeating: .nan, count: pageCount * 2 * pageSize * row)
        for (request, share) in shares.enumerated() {
            for position in 0..<lengths[request].1 {
                guard let local = share.localPosition(of: position) else { continue }
                let page = Int(pool[Int(indptr[request]) + local / pageSize])
                for (half, element) in [key, value].enumerated() {
                    let start = ((page * 2 + half) * pageSize + local % pageSize) * row
                    for head in 0..<kvHeads {
                        for d in 0..<headDim {
                            cache[start + head * headDim + d] = element(request, position, head, d)
                        }
                    }
                }
            }
        }
        let pages = Array(pool[..<Int(indptr[indptr.count - 1])]) + [1 << 30]
        let geometry = try BatchGeometry.paged(
            shares: shares, queryIndptr: queryIndptr, kvLengths: lengths.map { Int32($0.1) }, pageIndptr: indptr,
            pageIndices: pages, pageCount: pageCount,
            isCausal: variant.form.mask == .causal)
        return Part(geometry: geometry, cache: cache, pageCount: pageCount, pages: pages)
    }

    /// Attention over all keys, by plain loops in float64.
    package func expected() throws -> AttentionOracle.Result {
        let kv = lengths.reduce(into: [Int32(0)]) { $0.append($0[$0.count - 1] + Int32($1.1)) }
        let problem = try AttentionProblem(
            geometry: .ragged(queryIndptr: queryIndptr, kvIndptr: kv), shape: shape, variant: variant,
            queryType: .float32, kvType: .float32)
        let queries = queries
        let (heads, headDim) = (kvHeads * group, headDim)
        var oracle = AttentionOracle(
            problem: problem, query: { token, head, d in Double(queries[(token * heads + head) * headDim + d]) },
            key: { Double(key($0, $1, $2, $3)) }, value: { Double(value($0, $1, $2, $3)) })
        if let sinks { oracle.sinks = sinks }
        return oracle.evaluate()
    }

    /// Where results are further from the oracle than float32 allows: each output by a share of what its weights add up, each LSE by a
    /// share of its scores.
    ///
    /// - Parameter weightError: the relative rounding of each weight before it meets its value, where there is one.
    package func complaints(
        _ output: [Float], _ lse: [Float], _ expected: AttentionOracle.Result, weightError: Double = 0
    ) -> [String] {
        var complaints: [String] = []
        for index in output.indices {
            // Exponentials of scores near `largestScore`, a sum over keys, and the merges of at most 5 states.
            let score = expected.largestScore[index / headDim]
            let bound =
                ((score * 4 + 64) * 0x1p-24 + weightError) * (expected.magnitude[index] + abs(expected.output[index]))
            let error = abs(Double(output[index]) - expected.output[index])
            if !(error <= bound) {
                complaints.append("output[\(index)] \(output[index]) not \(expected.output[index])")
            }
        }
        for index in lse.indices {
            let (found, wanted) = (Double(lse[index]), expected.logSumExp[index])
            if found == wanted { continue }
            let bound = (expected.largestScore[index] * 4 + abs(wanted) + 64) * 0x1p-24
            if !(abs(found - wanted) <= bound) { complaints.append("lse[\(index)] \(found) not \(wanted)") }
        }
        return complaints
    }
}
