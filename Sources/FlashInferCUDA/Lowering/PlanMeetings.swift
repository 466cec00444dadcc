internal import FlashInferCore

/// Which merges of a plan need no way through memory, because their parts' blocks can be a cluster: where each part is the first item of
/// its list, and the lists are neighbours.
struct PlanMeetings {
    /// By merge: the first part's list and the number of parts, or `nil` where parts do not meet.
    private let lists: [Range<Int>?]

    /// The most blocks of a cluster: `largest_cluster` of `portable/attention_cluster.cuh`.
    static let largestCluster = 16

    init(_ plan: Plan) {
        guard !plan.merges.isEmpty else {
            lists = []
            return
        }
        var firsts = [Range<Int>?](repeating: nil, count: plan.merges.count)
        for list in 0..<plan.workerCount where plan.itemIndptr[list] < plan.itemIndptr[list + 1] {
            let item = plan.items[Int(plan.itemIndptr[list])]
            guard item.merge >= 0 else { continue }
            let merge = plan.merges[Int(item.merge)]
            let part = Int(item.partialRow - merge.partialRow) / Int(merge.headCount * merge.rowCount)
            if part == 0 {
                firsts[Int(item.merge)] = list..<list + 1
            } else if let known = firsts[Int(item.merge)], known.count == part, known.upperBound == list {
                firsts[Int(item.merge)] = known.lowerBound..<list + 1
            }
        }
        lists = zip(plan.merges, firsts).map { merge, lists in
            lists.flatMap { $0.count == merge.partCount ? $0 : nil }
        }
    }

    /// Whether all parts of each merge are in one cluster.
    func meets(inClustersOf blocks: Int) -> [Bool] {
        lists.map { lists in
            lists.map { $0.lowerBound / blocks == ($0.upperBound - 1) / blocks } ?? false
        }
    }

    /// The fewest blocks of a cluster with which all merges' parts meet; 1 where there is none, or no merge.
    var cluster: Int {
        if lists.isEmpty || lists.contains(nil) { return 1 }
        var blocks = 2
        while blocks <= Self.largestCluster {
            if meets(inClustersOf: blocks).allSatisfy({ $0 }) { return blocks }
            blocks *= 2
        }
        return 1
    }
}
