package import FlashInferCore

/// A random tree of shared prefixes over one paged cache: as a plain batch, whose sequences name the same pages, and as levels.
package final class CascadeFixture: CustomStringConvertible {
    /// What to make.
    package struct Case: Sendable, CustomStringConvertible {
        package var queryType = DType.float32
        package var cacheType = DType.float32
        package var outputType: DType?
        package var headDim = 32
        package var kvHeads = 2
        package var group = 2
        package var pageSize = 4
        package var variant = AttentionVariant.causal
        /// Levels, the last included.
        package var levels = 3
        /// Sequences.
        package var sequences = 9
        /// Query rows of a sequence, at most.
        package var queries = 1
        /// Pages of a node of the tree, at most; and of a sequence's own.
        package var nodePages = 6
        package var ownPages = 4
        package var seed: UInt64 = 1

        /// A case; every argument not given is an ordinary one.
        package init(
            queryType: DType = .float32, cacheType: DType = .float32, outputType: DType? = nil, headDim: Int = 32,
            kvHeads: Int = 2, group: Int = 2, pageSize: Int = 4, variant: AttentionVariant = .causal, levels: Int = 3,
            sequences: Int = 9, queries: Int = 1, nodePages: Int = 6, ownPages: Int = 4, seed: UInt64 = 1
        ) {
            (self.queryType, self.cacheType, self.outputType) = (queryType, cacheType, outputType)
            (self.headDim, self.kvHeads, self.group, self.pageSize) = (headDim, kvHeads, group, pageSize)
            (self.variant, self.levels, self.sequences, self.queries) = (variant, levels, sequences, queries)
            (self.nodePages, self.ownPages, self.seed) = (nodePages, ownPages, seed)
        }

        package var description: String {
            "q \(queryType) kv \(cacheType) o \(outputType.map { "\($0)" } ?? "-") D \(headDim) heads \(kvHeads)x\(group) page \(pageSize) "
                + "\(variant.name) levels \(levels) sequences \(sequences) of \(queries) pages \(nodePages) + \(ownPages) seed \(seed)"
        }
    }

    package let test: Case
    /// The batch, each sequence with all of its pages.
    package let plain: AttentionProblem
    /// The levels, from the root.
    package let levels: [BatchGeometry]
    /// What must come out.
    package let oracle: AttentionOracle
    /// The cache's pages.
    package let pageCount: Int

    private let queries: AttentionTensor
    private let cache: AttentionTensor
    private let sinks: AttentionTensor?

    package var description: String { test.description }

    /// The same problem over the levels.
    package var composed: AttentionProblem {
        get throws {
            var problem = plain
            problem.geometry = try .composed(levels)
            return problem
        }
    }

    /// Makes a tree from the case's seed: groups of neighbours at every level, some without pages, some of one sequence.
    package init(_ test: Case) throws {
        self.test = test
        var g = SeededGenerator(seed: test.seed)
        let size = test.pageSize
        let queryLengths = (0..<test.sequences).map { _ in
            test.queries == 1 ? 1 : Int.random(in: 0...test.queries, using: &g)
        }
        // Groups of each level, as sequences at which they start: those of a level lie within those of the one before.
        var starts: [[Int]] = []
        for level in 0..<test.levels - 1 {
            var row = [0]
            for sequence in 1..<max(test.sequences, 1) {
                let isParents = level > 0 && starts[level - 1].contains(sequence)
                if isParents || (level > 0 || sequence > 4) && Int.random(in: 0..<3, using: &g) == 0 {
                    row.append(sequence)
                }
            }
            starts.append(row)
        }
        var next: Int32 = 0
        func take(_ count: Int) -> [Int32] {
            defer { next += Int32(count) }
            return (0..<Int32(count)).map { next + $0 }
        }
        var tables = [[Int32]](repeating: [], count: test.sequences)
        var levelTables: [[[Int32]]] = []
        for row in starts {
            var groups: [[Int32]] = []
            for (index, start) in row.enumerated() {
                let end = index + 1 < row.count ? row[index + 1] : test.sequences
                let pages = take(Int.random(in: 0...test.nodePages, using: &g))
                groups.append(pages)
                for sequence in start..<end { tables[sequence] += pages }
            }
            levelTables.append(groups)
        }
        var ownLengths: [Int] = []
        var own: [[Int32]] = []
        for sequence in 0..<test.sequences {
            // At least its queries, as it wrote them itself.
            let keys = queryLengths[sequence] + Int.random(in: 0..<test.ownPages * size, using: &g)
            own.append(take((keys + size - 1) / size))
            ownLengths.append(keys)
            tables[sequence] += own[sequence]
        }
        let shuffled = (0..<2 * next + 3).shuffled(using: &g)
        let pageCount = shuffled.count
        self.pageCount = pageCount
        let queryIndptr = queryLengths.reduce(into: [Int32(0)]) { $0.append($0[$0.count - 1] + Int32($1)) }
        func geometry(_ rows: [Int32], _ tables: [[Int32]], _ last: [Int]) throws -> BatchGeometry {
            try .paged(
                queryIndptr: rows,
                pageIndptr: tables.reduce(into: [0]) { $0.append($0[$0.count - 1] + Int32($1.count)) },
                pageIndices: tables.flatMap { $0.map { shuffled[Int($0)] } } + [.max],
                lastPageLengths: last.map { Int32($0) }, pageSize: size, pageCount: pageCount)
        }
        func lastLength(_ keys: Int) -> Int { keys == 0 ? 0 : (keys - 1) % size + 1 }
        let plainGeometry = try geometry(
            queryIndptr, tables,
            tables.indices.map { sequence in
                ownLengths[sequence] > 0 ? lastLength(ownLengths[sequence]) : tables[sequence].isEmpty ? 0 : size
            })
        var levels = try zip(starts, levelTables).map { row, groups in
            try geometry(
                (row + [test.sequences]).map { queryIndptr[$0] }, groups, groups.map { $0.isEmpty ? 0 : size })
        }
        levels.append(try geometry(queryIndptr, own, ownLengths.map(lastLength)))
        self.levels = levels

        let heads = test.kvHeads * test.group
        let shape = try AttentionShape(queryHeads: heads, kvHeads: test.kvHeads, headDimQK: test.headDim)
        plain = try AttentionProblem(
            geometry: plainGeometry, shape: shape, variant: test.variant, queryType: test.queryType,
            kvType: test.cacheType, outputType: test.outputType)
        let dim = test.headDim
        let queries = try AttentionTensor(test.queryType, [plainGeometry.queryCount, heads, dim])
        for index in 0..<queries.view.elementCount { queries.set(index, Double(g.normal())) }
        let cache = try AttentionTensor(test.cacheType, [pageCount, 2, size, test.kvHeads, dim])
        func element(_ page: Int32, _ part: Int, _ row: Int, _ head: Int, _ d: Int) -> Int {
            (((Int(page) * 2 + part) * size + row) * test.kvHeads + head) * dim + d
        }
        let blocks = plainGeometry.blocks
        for request in 0..<test.sequences {
            for j in 0..<plainGeometry.kvLength(request) {
                let page = blocks.indices[Int(blocks.indptr[request]) + j / size]
                for part in 0..<2 {
                    for head in 0..<test.kvHeads {
                        for d in 0..<dim { cache.set(element(page, part, j % size, head, d), Double(g.normal())) }
                    }
                }
            }
        }
        (self.queries, self.cache) = (queries, cache)
        func cached(_ request: Int, _ part: Int, _ j: Int, _ head: Int, _ d: Int) -> Double {
            let page = blocks.indices[Int(blocks.indptr[request]) + j / size]
            return cache.get(element(page, part, j % size, head, d))
        }
        var oracle = AttentionOracle(
            problem: plain, query: { queries.get(($0 * heads + $1) * dim + $2) },
            key: { cached($0, 0, $1, $2, $3) }, value: { cached($0, 1, $1, $2, $3) })
        if test.variant.hasSinks {
            oracle.sinks = (0..<heads).map { _ in g.normal() }
            let tensor = try AttentionTensor(.float32, [heads])
            for head in 0..<heads { tensor.set(head, Double(oracle.sinks[head])) }
            sinks = tensor
        } else {
            sinks = nil
        }
        self.oracle = oracle
    }

    /// The tensors on a device.
    package func upload(to device: any Device) throws -> Buffers { try Buffers(self, device) }

    /// A fixture's tensors on a device.
    package final class Buffers {
        private let fixture: CascadeFixture
        private let device: any Device
        private let queries: DeviceTensor
        private let cache: DeviceTensor
        private let sinks: DeviceTensor?
        private let output: DeviceTensor
        private let logSumExp: DeviceTensor

        init(_ fixture: CascadeFixture, _ device: any Device) throws {
            (self.fixture, self.device) = (fixture, device)
            queries = try DeviceTensor(fixture.queries, on: device)
            cache = try DeviceTensor(fixture.cache, on: device)
            sinks = try fixture.sinks.map { try DeviceTensor($0, on: device) }
            let shape = fixture.plain.shape
            let rows = fixture.plain.geometry.queryCount
            output = try DeviceTensor(
                AttentionTensor(fixture.plain.outputType, [rows, shape.queryHeads, shape.headDimVO]), on: device)
            logSumExp = try DeviceTensor(AttentionTensor(.float32, [rows, shape.queryHeads]), on: device)
        }

        /// The operation that runs `plan`.
        package func operation(
            _ plan: Plan, in workspace: DeviceTensor, capacity: PlanSize? = nil
        ) throws -> AttentionOperation {
            AttentionOperation(
                queries: queries.view, cache: try .paged(combined: cache.view), output: output.view,
                logSumExp: logSumExp.view, sinks: sinks?.view, plan: plan, workspace: workspace.view.region,
                capacity: capacity)
        }

        /// Workspace of undefined content.
        package func workspace(for size: PlanSize) throws -> DeviceTensor {
            try DeviceTensor(AttentionTensor(.uint8, [device.workspaceByteCount(for: size)]), on: device)
        }

        /// NaN in the results.
        package func poison() throws {
            try output.poison()
            try logSumExp.poison()
        }

        /// What the device's output and LSE hold.
        package func results() throws -> AttentionResult {
            try output.download()
            try logSumExp.download()
            return AttentionResult(output: output.host.elements, logSumExp: logSumExp.host.elements)
        }

        /// Plans, runs twice (counters must be left as they were found), and gives what came out.
        package func run(
            _ problem: AttentionProblem, mode: Planner.Mode = .balanced, processors: Int? = nil
        ) throws -> (result: AttentionResult, plan: Plan) {
            let plan = try Planner.plan(
                problem, traits: device.kernelTraits(for: problem), processors: processors ?? device.limits.processors,
                mode: mode)
            let workspace = try workspace(for: plan.size)
            let operation = try operation(plan, in: workspace)
            for _ in 0..<2 {
                try poison()
                try operation.validate()
                try device.execute(.attention(operation))
            }
            try workspace.download()
            return (try results(), plan)
        }
    }
}

extension CascadeFixture.Case {
    private static let variants: [AttentionVariant] = [
        .causal, .full, AttentionVariant(mask: .causal, hasSinks: true),
        AttentionVariant(mask: .causal, logitsSoftCap: 1.5), AttentionVariant(scale: 0.4),
    ]

    /// Random trees: of two to five levels, with groups of any size, decodes and chunks.
    package static let random: [CascadeFixture.Case] = {
        var g = SeededGenerator(seed: 5)
        let types = AttentionCase.types
        return (0..<60).map { seed in
            let (query, cache) = types[seed % types.count]
            return CascadeFixture.Case(
                queryType: cache == .int8 ? .float32 : query, cacheType: cache == .int8 ? .float32 : cache,
                outputType: seed % 5 == 4 ? .float32 : nil, headDim: [32, 64, 40][seed % 3],
                kvHeads: [1, 2, 3].randomElement(using: &g) ?? 1,
                group: [1, 2, 3, 4, 5, 8].randomElement(using: &g) ?? 1,
                pageSize: [1, 4, 16, 5].randomElement(using: &g) ?? 4, variant: variants[seed % variants.count],
                levels: Int.random(in: 2...5, using: &g), sequences: Int.random(in: 1...14, using: &g),
                queries: seed % 2 == 0 ? 1 : Int.random(in: 2...12, using: &g),
                nodePages: Int.random(in: 1...20, using: &g), ownPages: Int.random(in: 1...8, using: &g),
                seed: UInt64(seed))
        }
    }()

    /// The same as a GPU has them, large enough for tiles of every kind.
    package static let gpu: [CascadeFixture.Case] = {
        var g = SeededGenerator(seed: 6)
        return (0..<40).map { seed in
            let (query, cache) = AttentionCase.gpuTypes[
                seed % 4 == 3 ? [1, 8, 4][seed / 4 % 3] : seed % 2 == 0 ? 0 : 4]
            return CascadeFixture.Case(
                queryType: query, cacheType: cache, outputType: seed % 7 == 6 ? .float32 : nil,
                headDim: [128, 64, 128, 96][seed % 4], kvHeads: [1, 2, 4].randomElement(using: &g) ?? 1,
                group: [1, 4, 8, 5, 3].randomElement(using: &g) ?? 1,
                pageSize: [16, 64, 1, 8, 5].randomElement(using: &g) ?? 16, variant: variants[seed % variants.count],
                levels: Int.random(in: 2...4, using: &g), sequences: [3, 17, 40, 70].randomElement(using: &g) ?? 3,
                queries: seed % 3 == 2 ? 9 : 1, nodePages: [4, 12, 30].randomElement(using: &g) ?? 4,
                ownPages: [1, 4].randomElement(using: &g) ?? 1, seed: UInt64(100 + seed))
        }
    }()

    /// A few small ones for slow tools, each kind of tile among them.
    package static let gpuReduced: [CascadeFixture.Case] = [
        .init(
            queryType: .bfloat16, cacheType: .bfloat16, headDim: 64, kvHeads: 2, group: 4, pageSize: 16, levels: 2,
            sequences: 5, seed: 1),
        .init(
            queryType: .float16, cacheType: .float16, headDim: 128, kvHeads: 1, group: 4, pageSize: 16, levels: 3,
            sequences: 36, nodePages: 9, ownPages: 2, seed: 2),
        .init(
            queryType: .bfloat16, cacheType: .float8E4M3, headDim: 64, kvHeads: 1, group: 5, pageSize: 4,
            variant: AttentionVariant(mask: .causal, hasSinks: true), levels: 3, sequences: 17, queries: 3,
            nodePages: 20, seed: 3),
        .init(
            queryType: .float8E4M3, cacheType: .float8E4M3, headDim: 128, kvHeads: 1, group: 8, pageSize: 16,
            variant: .full, levels: 2, sequences: 20, nodePages: 12, ownPages: 2, seed: 4),
        .init(
            queryType: .bfloat16, cacheType: .bfloat16, outputType: .float32, headDim: 64, kvHeads: 2, group: 1,
            pageSize: 1, levels: 4, sequences: 12, queries: 7, nodePages: 30, seed: 5),
    ]
}
