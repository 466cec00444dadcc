package import FlashInferCore

/// A drawn batch in every way that it may be run: cut anew, in a workspace of a capacity that others have used, and without an LSE.
package struct DrawnCheck {
    private let fixture: AttentionFixture
    private let tolerance: AttentionTolerance
    private let expected: AttentionOracle.Result

    /// What `fixture` must come to, within `tolerance`.
    package init(_ fixture: AttentionFixture, _ tolerance: AttentionTolerance) {
        (self.fixture, self.tolerance, expected) = (fixture, tolerance, fixture.oracle.evaluate())
    }

    /// What is wrong on a device, in words, where work is cut for any number of processors up to `most`.
    package func problems(on device: any Device, processors most: Int) throws -> [String] {
        var g = SeededGenerator(seed: fixture.test.seed &+ 77)
        var problems: [String] = []
        let buffers = try AttentionBuffers(fixture, on: device)
        let traits = try device.kernelTraits(for: fixture.problem)
        let (geometry, granularity) = (fixture.problem.geometry, traits.kvGranularity)
        let modes: [Planner.Mode] = [
            .balanced, .unsplit, .batchInvariant(splitSize: granularity * Int.random(in: 1...4, using: &g)),
        ]
        for mode in modes {
            let processors = Int.random(in: 1...most, using: &g)
            let way = "\(mode) on \(processors)"
            let plan = try buffers.plan(mode: mode, processors: processors)
            // Bounds by chance, not below what there is.
            func loose(_ least: Int) -> Int {
                least + (Bool.random(using: &g) ? 0 : Int.random(in: 0...least + 5, using: &g))
            }
            let longest = (0..<geometry.requestCount).map { geometry.queryLength($0) }.max() ?? 0
            let keys = (0..<geometry.requestCount).map { geometry.kvLength($0) }.max() ?? 0
            let capacity = try Planner.capacity(
                maximumRequests: loose(geometry.requestCount), maximumQueries: loose(geometry.queryCount),
                maximumRequestQueries: loose(longest), maximumKeys: loose(keys),
                maximumBlocks: loose(geometry.blocks.indices.count), shape: fixture.problem.shape, traits: traits,
                processors: processors, mode: mode)
            guard capacity.covers(plan.size) else {
                problems.append("\(way): the capacity \(capacity) does not cover \(plan.size)")
                continue
            }
            let measured = try Planner.measure(fixture.problem, traits: traits, processors: processors, mode: mode)
            if measured != plan.size { problems.append("\(way): measured \(measured), planned \(plan.size)") }
            var first: AttentionResult?
            for (bound, hasLSE) in [(nil, true), (capacity, true), (capacity, false)] {
                let workspace = try buffers.workspace(for: bound ?? plan.size)
                var operation = try buffers.operation(plan, in: workspace, capacity: bound)
                if !hasLSE { operation.logSumExp = nil }
                for _ in 0..<2 {
                    try buffers.poisonResults()
                    try operation.validate()
                    try device.execute(.attention(operation))
                }
                try workspace.download()
                let found = try buffers.results()
                guard hasLSE else {
                    if found.output != first?.output { problems.append("\(way): without an LSE the output differs") }
                    continue
                }
                if let mismatch = tolerance.mismatch(found, expected, fixture.problem) {
                    problems.append("\(way)\(bound == nil ? "" : ", capacity"): \(mismatch)")
                }
                if let first, first != found { problems.append("\(way): another result in another workspace") }
                first = found
            }
        }
        return problems
    }
}

extension CascadeFixture.Case {
    /// A tree of anything, from `seed` alone.
    package static func drawn(from seed: UInt64, types: [(DType, DType)]) -> Self {
        var g = SeededGenerator(seed: seed &* 31 &+ 5)
        func draw<Element>(_ values: [Element]) -> Element { values[Int.random(in: 0..<values.count, using: &g)] }
        // Trees have no scales, which int8 needs.
        var (query, cache) = draw(types)
        if cache == .int8 { cache = query }
        let variant = AttentionVariant(
            mask: draw([.none, .causal, .causal]), logitsSoftCap: draw([nil, nil, 2]),
            scale: draw([nil, nil, 0.4, 1.5]),
            hasSinks: draw([false, false, true]))
        if query == .float8E4M3, cache == .float8E4M3 { query = .float8E4M3 }
        return CascadeFixture.Case(
            queryType: query, cacheType: cache, outputType: draw([nil, nil, .float32]),
            headDim: draw([8, 32, 64, 40, 128]), kvHeads: draw([1, 1, 2, 3]), group: draw([1, 2, 3, 4, 5, 7, 8, 16]),
            pageSize: draw([1, 2, 3, 4, 5, 8, 16, 64]), variant: variant, levels: draw([2, 2, 3, 4, 5]),
            sequences: draw([1, 2, 3, 7, 14, 33]), queries: draw([1, 1, 2, 5, 17]), nodePages: draw([1, 3, 9, 25]),
            ownPages: draw([1, 1, 2, 8]), seed: seed)
    }
}

extension BlockSparseFixture.Case {
    /// A matrix of anything, from `seed` alone.
    package static func drawn(from seed: UInt64, types: [DType]) -> Self {
        var g = SeededGenerator(seed: seed &* 37 &+ 7)
        func draw<Element>(_ values: [Element]) -> Element { values[Int.random(in: 0..<values.count, using: &g)] }
        let position: AttentionVariant.PositionEncoding = draw([
            .none, .none, .none, .alibi, .rope(RoPEParameters(theta: 300)),
        ])
        let variant = AttentionVariant(
            mask: draw([.none, .causal, .custom]), windowLeft: draw([nil, nil, 0, 9, 60]),
            logitsSoftCap: position == .alibi ? nil : draw([nil, nil, 1.5]), scale: draw([nil, nil, 0.3, 2]),
            positionEncoding: position)
        return BlockSparseFixture.Case(
            draw([1, 2, 3, 7, 16, 64, 128, 200]), draw([1, 1, 2, 3, 5, 8, 16, 48, 64, 128, 130]), variant,
            type: draw(types), headDim: draw([8, 64, 64, 128, 40]), kvHeads: draw([1, 2, 3]),
            group: draw([1, 1, 2, 3, 4, 8]), rows: draw([1, 2, 17, 64, 100, 260]),
            columns: draw([1, 5, 64, 100, 310, 700]), maximumBlocks: draw([.max, 1, 3, 30]), seed: seed)
    }
}

extension MLACase {
    /// A latent batch of anything, from `seed` alone.
    package static func drawn(from seed: UInt64) -> MLACase {
        var g = SeededGenerator(seed: seed &* 41 &+ 9)
        func draw<Element>(_ values: [Element]) -> Element { values[Int.random(in: 0..<values.count, using: &g)] }
        var lengths: [(queries: Int, keys: Int)] = []
        for _ in 0..<draw([1, 2, 4]) {
            lengths.append(
                (draw([0, 1, 1, 2, 3, 5]), draw([0, 1, 3, 16, 63, 64, 65, 130, Int.random(in: 0...400, using: &g)])))
        }
        return MLACase(lengths: lengths, heads: draw([1, 2, 5, 8, 16, 16, 24, 128, 32])) {
            ($0.latentDim, $0.ropeDim) = draw([(512, 64), (512, 64), (512, 64), (256, 32), (64, 8)])
            $0.pageSize = draw([1, 2, 3, 8, 16, 32, 48, 64, 64])
            ($0.type, $0.cacheType) = draw([
                (.bfloat16, nil), (.float16, nil), (.bfloat16, .float8E4M3), (.float16, .float8E4M3),
            ])
            ($0.isCausal, $0.isCombined) = (draw([true, true, false]), draw([true, false]))
            ($0.latentScale, $0.ropeScale) = draw([(1, 1), (0.5, 0.5), (0.5, 0.4), (2, 0.25)])
            $0.steepness = draw([1, 1, 6])
            $0.seed = seed
        }
    }
}

extension SelectedPlacesFixture.Case {
    /// A choice of pages of anything, from `seed` alone.
    package static func drawn(from seed: UInt64, types: [DType]) -> Self {
        var g = SeededGenerator(seed: seed &* 43 &+ 11)
        func draw<Element>(_ values: [Element]) -> Element { values[Int.random(in: 0..<values.count, using: &g)] }
        let rope = AttentionVariant(mask: .causal, positionEncoding: .rope(RoPEParameters(theta: 100)))
        let places = draw([true, true, false])
        let positional = [
            AttentionVariant(mask: .causal, windowLeft: draw([0, 7, 50, 90])), rope,
            AttentionVariant(mask: .causal, positionEncoding: .alibi), .causal,
        ]
        let plain = [AttentionVariant.causal, AttentionVariant(mask: .causal, logitsSoftCap: 2)]
        let queryLength = draw([1, 1, 1, 2, 5, 33])
        let pageSize = draw([1, 2, 5, 8, 16, 32])
        // The newest pages are chosen always, and must fit.
        let k = (queryLength - 1 + pageSize - 1) / pageSize + 1 + draw([0, 1, 3, 8])
        return SelectedPlacesFixture.Case(
            draw(types), pageSize: pageSize, queryLength: queryLength, draw(places ? positional : plain),
            hasHeadTables: draw([true, false]), keyPositions: places ? .places : .sequential,
            reduction: draw([.maximum, .sum]), k: k, group: draw([1, 2, 3, 8]), dim: draw([8, 64, 128]),
            lengths: (0..<draw([1, 3, 6])).map { _ in Int.random(in: 1...220, using: &g) })
    }
}
