import FlashInferCore
import TestSupport
import Testing

/// Trees of shared prefixes: what is found in page tables, and when it is split off.
@Suite struct CascadeTests {
    private static func batch(_ tables: [[Int32]], queries: [Int]? = nil, last: Int = 4) throws -> BatchGeometry {
        let lengths: [Int] = queries ?? tables.map { _ in 1 }
        let queryIndptr: [Int32] = lengths.reduce(into: [0]) { sums, length in
            sums.append(sums[sums.count - 1] + Int32(length))
        }
        let pageIndptr: [Int32] = tables.reduce(into: [0]) { sums, pages in
            sums.append(sums[sums.count - 1] + Int32(pages.count))
        }
        let lastLengths: [Int32] = tables.map { $0.isEmpty ? 0 : Int32(last) }
        return try .paged(
            queryIndptr: queryIndptr, pageIndptr: pageIndptr, pageIndices: tables.flatMap { $0 },
            lastPageLengths: lastLengths, pageSize: 4, pageCount: 100_000)
    }

    private static func problem(_ geometry: BatchGeometry, variant: AttentionVariant = .causal) throws
        -> AttentionProblem
    {
        try AttentionProblem(
            geometry: geometry, shape: AttentionShape(queryHeads: 8, kvHeads: 2, headDimQK: 64), variant: variant,
            queryType: .float16, kvType: .float16)
    }

    @Test func treeOfAPageTable() throws {
        let tree = PrefixTree(
            try Self.batch([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 6], [1, 7], [8], [9, 1], [9, 1]]), isCausal: true)
        let found: [[Int]] = tree.nodes.map { node in
            [node.requests.lowerBound, node.requests.upperBound, node.depth, node.parentDepth, node.parent ?? -1]
        }
        let expected: [[Int]] = [[0, 2, 3, 2, 1], [0, 3, 2, 1, 2], [0, 4, 1, 0, -1], [5, 7, 2, 0, -1]]
        #expect(found == expected)
    }

    /// A page that is not full, or that a query of its own is in, is not shared.
    @Test func onlyWholePagesBeforeTheQueriesAreShared() throws {
        let tables: [[Int32]] = [[1, 2], [1, 2]]
        #expect(PrefixTree(try Self.batch(tables, last: 3), isCausal: true).nodes.map(\.depth) == [1])
        #expect(PrefixTree(try Self.batch(tables), isCausal: true).nodes.map(\.depth) == [2])
        let chunks = try Self.batch(tables, queries: [1, 2])
        #expect(PrefixTree(chunks, isCausal: true).nodes.map(\.depth) == [1])
        #expect(PrefixTree(chunks, isCausal: false).nodes.map(\.depth) == [2])
        let idle = try Self.batch([[1, 2], [7], [1, 2]], queries: [1, 0, 1])
        #expect(PrefixTree(idle, isCausal: true).nodes.map(\.requests) == [0..<3])
    }

    /// The nodes of random trees are exactly the groups that plain comparison finds.
    @Test(arguments: 0..<40) func treesEqualPlainComparison(_ seed: Int) throws {
        var g = SeededGenerator(seed: UInt64(seed))
        let tables = (0..<Int.random(in: 1...12, using: &g)).map { _ in
            (0..<Int.random(in: 0...6, using: &g)).map { _ in Int32.random(in: 0...1, using: &g) }
        }
        let tree = PrefixTree(try Self.batch(tables), isCausal: true)
        func common(_ range: Range<Int>) -> Int {
            var depth = 0
            while range.allSatisfy({ tables[$0].count > depth && tables[$0][depth] == tables[range.lowerBound][depth] })
            {
                depth += 1
            }
            return depth
        }
        var expected: Set<[Int]> = []
        for start in tables.indices {
            for end in start + 2..<max(tables.count + 1, start + 2) {
                let depth = common(start..<end)
                let isWidest =
                    (start == 0 || common(start - 1..<end) < depth)
                    && (end == tables.count || common(start..<end + 1) < depth)
                if depth > 0, isWidest { expected.insert([start, end, depth]) }
            }
        }
        #expect(Set(tree.nodes.map { [$0.requests.lowerBound, $0.requests.upperBound, $0.depth] }) == expected)
        for node in tree.nodes {
            let parent = node.parent.map { tree.nodes[$0] }
            #expect(node.parentDepth == parent?.depth ?? 0)
            #expect(node.depth > node.parentDepth)
            if let parent { #expect(parent.requests.contains(node.requests.lowerBound)) }
        }
    }

    private static func shared(pages: Int, own: Int, sequences: Int) throws -> AttentionProblem {
        let tables: [[Int32]] = (0..<sequences).map { sequence in
            let first = Int32(pages + sequence * own)
            return Array(0..<Int32(pages)) + Array(first..<first + Int32(own))
        }
        return try problem(batch(tables))
    }

    /// Long prefixes of many are split off, short ones and those of one are not; and never where the model says that it is slower.
    @Test func splitsWhereItPays() throws {
        var traits = gpuTraits
        traits.launchTime = 60
        traits.stateTime = 2
        func cascade(_ pages: Int, _ sequences: Int) throws -> Cascade {
            try .discover(Self.shared(pages: pages, own: 8, sequences: sequences), traits: traits, processors: 132)
        }
        #expect(try cascade(8192, 64).isShared)
        #expect(try cascade(8192, 64).problem.geometry.levelCount == 2)
        #expect(try cascade(8192, 64).savedKeys == 8192 * 4 * 63)
        #expect(try !cascade(1, 64).isShared)
        #expect(try !cascade(8192, 1).isShared)
        for pages in [0, 1, 4, 16, 64, 256, 1024, 4096] {
            for sequences in [1, 2, 3, 8, 40, 200] {
                let found = try cascade(pages, sequences)
                #expect(found.time <= found.plainTime)
                #expect(found.isShared == (found.problem.geometry.levelCount > 1))
            }
        }
    }

    /// Variants that need positions stay plain, and are refused over levels.
    @Test func positionsAreRefused() throws {
        let plain = try Self.shared(pages: 4000, own: 2, sequences: 50)
        let levels = try Cascade.discover(plain, traits: gpuTraits, processors: 132).problem.geometry
        #expect(levels.levelCount == 2)
        for variant in [
            AttentionVariant(mask: .causal, windowLeft: 5), AttentionVariant(positionEncoding: .alibi),
            AttentionVariant(mask: .custom), AttentionVariant(positionEncoding: .rope(RoPEParameters())),
        ] {
            #expect(throws: FlashInferError.self) { try Self.problem(levels, variant: variant) }
            var problem = plain
            problem.variant = variant
            if variant.form.mask == .custom { continue }
            #expect(try !Cascade.discover(problem, traits: gpuTraits, processors: 132).isShared)
        }
    }

    @Test func levelsMustMatch() throws {
        let two = try Self.batch([[1], [2]])
        #expect(throws: FlashInferError.self) { try BatchGeometry.composed([]) }
        #expect(throws: FlashInferError.self) { try BatchGeometry.composed([try Self.batch([[1]]), two]) }
        let ragged = try BatchGeometry.ragged(queryIndptr: [0, 2], kvIndptr: [0, 5])
        #expect(throws: FlashInferError.self) { try BatchGeometry.composed([ragged, two]) }
        #expect(try BatchGeometry.composed([two]) == two)
        let both = try BatchGeometry.composed([try Self.batch([[5, 6]], queries: [2]), two])
        #expect(both.levelCount == 2)
        #expect(both.queryCount == 2)
        #expect((0..<3).map { both.firstQuery($0) } == [0, 0, 1])
        #expect(both.requests(ofLevel: 0) == 0..<1)
        #expect(both.requests(ofLevel: 1) == 1..<3)
        #expect(throws: FlashInferError.self) { try BatchGeometry.composed([both, two]) }
    }
}
