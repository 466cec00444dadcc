/// Which neighbouring requests of a batch begin with the same pages: a tree, whose nodes are the groups that share more than what
/// holds them does.
///
/// Found from the page table alone, in O(pages): runs of equal pages of neighbours, and a stack over them (the interval tree of
/// longest common prefixes, as over a suffix array). Requests that share and are not neighbours are not found: put them beside
/// each other.
public struct PrefixTree: Sendable, Equatable {
    /// A group of requests that begin with the same pages.
    public struct Node: Sendable, Equatable {
        /// The requests, two or more.
        public var requests: Range<Int>
        /// Pages that all of them begin with.
        public var depth: Int
        /// Pages that the parent's requests begin with; 0 where there is no parent.
        public var parentDepth: Int
        /// The place of the parent, which comes later; `nil` for a root.
        public var parent: Int?
    }

    /// The nodes, children before their parents, and neighbours in order.
    public private(set) var nodes: [Node] = []

    /// The tree of a batch over pages.
    ///
    /// Pages count as shared where each of the requests has all of their keys, before its first query where the mask is causal. Requests
    /// without queries are in no one's way.
    ///
    /// - Complexity: O(requests + pages).
    public init(_ geometry: BatchGeometry, isCausal: Bool) {
        let blocks = geometry.blocks
        guard !blocks.blocksAreRows, blocks.keyPositions == .sequential, blocks.headStride == 0,
            geometry.levelCount == 1
        else { return }
        let requests = (0..<geometry.requestCount).filter { geometry.queryLength($0) > 0 }
        guard requests.count > 1 else { return }
        let limits = requests.map { request in
            let hidden = isCausal ? geometry.queryLength(request) - 1 : 0
            return max(geometry.kvLength(request) - hidden, 0) / blocks.blockSize
        }
        // Open groups, by increasing depth; each began with the request at its place.
        var open: [(start: Int, depth: Int, children: [Int])] = []
        func close(_ group: (start: Int, depth: Int, children: [Int]), before end: Int, _ nodes: inout [Node]) -> Int {
            nodes.append(
                Node(requests: requests[group.start]..<requests[end - 1] + 1, depth: group.depth, parentDepth: 0))
            for child in group.children {
                (nodes[child].parent, nodes[child].parentDepth) = (nodes.count - 1, group.depth)
            }
            return nodes.count - 1
        }
        for place in 1...requests.count {
            let depth = place < requests.count ? Self.commonPages(blocks, requests, limits, place) : 0
            var (start, children) = (place - 1, [Int]())
            while let top = open.last, top.depth > depth {
                open.removeLast()
                var top = top
                top.children += children
                (start, children) = (top.start, [close(top, before: place, &nodes)])
            }
            if let top = open.indices.last, open[top].depth == depth {
                open[top].children += children
            } else if depth > 0 {
                open.append((start, depth, children))
            }
        }
    }

    /// Pages that a request and the one before it begin with.
    private static func commonPages(
        _ blocks: KVBlockTable, _ requests: [Int], _ limits: [Int], _ place: Int
    ) -> Int {
        let (first, second) = (Int(blocks.indptr[requests[place - 1]]), Int(blocks.indptr[requests[place]]))
        let limit = min(limits[place - 1], limits[place])
        return blocks.indices.withUnsafeBufferPointer { indices in
            var count = 0
            while count < limit, indices[first + count] == indices[second + count] { count += 1 }
            return count
        }
    }
}
