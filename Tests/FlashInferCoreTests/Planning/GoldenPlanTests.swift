import FlashInferCore
import Testing

/// Five small plans, as text: a change in planning shows as a change here, and is then wanted or not.
@Suite struct GoldenPlanTests {
    /// A line for each worker with a list, each queue and each merge. An item is
    /// `request.head[rows]keys`, with `>row/merge` where it is a part.
    private func text(
        _ queries: [Int], _ keys: [Int], variant: AttentionVariant = .causal, shape: (Int, Int) = (4, 2),
        traits: KernelTraits = gpuTraits, processors: Int = 4, mode: Planner.Mode = .balanced
    ) throws -> String {
        let batch = PlanCase(name: "golden", queries: queries, keys: keys, variant: variant, shape: shape)
        let plan = try Planner.plan(batch.problem(), traits: traits, processors: processors, mode: mode)
        checkCoverage(plan)
        func line(_ name: String, _ range: Range<Int>) -> [String] {
            if range.isEmpty { return [] }
            let items = plan.items[range].map { item in
                let (rows, keys) = (item.rowStart + item.rowCount, item.keyStart + item.keyCount)
                let part = item.merge < 0 ? "" : ">\(item.partialRow)/\(item.merge)"
                return "\(item.request).\(item.headStart)[\(item.rowStart)..<\(rows)]\(item.keyStart)..<\(keys)\(part)"
            }
            return ["\(name): " + items.joined(separator: " ")]
        }
        var lines: [String] = []
        for worker in 0..<plan.workerCount {
            lines += line("worker \(worker)", Int(plan.itemIndptr[worker])..<Int(plan.itemIndptr[worker + 1]))
        }
        for tile in plan.traits.tiles.indices { lines += line("queue \(tile)", plan.queue(ofTile: tile)) }
        for (index, merge) in plan.merges.enumerated() {
            lines.append("merge \(index): row \(merge.partialRow), \(merge.partCount) parts")
        }
        return lines.joined(separator: "\n")
    }

    @Test func uniformDecode() throws {
        #expect(try text([1, 1, 1, 1], [512, 512, 512, 512]) == "?")
    }

    @Test func skewedDecode() throws {
        #expect(try text([1, 1, 1], [4000, 300, 700]) == "?")
    }

    @Test func oneRequest() throws {
        #expect(try text([1], [1000], traits: gpuTraits, processors: 8) == "?")
    }

    @Test func prefillBesideDecode() throws {
        #expect(try text([1, 200, 20], [900, 200, 640], traits: queueTraits, processors: 2) == "?")
    }

    @Test func fixedCuts() throws {
        #expect(
            try text([1, 20], [900, 640], traits: queueTraits, processors: 1, mode: .batchInvariant(splitSize: 512))
                == "?")
    }
}
