package import FlashInferCore

/// Bounds of pages, scores by them, selection, and attention over what was chosen with its places: each against plain loops in float64.
package final class SelectedPlacesFixture {
    /// What to make.
    package struct Case: Sendable, CustomStringConvertible {
        package var type: DType
        package var kvType: DType
        package var pageSize: Int
        package var queryLength: Int
        package var variant: AttentionVariant
        /// What the variant's mask hides besides causality and window, by positions.
        package var hides: (@Sendable (_ query: Int, _ key: Int) -> Bool)?
        package var hasHeadTables: Bool
        package var keyPositions: KVBlockTable.KeyPositions
        package var reduction: ScorePagesOperation.Reduction
        package var k: Int
        package var group: Int
        package var dim: Int
        /// Keys of each whole sequence: more pages than k, as many, fewer, and none but a few keys.
        package var lengths: [Int]

        package var description: String {
            "\(k) pages of \(pageSize), \(queryLength) rows \(type) kv \(kvType) \(variant.name) mask \(variant.form.mask) window "
                + "\(variant.windowLeft ?? -1) \(hasHeadTables ? "head tables " : "")\(keyPositions) \(reduction) group \(group) D \(dim)"
        }

        package init(
            _ type: DType, kvType: DType? = nil, pageSize: Int, queryLength: Int = 1, _ variant: AttentionVariant,
            hasHeadTables: Bool = false, keyPositions: KVBlockTable.KeyPositions = .places,
            reduction: ScorePagesOperation.Reduction = .maximum, k: Int = 4, group: Int = 2, dim: Int = 64,
            lengths: [Int] = [61, 200, 24, 9, 130, 4],
            hides: (@Sendable (_ query: Int, _ key: Int) -> Bool)? = nil
        ) {
            (self.type, self.pageSize, self.queryLength, self.variant) = (type, pageSize, queryLength, variant)
            (self.hasHeadTables, self.keyPositions, self.reduction) = (hasHeadTables, keyPositions, reduction)
            (self.k, self.group, self.dim, self.lengths, self.hides) = (k, group, dim, lengths, hides)
            self.kvType = kvType ?? type
        }

        /// Everything that asks for positions, in decode and in short chunks; tables of each head with and without.
        package static func all(_ type: DType) -> [Case] {
            let rope = AttentionVariant(mask: .causal, positionEncoding: .rope(RoPEParameters(theta: 100)))
            let strided = AttentionVariant("strided", mask: .causal && .strided(3))
            let isStrided: @Sendable (Int, Int) -> Bool = { ($0 - $1) % 3 != 0 }
            return [
                Case(type, pageSize: 8, AttentionVariant(mask: .causal, windowLeft: 50)),
                Case(type, pageSize: 16, AttentionVariant(mask: .causal, positionEncoding: .alibi), reduction: .sum),
                Case(type, pageSize: 5, rope, group: 1),
                Case(
                    type, pageSize: 8, queryLength: 3, AttentionVariant(mask: .causal, windowLeft: 40),
                    hasHeadTables: true),
                Case(type, pageSize: 16, queryLength: 4, rope, hasHeadTables: true, reduction: .sum, group: 3),
                Case(type, pageSize: 8, .causal, hasHeadTables: true, keyPositions: .sequential),
                Case(type, pageSize: 1, .causal, hasHeadTables: true, keyPositions: .sequential, k: 9, group: 12),
                Case(type, pageSize: 8, strided, hides: isStrided),
                Case(
                    type, pageSize: 16, queryLength: 2,
                    AttentionVariant("strided", mask: .causal && .strided(3), logits: .alibi),
                    hasHeadTables: true, hides: isStrided),
                Case(
                    type, pageSize: 16, queryLength: 70, AttentionVariant(mask: .causal, windowLeft: 90), k: 8,
                    dim: 128,
                    lengths: [300, 97, 70]),
                Case(
                    type, pageSize: 16, queryLength: 70, .causal, hasHeadTables: true, keyPositions: .sequential, k: 8,
                    dim: 128, lengths: [300, 97, 70]),
            ]
        }
    }

    private let test: Case
    private let device: any Device
    private let problem, whole: AttentionProblem
    private let width: Int
    private let pageCounts: [Int]
    private let queries, keys, values, table, lengths, counts: DeviceTensor
    private let bounds, scores, pages, positions, output, logSumExp, workspace: DeviceTensor
    private let plan: Plan
    private var random: SeededGenerator

    private static let kvHeads = 2

    /// Fills what does not change: the cache but for the rows of no key, and the page table.
    package init(_ test: Case, on device: any Device) throws {
        (self.test, self.device) = (test, device)
        var random = SeededGenerator(seed: 11)
        let (requests, heads, dim, size) = (test.lengths.count, Self.kvHeads, test.dim, test.pageSize)
        let kvLengths = test.lengths.map { max($0, test.queryLength) }
        pageCounts = kvLengths.map { ($0 + size - 1) / size }
        width = (pageCounts.max() ?? 0) + 2
        let poolPages = pageCounts.reduce(0, +) + 1
        let queryIndptr = (0...requests).map { Int32($0 * test.queryLength) }
        let shape = try AttentionShape(queryHeads: heads * test.group, kvHeads: heads, headDimQK: dim)
        problem = try AttentionProblem(
            geometry: .selectedPages(
                queryIndptr: queryIndptr, kvLengths: kvLengths.map { Int32($0) }, pagesPerRequest: test.k,
                pageSize: size, pageCount: poolPages, keyPositions: test.keyPositions,
                tableHeads: test.hasHeadTables ? heads : nil),
            shape: shape, variant: test.variant, queryType: test.type, kvType: test.kvType)
        whole = try AttentionProblem(
            geometry: .ragged(
                queryIndptr: queryIndptr,
                kvIndptr: kvLengths.reduce(into: [0]) { $0.append($0[$0.count - 1] + Int32($1)) }),
            shape: shape, variant: test.variant, queryType: test.type, kvType: test.kvType)
        let queries = try AttentionTensor(test.type, [requests * test.queryLength, shape.queryHeads, dim])
        let keys = try AttentionTensor(test.kvType, [poolPages, size, heads, dim])
        let values = try AttentionTensor(test.kvType, keys.view.shape)
        let table = try AttentionTensor(.int32, [requests, width])
        let lengths = try AttentionTensor(.int32, [requests]), counts = try AttentionTensor(.int32, [requests])
        var ids = Array((0..<poolPages).shuffled(using: &random))
        for (request, count) in pageCounts.enumerated() {
            lengths.set(request, Double(kvLengths[request]))
            counts.set(request, Double(count))
            for place in 0..<count {
                let page = ids.removeLast()
                table.set(request * width + place, Double(page))
                for element in 0..<min(kvLengths[request] - place * size, size) * heads * dim {
                    keys.set(page * size * heads * dim + element, Double(random.normal()))
                    values.set(page * size * heads * dim + element, Double(random.normal()))
                }
            }
        }
        func place(_ tensor: AttentionTensor) throws -> DeviceTensor { try DeviceTensor(tensor, on: device) }
        self.queries = try place(queries)
        (self.keys, self.values, self.table) = (try place(keys), try place(values), try place(table))
        (self.lengths, self.counts) = (try place(lengths), try place(counts))
        bounds = try place(
            AttentionTensor(test.kvType.byteCount == 1 ? test.type : test.kvType, [poolPages, 2, heads, dim]))
        scores = try place(
            AttentionTensor(.float32, test.hasHeadTables ? [requests, heads, width] : [requests, width]))
        let chosen: Shape = test.hasHeadTables ? [requests, heads, test.k] : [requests, test.k]
        (pages, positions) = (try place(AttentionTensor(.int32, chosen)), try place(AttentionTensor(.int32, chosen)))
        output = try place(AttentionTensor(problem.outputType, queries.view.shape))
        logSumExp = try place(AttentionTensor(.float32, [requests * test.queryLength, shape.queryHeads]))
        plan = try Planner.plan(
            problem, traits: device.kernelTraits(for: problem), processors: min(device.limits.processors, 8))
        workspace = try place(AttentionTensor(.uint8, [device.workspaceByteCount(for: plan.size)]))
        self.random = random
    }

    /// All operations, enqueued by `capture` once, and run by what it returns for each of some queries; what is wrong.
    package func mismatches(_ capture: (@escaping () throws(FlashInferError) -> Void) throws -> () throws -> Void)
        throws -> [String]
    {
        let cache = try KVCacheView.paged(keys: keys.view, values: values.view)
        let update = UpdatePageBoundsOperation(
            keys: cache.keys, bounds: bounds.view, table: table.view, lengths: lengths.view, appended: lengths.view,
            maximumAppended: (0..<whole.geometry.requestCount).reduce(0) { max($0, whole.geometry.kvLength($1)) })
        let score = ScorePagesOperation(
            queries: queries.view, bounds: bounds.view, table: table.view, lengths: counts.view,
            reduction: test.reduction, scores: scores.view)
        let select = SelectPagesOperation(
            scores: scores.view, lengths: counts.view, transform: .table(table.view),
            recent: (test.queryLength - 1 + test.pageSize - 1) / test.pageSize + 1, pages: pages.view,
            positions: positions.view)
        let operations: [Operation] = [.updatePageBounds(update), .scorePages(score), .selectPages(select)]
        try draw()
        for operation in operations {
            try operation.validate()
            try device.execute(operation)
        }
        func flat(_ tensor: DeviceTensor) throws -> TensorView {
            try TensorView(tensor.view.region, dtype: .int32, shape: [tensor.view.elementCount])
        }
        let attention = AttentionOperation(
            queries: queries.view, cache: cache, output: output.view, logSumExp: logSumExp.view,
            pageIndices: try flat(pages), pagePositions: test.keyPositions == .places ? try flat(positions) : nil,
            plan: plan, workspace: workspace.view.region)
        try attention.validate()
        let device = device
        let run = try capture { () throws(FlashInferError) in
            for operation in operations { try device.execute(operation) }
            try device.execute(.attention(attention))
        }
        var mismatches: [String] = []
        for round in 0..<2 {
            try draw()
            for tensor in [bounds, scores, pages, positions, output, logSumExp] { try tensor.poison() }
            try run()
            for tensor in [bounds, scores, pages, positions, output, logSumExp, workspace] { try tensor.download() }
            for found in [wrongBounds(), wrongScores(), wrongChoice(), wrongAttention()] {
                if let found { mismatches.append("\(test), round \(round): \(found)") }
            }
        }
        return mismatches
    }

    private func draw() throws {
        for element in 0..<queries.host.view.elementCount { queries.host.set(element, Double(random.normal())) }
        try queries.upload(queries.host)
    }

    private func page(_ request: Int, _ place: Int) -> Int { Int(table.host.get(request * width + place)) }

    private func key(_ tensor: DeviceTensor, _ request: Int, _ j: Int, _ head: Int, _ d: Int) -> Double {
        let row = page(request, j / test.pageSize) * test.pageSize + j % test.pageSize
        return tensor.host.get((row * Self.kvHeads + head) * test.dim + d)
    }

    private func bound(_ request: Int, _ place: Int, _ head: Int, _ d: Int) -> (Double, Double) {
        let keys = place * test.pageSize..<min((place + 1) * test.pageSize, whole.geometry.kvLength(request))
        let all = keys.map { key(self.keys, request, $0, head, d) }
        return (all.min() ?? .nan, all.max() ?? .nan)
    }

    private func wrongBounds() -> String? {
        for request in pageCounts.indices {
            for place in 0..<pageCounts[request] {
                for head in 0..<Self.kvHeads {
                    for d in 0..<test.dim {
                        let at = (page(request, place) * 2 * Self.kvHeads + head) * test.dim + d
                        let found = (bounds.host.get(at), bounds.host.get(at + Self.kvHeads * test.dim))
                        let expected = bound(request, place, head, d)
                        if found != expected {
                            return "bounds of page \(place) of request \(request): \(found), not \(expected)"
                        }
                    }
                }
            }
        }
        return nil
    }

    /// The score of a page for a kv head, and how large its terms are.
    private func score(_ request: Int, _ place: Int, _ head: Int) -> (value: Double, size: Double) {
        var (value, size) = (test.reduction == .sum ? 0 : -Double.infinity, 0.0)
        let bounds = (0..<test.dim).map { bound(request, place, head, $0) }
        for row in 0..<test.queryLength {
            for member in 0..<test.group {
                let first = ((request * test.queryLength + row) * Self.kvHeads + head) * test.group + member
                var sum = 0.0
                for d in 0..<test.dim {
                    let q = queries.host.get(first * test.dim + d)
                    let term = max(q * bounds[d].0, q * bounds[d].1)
                    sum += term
                    size += abs(term)
                }
                value = test.reduction == .sum ? value + sum : max(value, sum)
            }
        }
        return (value, size)
    }

    private func wrongScores() -> String? {
        for request in pageCounts.indices {
            for place in 0..<pageCounts[request] {
                let heads = (0..<Self.kvHeads).map { score(request, place, $0) }
                let size = heads.reduce(0) { $0 + $1.size }
                let expected: [Double]
                if test.hasHeadTables {
                    expected = heads.map(\.value)
                } else {
                    expected = [
                        test.reduction == .sum ? heads.reduce(0) { $0 + $1.value } : heads.map(\.value).max() ?? 0
                    ]
                }
                for (head, value) in expected.enumerated() {
                    let found = scores.host.get((request * expected.count + head) * width + place)
                    if !(abs(found - value) <= size * 0x1p-20) {
                        return "score of page \(place), head \(head) of request \(request): \(found), not \(value)"
                    }
                }
            }
        }
        return nil
    }

    /// The places that a row of scores chooses.
    private func chosen(_ request: Int, _ head: Int) -> [Int] {
        let row = test.hasHeadTables ? request * Self.kvHeads + head : request
        let count = pageCounts[request]
        let recent = min((test.queryLength - 1 + test.pageSize - 1) / test.pageSize + 1, test.k, count)
        let order = (0..<count - recent).sorted {
            let (a, b) = (scores.host.get(row * width + $0), scores.host.get(row * width + $1))
            return a == b ? $0 < $1 : a > b
        }
        return order.prefix(min(test.k, count) - recent).sorted() + Array(count - recent..<count)
    }

    private func wrongChoice() -> String? {
        for request in pageCounts.indices {
            for head in 0..<(test.hasHeadTables ? Self.kvHeads : 1) {
                let first = (test.hasHeadTables ? request * Self.kvHeads + head : request) * test.k
                let places = chosen(request, head)
                for index in 0..<test.k {
                    let found = (Int(pages.host.get(first + index)), Int(positions.host.get(first + index)))
                    let expected = index < places.count ? (page(request, places[index]), places[index]) : (-1, -1)
                    if found != expected {
                        return "choice \(index), head \(head) of request \(request): \(found), not \(expected)"
                    }
                }
            }
        }
        return nil
    }

    private func wrongAttention() -> String? {
        let (heads, dim) = (whole.shape.queryHeads, test.dim)
        // Keys as neighbours, or each where it stands.
        let counted = test.keyPositions == .places ? whole : problem
        var masked = whole
        if test.hides != nil {
            masked.variant = AttentionVariant(
                mask: .causal, windowLeft: test.variant.windowLeft,
                positionEncoding: test.variant.form.isALiBi ? .alibi : .none)
        }
        let sets = (0..<pageCounts.count).map { request in (0..<Self.kvHeads).map { Set(chosen(request, $0)) } }
        var oracle = AttentionOracle(
            problem: masked, query: { [queries] in queries.host.get(($0 * heads + $1) * dim + $2) },
            key: { [unowned self] in key(keys, $0, $1, $2, $3) },
            value: { [unowned self] in key(values, $0, $1, $2, $3) })
        oracle.slopes = AttentionVariant.alibiSlopes(heads: heads)
        oracle.selects = { [test] request, head, i, j in
            let query = counted.geometry.sequenceLength(request) - test.queryLength + i
            if let hides = test.hides, hides(query, j) { return false }
            return sets[request][head].contains(j / test.pageSize)
        }
        let found = AttentionResult(output: output.host.elements, logSumExp: logSumExp.host.elements)
        return AttentionTolerance(products: test.type).mismatch(found, oracle.evaluate(), masked)
    }
}
