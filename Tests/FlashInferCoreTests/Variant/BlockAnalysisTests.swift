import FlashInferCore
import TestSupport
import Testing

/// What analysis says of blocks, against every pair in them.
@Suite struct BlockAnalysisTests {
    private struct Bench {
        let geometry: BatchGeometry
        let shape: AttentionShape
        let values: [String: ParameterValue]
        let mask: ExprGraph
        let analysis: BlockAnalysis
        let oracle: ExprOracle

        init(_ mask: Mask, _ values: (BatchGeometry, AttentionShape) -> [String: ParameterValue]) throws {
            geometry = try .ragged(queryIndptr: [0, 50, 90, 91, 97], kvIndptr: [0, 120, 160, 230, 233])
            shape = try AttentionShape(queryHeads: 4, kvHeads: 2, headDimQK: 8)
            self.values = values(geometry, shape)
            self.mask = mask.expression.graph
            analysis = BlockAnalysis(self.mask, geometry: geometry, shape: shape, values: self.values)
            var oracle = ExprOracle(self.mask)
            oracle.bind(self.values, geometry, shape)
            self.oracle = oracle
        }

        /// By looking at each pair.
        func kind(_ block: SiteBlock) -> BlockKind {
            var (shown, hidden) = (false, false)
            var site = OracleSite()
            site.request = block.request
            (site.queryLength, site.keyLength) = (geometry.queryLength(block.request), geometry.kvLength(block.request))
            for head in block.heads {
                (site.head, site.kvHead) = (head, head / shape.group)
                for query in block.queries {
                    (site.queryIndex, site.queryPosition) = (query, query + site.keyLength - site.queryLength)
                    for key in block.keys {
                        site.keyPosition = key
                        if oracle(site).bool { shown = true } else { hidden = true }
                    }
                }
            }
            return !shown ? .empty : hidden ? .partial : .full
        }

        func randomBlock(_ random: inout SeededGenerator) -> SiteBlock {
            let request = Int.random(in: 0..<geometry.requestCount, using: &random)
            func range(_ count: Int, _ longest: Int) -> Range<Int> {
                let start = Int.random(in: 0..<count, using: &random)
                return start..<min(start + Int.random(in: 1...longest, using: &random), count)
            }
            return SiteBlock(
                request: request, heads: range(4, 4), queries: range(geometry.queryLength(request), 24),
                keys: range(geometry.kvLength(request), 40))
        }
    }

    /// Exact where it is promised.
    @Test func builtInsAreExact() throws {
        let documents = Parameter<Int32>("documents", .perPosition)
        let prompt = Parameter<Int32>("prompt", .perRequest)
        let masks: [Mask] = [
            .none, .causal, .window(left: 13), .window(left: 9, right: 4), .causal && .window(left: 20), .prefix(17),
            .prefix(prompt), .causal || .prefix(17), .documents(documents), .causal && .prefix(30), !.causal,
            Mask { at in at.head < 2 }, Mask { at in at.queryIndex + 2 * at.keyPosition < 100 },
            Mask { at in at.keyLength - at.keyPosition <= 10 },
            Mask { at in abs(at.queryPosition - at.keyPosition) <= 6 },
        ]
        var random = SeededGenerator(seed: 7)
        for mask in masks {
            let bench = try Bench(mask) { geometry, shape in
                VariantSample.packedDocuments(geometry, shape).merging(["prompt": [5, 40, 0, 2]]) { a, _ in a }
            }
            for _ in 0..<300 {
                let block = bench.randomBlock(&random)
                #expect(bench.analysis.kind(block) == bench.kind(block), "\(mask) of \(block)")
            }
        }
    }

    /// Never wrong for any mask: empty is empty and full is full.
    @Test(arguments: 0..<150) func randomMasksAreSafe(_ seed: Int) throws {
        var random = RandomExpression(seed: UInt64(seed))
        let mask = Mask { random.bool($0, depth: 4) }
        var values = random
        let bench = try Bench(mask) { values.values($0, $1) }
        for _ in 0..<60 {
            let block = bench.randomBlock(&random.random)
            let (said, found) = (bench.analysis.kind(block), bench.kind(block))
            #expect(said == .partial || said == found, "\(mask) of \(block)")
        }
    }

    @Test(arguments: 0..<60) func visibleRangesHoldAllThatIsSeen(_ seed: Int) throws {
        var random = RandomExpression(seed: UInt64(seed))
        let mask = Mask { random.bool($0, depth: 3) }
        var values = random
        let bench = try Bench(mask) { values.values($0, $1) }
        for _ in 0..<20 {
            let block = bench.randomBlock(&random.random)
            let visible = bench.analysis.visible(block)
            for key in block.keys where !visible.contains(key) {
                var one = block
                one.keys = key..<key + 1
                #expect(bench.kind(one) == .empty, "\(mask), key \(key) of \(block)")
            }
        }
    }

    /// What kernels are told to leave out shows nothing, and where they are told to leave out the mask all is shown.
    @Test(arguments: 0..<60) func runsAreSafe(_ seed: Int) throws {
        var random = RandomExpression(seed: UInt64(seed))
        let mask = Mask { random.bool($0, depth: 3) }
        var values = random
        let bench = try Bench(mask) { values.values($0, $1) }
        for _ in 0..<20 {
            var block = bench.randomBlock(&random.random)
            block.keys = 0..<bench.geometry.kvLength(block.request)
            let runs = bench.analysis.runs(block)
            for (keys, kind) in [(runs.empty, BlockKind.empty), (runs.full, .full)] where !keys.isEmpty {
                var part = block
                part.keys = keys
                #expect(bench.kind(part) == kind, "\(mask), keys \(keys) of \(block)")
            }
        }
    }

    @Test func runsOfStreaming() throws {
        let mask: Mask = .window(left: 1023) || .prefix(4)
        let geometry = try BatchGeometry.contiguous(queryLength: 8192, kvLength: 8192)
        let analysis = BlockAnalysis(
            mask.expression.graph, geometry: geometry,
            shape: try AttentionShape(queryHeads: 1, kvHeads: 1, headDimQK: 64))
        let runs = analysis.runs(
            SiteBlock(request: 0, heads: 0..<1, queries: 6144..<6272, keys: 0..<6272))
        #expect(runs.empty == 4..<5121 && runs.full == 5248..<6272)
    }

    /// Masks that are solved for the key have their longest runs to the key.
    @Test func solvedRunsAreExact() throws {
        let documents = Parameter<Int32>("documents", .perPosition), lengths = Parameter<Int32>("lengths", .perRequest)
        for mask: Mask in [
            .window(left: 19) || .prefix(4), .documents(documents), .causal && .documents(documents),
            .items(prompt: lengths, item: documents), .causal || .prefix(lengths), !.causal, .window(left: 3, right: 9),
            !.documents(documents), !(.window(left: 3, right: 9) || .prefix(lengths)),
            Mask { 2 * $0.keyPosition <= $0.queryPosition + 3 }, Mask { $0.queryPosition < 3 * $0.keyPosition - 7 },
            Mask { documents[$0.queryIndex] == documents[$0.keyPosition] || $0.keyPosition == 11 },
        ] {
            let bench = try Bench(mask) { geometry, _ in
                [
                    "documents": VariantSample.packedDocuments(
                        geometry, try! AttentionShape(queryHeads: 1, kvHeads: 1, headDimQK: 8))["documents"]!,
                    "lengths": ParameterValue((0..<geometry.requestCount).map { Int32(9 * $0 + 5) }),
                ]
            }
            var random = RandomExpression(seed: 5)
            for _ in 0..<40 {
                var block = bench.randomBlock(&random.random)
                block.keys = 0..<bench.geometry.kvLength(block.request)
                let runs = bench.analysis.runs(block)
                var (empty, full) = (0, 0)
                var (longestEmpty, longestFull) = (0, 0)
                for key in block.keys {
                    var one = block
                    one.keys = key..<key + 1
                    let kind = bench.kind(one)
                    (empty, full) = (kind == .empty ? empty + 1 : 0, kind == .full ? full + 1 : 0)
                    (longestEmpty, longestFull) = (max(longestEmpty, empty), max(longestFull, full))
                }
                #expect(runs.empty.count == longestEmpty && runs.full.count == longestFull, "\(mask) \(block)")
            }
        }
    }

    /// A document costs what it sees.
    @Test func plansFollowDocuments() throws {
        let (count, length) = (4096, 256)
        let documents = Parameter<Int32>("documents", .perPosition)
        let problem = try AttentionProblem(
            geometry: .contiguous(queryLength: count, kvLength: count),
            shape: AttentionShape(queryHeads: 8, kvHeads: 8, headDimQK: 64),
            variant: AttentionVariant("documents", mask: .causal && .documents(documents)), queryType: .float32,
            kvType: .float32,
            parameters: ["documents": ParameterValue((0..<Int32(count)).map { $0 / Int32(length) })])
        let traits = KernelTraits(
            tiles: [.init(maximumRows: .max, queryRows: 128, kvHeads: 1, fixedCost: 64, keyCost: 1, pairCost: 1)],
            kvGranularity: 64, minimumSplit: 64)
        let plan = try Planner.plan(problem, traits: traits, processors: 4)
        // Two tiles of 128 rows a document: the first sees 128 keys, the second 256.
        #expect(plan.items.reduce(0) { $0 + Int($1.keyCount) } == 8 * (count / length) * (128 + 256))
    }
}
