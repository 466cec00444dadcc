package import FlashInferCore

/// A batch of latent attention to be tested.
package struct MLACase: Sendable, CustomStringConvertible {
    /// Query rows and keys of each request.
    package var lengths: [(queries: Int, keys: Int)]
    /// Query heads.
    package var heads: Int
    /// Elements of values, and of the rest of keys.
    package var latentDim = 512
    package var ropeDim = 64
    package var pageSize = 16
    package var type = DType.bfloat16
    /// The cache's type; the queries' where `nil`.
    package var cacheType: DType?
    package var isCausal = true
    /// Whether both parts of the cache are columns of one tensor, and both parts of queries.
    package var isCombined = false
    package var latentScale: Float = 1
    package var ropeScale: Float = 1
    /// Multiplies the scale of scores, so that maxima rise.
    package var steepness: Float = 1
    package var seed: UInt64 = 1

    /// The text shown to people.
    package var description: String {
        "\(lengths.map { "\($0.queries)/\($0.keys)" }) H \(heads) \(latentDim)+\(ropeDim) page \(pageSize) \(type) "
            + "cache \(cacheType ?? type) \(isCausal ? "causal" : "full")\(isCombined ? " combined" : "") scales \(latentScale) "
            + "\(ropeScale) steep \(steepness)"
    }

    package init(lengths: [(queries: Int, keys: Int)], heads: Int, _ change: (inout MLACase) -> Void = { _ in }) {
        (self.lengths, self.heads) = (lengths, heads)
        change(&self)
    }

    /// Every head count, type and page size with lengths of 0, 1 and odd numbers, and 1 to 17 queries.
    package static var matrix: [MLACase] {
        var cases: [MLACase] = []
        let types: [(DType, DType?)] = [
            (.bfloat16, nil), (.float16, nil), (.bfloat16, .float8E4M3), (.float16, .float8E4M3),
        ]
        for (index, heads) in [16, 32, 64, 128].enumerated() {
            for (number, (type, cacheType)) in types.enumerated() {
                let pageSize = [1, 16, 64, 48][(index + number) % 4]
                cases.append(
                    MLACase(lengths: [(1, 77), (1, 0), (2, 1), (3, 130), (17, 19)], heads: heads) {
                        ($0.type, $0.cacheType, $0.pageSize) = (type, cacheType, pageSize)
                        ($0.isCausal, $0.isCombined) = (number != 1, (index + number) % 2 == 0)
                        if cacheType != nil { ($0.latentScale, $0.ropeScale) = (0.5, index % 2 == 0 ? 0.5 : 0.4) }
                        $0.seed = UInt64(10 * index + number)
                    })
            }
        }
        return cases
    }

    /// Long enough to be cut, steep scores, and shapes that only the general kernels take.
    package static let large: [MLACase] = [
        MLACase(lengths: [(1, 1500), (1, 700), (1, 33)], heads: 128) { ($0.pageSize, $0.seed) = (64, 101) },
        MLACase(lengths: [(1, 1700), (4, 900)], heads: 16) { ($0.pageSize, $0.seed) = (32, 102) },
        MLACase(lengths: [(2, 800)], heads: 96) { ($0.steepness, $0.seed) = (20, 103) },
        MLACase(lengths: [(5, 600), (1, 1100)], heads: 40) { ($0.type, $0.steepness, $0.seed) = (.float16, 8, 104) },
        MLACase(lengths: [(1, 300), (6, 90)], heads: 24) { ($0.latentDim, $0.ropeDim, $0.seed) = (256, 32, 105) },
        MLACase(lengths: [(1, 640)], heads: 128) { ($0.pageSize, $0.ropeScale, $0.seed) = (8, 0.75, 106) },
        MLACase(lengths: [(1, 500), (1, 12)], heads: 20) { ($0.pageSize, $0.seed) = (3, 107) },
    ]

    /// A few small ones, for the emulated GPU and compute-sanitizer.
    package static let reduced: [MLACase] = [
        MLACase(lengths: [(1, 40), (1, 0), (2, 67)], heads: 16) { ($0.pageSize, $0.seed) = (16, 201) },
        MLACase(lengths: [(1, 131), (2, 33)], heads: 128) { ($0.pageSize, $0.isCombined, $0.seed) = (32, true, 202) },
        MLACase(lengths: [(3, 70)], heads: 32) { ($0.type, $0.pageSize, $0.seed) = (.float16, 5, 203) },
        MLACase(lengths: [(2, 90)], heads: 96) { ($0.pageSize, $0.steepness, $0.seed) = (8, 30, 204) },
        MLACase(lengths: [(1, 300), (1, 200)], heads: 128) { ($0.pageSize, $0.seed) = (64, 205) },
        MLACase(lengths: [(2, 50)], heads: 16) {
            ($0.cacheType, $0.latentScale, $0.ropeScale, $0.seed) = (.float8E4M3, 0.5, 0.4, 206)
        },
        // Of one scale, which Hopper's kernel takes.
        MLACase(lengths: [(1, 200), (2, 70)], heads: 128) {
            ($0.cacheType, $0.pageSize, $0.latentScale, $0.ropeScale, $0.seed) = (.float8E4M3, 16, 0.5, 0.5, 207)
        },
        MLACase(lengths: [(2, 140)], heads: 16) {
            ($0.cacheType, $0.latentScale, $0.ropeScale, $0.seed) = (.float8E4M3, 0.5, 0.5, 208)
        },
        // Rows that two blocks copy for each other.
        MLACase(lengths: [(1, 150)], heads: 128) { ($0.pageSize, $0.seed) = (3, 209) },
        // Few rows, of several queries, and some more beside them.
        MLACase(lengths: [(3, 200), (1, 333), (7, 40)], heads: 5) {
            ($0.pageSize, $0.isCombined, $0.steepness, $0.seed) = (64, true, 30, 210)
        },
    ]
}

/// The tensors of a case on the host, poisoned wherever nothing may be read, and its oracle.
package final class MLAFixture {
    /// The case, and what is to be planned.
    package let test: MLACase
    package let problem: AttentionProblem
    /// What must come out.
    package let oracle: AttentionOracle
    /// Nope and rope queries, ckv and kpe: views of one tensor each, or of two.
    let queries: [AttentionTensor]
    let cache: [AttentionTensor]

    /// Fills the tensors of `test`, from its seed.
    package init(_ test: MLACase) throws {
        self.test = test
        var g = SeededGenerator(seed: test.seed)
        let shape = try AttentionShape.latent(
            queryHeads: test.heads, latentDim: test.latentDim, ropeDim: test.ropeDim)
        // More pages than needed, in any order; the table has one page more than a request's keys fill, of no such page's id.
        let counts = test.lengths.map { ($0.keys + test.pageSize - 1) / test.pageSize }
        let pages = counts.reduce(3, +)
        var free = Array(0..<Int32(pages)).shuffled(using: &g)
        var (queryIndptr, pageIndptr, indices): ([Int32], [Int32], [Int32]) = ([0], [0], [])
        for (count, length) in zip(counts, test.lengths) {
            for _ in 0..<count { indices.append(free.removeLast()) }
            pageIndptr.append(Int32(indices.count))
            queryIndptr.append(queryIndptr[queryIndptr.count - 1] + Int32(length.queries))
        }
        indices += [Int32](repeating: .max, count: 3)
        let geometry = try BatchGeometry.paged(
            queryIndptr: queryIndptr, pageIndptr: pageIndptr, pageIndices: indices,
            kvLengths: test.lengths.map { Int32($0.keys) }, pageSize: test.pageSize, pageCount: pages)
        let cacheType = test.cacheType ?? test.type
        let scale = test.steepness / Float(192).squareRoot()
        let problem = try AttentionProblem(
            geometry: geometry, shape: shape,
            variant: AttentionVariant(mask: test.isCausal ? .causal : .none, scale: scale), queryType: test.type,
            kvType: cacheType)
        self.problem = problem
        let (latent, rope, tokens) = (test.latentDim, test.ropeDim, geometry.queryCount)
        queries = try Self.tensors(test.type, [tokens, test.heads], latent, rope, combined: test.isCombined)
        cache = try Self.tensors(cacheType, [pages, test.pageSize], latent, rope, combined: test.isCombined)
        func put(_ tensors: [AttentionTensor], _ row: Int) {
            let width = latent + rope
            for d in 0..<width {
                let value = Double(g.normal())
                if tensors.count == 1 {
                    tensors[0].set(row * width + d, value)
                } else if d < latent {
                    tensors[0].set(row * latent + d, value)
                } else {
                    tensors[1].set(row * rope + d - latent, value)
                }
            }
        }
        for row in 0..<tokens * test.heads { put(queries, row) }
        let blocks = geometry.blocks
        func place(_ request: Int, _ key: Int) -> Int {
            Int(blocks.indices[Int(blocks.indptr[request]) + key / test.pageSize]) * test.pageSize
                + key % test.pageSize
        }
        for request in 0..<test.lengths.count {
            for key in 0..<test.lengths[request].keys { put(cache, place(request, key)) }
        }
        let (own, stored) = (queries, cache)
        func get(_ tensors: [AttentionTensor], _ row: Int, _ d: Int) -> Double {
            if tensors.count == 1 { return tensors[0].get(row * (latent + rope) + d) }
            return d < latent ? tensors[0].get(row * latent + d) : tensors[1].get(row * rope + d - latent)
        }
        let (latentScale, ropeScale) = (Double(test.latentScale), Double(test.ropeScale))
        let key = { (request: Int, j: Int, _: Int, d: Int) in
            get(stored, place(request, j), d) * (d < latent ? latentScale : ropeScale)
        }
        oracle = AttentionOracle(
            problem: problem, query: { token, head, d in get(own, token * test.heads + head, d) }, key: key, value: key)
    }

    private static func tensors(
        _ type: DType, _ shape: [Int], _ latent: Int, _ rope: Int, combined: Bool
    ) throws -> [AttentionTensor] {
        combined
            ? [try AttentionTensor(type, Shape(shape + [latent + rope]))]
            : [try AttentionTensor(type, Shape(shape + [latent])), try AttentionTensor(type, Shape(shape + [rope]))]
    }

    /// Uploads, plans, runs once, and gives what came out.
    package func run(
        on device: any Device, mode: Planner.Mode = .balanced, processors: Int? = nil
    ) throws -> AttentionResult {
        let queries = try queries.map { try DeviceTensor($0, on: device) }
        let cache = try cache.map { try DeviceTensor($0, on: device) }
        let (tokens, heads) = (problem.geometry.queryCount, test.heads)
        let output = try DeviceTensor(
            AttentionTensor(problem.outputType, [tokens, heads, test.latentDim]), on: device)
        let logSumExp = try DeviceTensor(AttentionTensor(.float32, [tokens, heads]), on: device)
        let plan = try Planner.plan(
            problem, traits: device.kernelTraits(for: problem), processors: processors ?? device.limits.processors,
            mode: mode)
        let workspace = try DeviceTensor(
            AttentionTensor(.uint8, [device.workspaceByteCount(for: plan.size)]), on: device)
        func part(_ tensors: [DeviceTensor], _ index: Int) -> TensorView {
            guard tensors.count == 1 else { return tensors[index].view }
            let range = index == 0 ? 0..<test.latentDim : test.latentDim..<test.latentDim + test.ropeDim
            return tensors[0].view.slice(range, along: 2)
        }
        let operation = MLAOperation(
            nopeQueries: part(queries, 0), ropeQueries: part(queries, 1),
            cache: try .paged(
                latent: part(cache, 0), rope: part(cache, 1), latentScale: test.latentScale, ropeScale: test.ropeScale),
            output: output.view, logSumExp: logSumExp.view, plan: plan, workspace: workspace.view.region)
        // The operation holds views, not memory.
        try withExtendedLifetime((queries, cache)) {
            try operation.validate()
            try device.execute(.mla(operation))
            try workspace.download()
        }
        try output.download()
        try logSumExp.download()
        return AttentionResult(output: output.host.elements, logSumExp: logSumExp.host.elements)
    }
}
