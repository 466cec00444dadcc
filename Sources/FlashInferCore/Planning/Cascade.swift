/// A batch whose shared prefixes are read once, where that pays: found from the page table.
///
/// ```swift
/// let problem = try AttentionProblem(
///     geometry: .paged(…), shape: shape, variant: .causal, queryType: .bfloat16, kvType: .bfloat16)
/// let cascade = try Cascade.discover(problem, on: device)
/// var attention = try PlannedAttention(cascade.problem, on: device)
/// ```
/// The result is the batch's either way; see ``BatchGeometry/composed(_:)`` for what a composed one is.
public struct Cascade: Sendable, Equatable {
    /// The problem with the geometry to plan: composed, or as it was where nothing is to be gained.
    public let problem: AttentionProblem

    /// The time that the model predicts for the batch as it was, in the traits' unit: nanoseconds on a GPU.
    public let plainTime: Double

    /// The time that the model predicts for ``problem``.
    public let time: Double

    /// Keys (of one head) that are read no more, as others read them.
    public let savedKeys: Int

    /// Whether anything is shared.
    public var isShared: Bool { savedKeys > 0 }

    /// Finds the tree of shared page prefixes, and splits off those of its nodes for which that pays by the traits' costs: keys that are
    /// read once and not by each, against the state that every row then has more, and against launches.
    ///
    /// A pure function of its arguments. Where the whole is not predicted to be faster by 1/16, the batch stays as it is: never slower by
    /// the model. Variants that need positions stay as they are too.
    ///
    /// - Parameters:
    ///   - problem: a batch over pages.
    ///   - traits: the device's kernels, from its `kernelTraits(for:)`.
    ///   - processors: the device's, from ``DeviceLimits/processors``.
    ///   - maximumLevels: levels that the result has at most, the last included; 2 or more to share anything.
    ///   - isPadded: whether it always has that many, some of them perhaps empty, so that one captured graph runs all of them.
    /// - Throws: planning's errors for `problem`.
    /// - Complexity: O(requests + pages).
    public static func discover(
        _ problem: AttentionProblem, traits: KernelTraits, processors: Int, maximumLevels: Int = 4,
        isPadded: Bool = false
    ) throws(FlashInferError) -> Cascade {
        let geometry = problem.geometry
        let tree = PrefixTree(geometry, isCausal: problem.variant.form.mask == .causal)
        let prices = PlanTime.Prices(problem, traits, processors: processors)
        let plainTime =
            try PlanTime(problem, traits, processors: processors).total - tree.rereadGain(geometry, prices)
        let empty = isPadded && geometry.levelCount == 1 ? max(maximumLevels - 1, 0) : 0
        if maximumLevels > 1, !tree.nodes.isEmpty, problem.allowsLevels {
            var choice = NodeChoice(tree, geometry, prices)
            choice.limit(toLevels: maximumLevels - 1)
            let levels = choice.levels(geometry)
            if levels.count > 1 {
                var shared = problem
                shared.geometry = try .composed(levels)
                let time = try PlanTime(shared, traits, processors: processors).total
                if time * 17 < plainTime * 16 {
                    if isPadded {
                        shared.geometry = try padded(levels, empty: maximumLevels - levels.count)
                    }
                    return Cascade(
                        problem: shared, plainTime: plainTime, time: time, savedKeys: choice.savedKeys(geometry))
                }
            }
        }
        var same = problem
        if empty > 0, problem.allowsLevels { same.geometry = try padded([geometry], empty: empty) }
        return Cascade(problem: same, plainTime: plainTime, time: plainTime, savedKeys: 0)
    }

    /// The same with a device's kernels.
    ///
    /// - Throws: ``FlashInferError/unsupported(_:device:nearest:)`` where the device has none for `problem`, and planning's errors.
    public static func discover(
        _ problem: AttentionProblem, on device: any Device, maximumLevels: Int = 4, isPadded: Bool = false
    ) throws(FlashInferError) -> Cascade {
        try discover(
            problem, traits: device.kernelTraits(for: problem), processors: device.limits.processors,
            maximumLevels: maximumLevels, isPadded: isPadded)
    }

    /// Levels with some before them that have no keys.
    private static func padded(
        _ levels: [BatchGeometry], empty: Int
    ) throws(FlashInferError) -> BatchGeometry {
        let last = levels[levels.count - 1]
        let none = BatchGeometry.level([], of: last, rows: last.queryCount)
        return try .composed([BatchGeometry](repeating: none, count: empty) + levels)
    }
}

extension AttentionProblem {
    /// Whether the variant may be planned over several levels.
    package var allowsLevels: Bool { reasonAgainstLevels == nil }
}

extension PrefixTree {
    /// What is saved already where neighbours read the same keys at about the same time.
    fileprivate func rereadGain(_ geometry: BatchGeometry, _ prices: PlanTime.Prices) -> Double {
        if prices.rereadShare >= 1 { return 0 }
        // By request: keys that others read too, at the depth of its deepest node.
        var shared = [Int](repeating: 0, count: geometry.requestCount)
        for node in nodes {
            for request in node.requests { shared[request] = max(shared[request], node.depth) }
        }
        return shared.indices.reduce(0) { sum, request in
            guard shared[request] > 0, geometry.queryLength(request) > 0 else { return sum }
            let keys = Double(shared[request] * geometry.blocks.blockSize)
            return sum + keys * prices.key(rows: geometry.queryLength(request)) * (1 - prices.rereadShare)
        }
    }
}

extension BatchGeometry {
    /// Groups of rows with pages of their own, as a level: the rows between them have no keys.
    fileprivate static func level(
        _ groups: [(rows: Range<Int>, pages: ArraySlice<Int32>)], of geometry: BatchGeometry, rows: Int
    ) -> BatchGeometry {
        let blocks = geometry.blocks
        var (queryIndptr, indptr): ([Int32], [Int32]) = ([0], [0])
        var (indices, lengths): ([Int32], [Int32]) = ([], [])
        func add(upTo row: Int, _ pages: ArraySlice<Int32>) {
            queryIndptr.append(Int32(row))
            indices += pages
            indptr.append(Int32(indices.count))
            lengths.append(Int32(pages.count * blocks.blockSize))
        }
        var row = 0
        for group in groups {
            if group.rows.lowerBound > row { add(upTo: group.rows.lowerBound, []) }
            add(upTo: group.rows.upperBound, group.pages)
            row = group.rows.upperBound
        }
        if row < rows || groups.isEmpty { add(upTo: rows, []) }
        return BatchGeometry(
            queryIndptr: queryIndptr,
            blocks: KVBlockTable(
                blockSize: blocks.blockSize, indptr: indptr, indices: indices, lengths: lengths,
                blockLimit: blocks.blockLimit))
    }
}

/// Which nodes of a tree are split off.
private struct NodeChoice {
    private let tree: PrefixTree
    /// By node: pages that nodes above it, or none, have read by then; `nil` where the node is not split off.
    private var starts: [Int?]
    /// By node: how many nodes above it are split off.
    private var depths: [Int]

    /// Splits off, from the leaves up, each node whose keys cost less read once for all of its rows than by what is under it, by more than
    /// its own start and its rows' states cost.
    init(_ tree: PrefixTree, _ geometry: BatchGeometry, _ prices: PlanTime.Prices) {
        self.tree = tree
        var keyTimes = [Double](repeating: 0, count: tree.nodes.count)
        var children = [[Int]](repeating: [], count: tree.nodes.count)
        for (index, node) in tree.nodes.enumerated() {
            if let parent = node.parent { children[parent].append(index) }
        }
        starts = [Int?](repeating: nil, count: tree.nodes.count)
        depths = [Int](repeating: 0, count: tree.nodes.count)
        for (index, node) in tree.nodes.enumerated() {
            // What a key more costs when it is pushed down: the children's prices, and those of requests that are in none.
            var below = 0.0
            var request = node.requests.lowerBound
            func addRequests(before end: Int) {
                while request < end {
                    below += prices.key(rows: geometry.queryLength(request))
                    request += 1
                }
            }
            for child in children[index] {
                addRequests(before: tree.nodes[child].requests.lowerBound)
                below += keyTimes[child]
                request = tree.nodes[child].requests.upperBound
            }
            addRequests(before: node.requests.upperBound)
            let rows = Self.rows(node, geometry).count
            let own = prices.key(rows: rows)
            let keys = Double((node.depth - node.parentDepth) * geometry.blocks.blockSize)
            let isKept =
                keys * (below * prices.rereadShare - own) > prices.start(rows: rows) + prices.states(rows: rows)
            keyTimes[index] = isKept ? own : below
            starts[index] = isKept ? node.parentDepth : nil
        }
        settle()
    }

    /// Puts nodes back that lie deeper than `limit` nodes that are split off.
    mutating func limit(toLevels limit: Int) {
        for index in tree.nodes.indices where depths[index] >= limit { starts[index] = nil }
        settle()
    }

    /// The geometries: level after level of nodes, and what is left of the requests.
    func levels(_ geometry: BatchGeometry) -> [BatchGeometry] {
        let (blocks, rows) = (geometry.blocks, geometry.queryCount)
        var groups: [[(rows: Range<Int>, pages: ArraySlice<Int32>)]] = []
        var read = [Int](repeating: 0, count: geometry.requestCount)
        for (index, node) in tree.nodes.enumerated() {
            guard let start = starts[index] else { continue }
            let level = depths[index]
            while groups.count <= level { groups.append([]) }
            let first = Int(blocks.indptr[node.requests.lowerBound])
            groups[level].append((Self.rows(node, geometry), blocks.indices[first + start..<first + node.depth]))
            for request in node.requests { read[request] = max(read[request], node.depth) }
        }
        if groups.isEmpty { return [geometry] }
        var (indptr, lengths): ([Int32], [Int32]) = ([0], [])
        var indices: [Int32] = []
        indices.reserveCapacity(blocks.indices.count)
        for request in 0..<geometry.requestCount {
            // Requests without rows lie within nodes that they have nothing to do with.
            let pages = geometry.queryLength(request) > 0 ? read[request] : 0
            indices += blocks.indices[Int(blocks.indptr[request]) + pages..<Int(blocks.indptr[request + 1])]
            indptr.append(Int32(indices.count))
            lengths.append(blocks.lengths[request] - Int32(pages * blocks.blockSize))
        }
        let rest = BatchGeometry(
            queryIndptr: geometry.queryIndptr,
            blocks: KVBlockTable(
                blockSize: blocks.blockSize, indptr: indptr, indices: indices, lengths: lengths,
                blockLimit: blocks.blockLimit))
        return groups.map { level in
            .level(level.sorted { $0.rows.lowerBound < $1.rows.lowerBound }, of: geometry, rows: rows)
        } + [rest]
    }

    /// Keys that requests beside the first of each group need not read.
    func savedKeys(_ geometry: BatchGeometry) -> Int {
        var sum = 0
        for (index, node) in tree.nodes.enumerated() {
            guard let start = starts[index] else { continue }
            let groups = node.requests.reduce(0) { $0 + (geometry.queryLength($1) > 0 ? 1 : 0) }
            sum += (node.depth - start) * (groups - 1) * geometry.blocks.blockSize
        }
        return sum
    }

    /// Lets each node start where the nearest above it that is split off ends.
    private mutating func settle() {
        var nearest = [Int?](repeating: nil, count: tree.nodes.count)
        for index in tree.nodes.indices.reversed() {
            nearest[index] = tree.nodes[index].parent.flatMap { starts[$0] == nil ? nearest[$0] : $0 }
            depths[index] = nearest[index].map { depths[$0] + 1 } ?? 0
            if starts[index] != nil { starts[index] = nearest[index].map { tree.nodes[$0].depth } ?? 0 }
        }
    }

    private static func rows(_ node: PrefixTree.Node, _ geometry: BatchGeometry) -> Range<Int> {
        Int(geometry.queryIndptr[node.requests.lowerBound])..<Int(geometry.queryIndptr[node.requests.upperBound])
    }
}
