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
        let plan = try text([1, 1, 1, 1], [512, 512, 512, 512])
        #expect(
            plan == """
                worker 0: 0.0[0..<2]0..<512 0.1[0..<2]0..<512
                worker 1: 1.0[0..<2]0..<512 1.1[0..<2]0..<512
                worker 2: 2.0[0..<2]0..<512 2.1[0..<2]0..<512
                worker 3: 3.0[0..<2]0..<512 3.1[0..<2]0..<512
                """)
    }

    @Test func skewedDecode() throws {
        let plan = try text([1, 1, 1], [4000, 300, 700])
        #expect(
            plan == """
                worker 0: 0.0[0..<2]0..<2752>0/0
                worker 1: 0.0[0..<2]2752..<4000>2/0 0.1[0..<2]0..<1280>4/1
                worker 2: 0.1[0..<2]1280..<3840>6/1
                worker 3: 0.1[0..<2]3840..<4000>8/1 1.0[0..<2]0..<300 1.1[0..<2]0..<300 2.0[0..<2]0..<700 2.1[0..<2]0..<700
                merge 0: row 0, 2 parts
                merge 1: row 4, 3 parts
                """)
    }

    @Test func oneRequest() throws {
        let plan = try text([1], [1000], processors: 8)
        #expect(
            plan == """
                worker 0: 0.0[0..<2]0..<256>0/0
                worker 1: 0.0[0..<2]256..<512>2/0
                worker 2: 0.0[0..<2]512..<768>4/0
                worker 3: 0.0[0..<2]768..<1000>6/0
                worker 4: 0.1[0..<2]0..<256>8/1
                worker 5: 0.1[0..<2]256..<512>10/1
                worker 6: 0.1[0..<2]512..<768>12/1
                worker 7: 0.1[0..<2]768..<1000>14/1
                merge 0: row 0, 4 parts
                merge 1: row 8, 4 parts
                """)
    }

    @Test func prefillBesideDecode() throws {
        let plan = try text([1, 200, 20], [900, 200, 640], traits: queueTraits, processors: 2)
        #expect(
            plan == """
                worker 0: 0.0[0..<2]0..<512>0/0
                worker 1: 0.0[0..<2]512..<900>2/0
                worker 2: 0.1[0..<2]0..<512>4/1
                worker 3: 0.1[0..<2]512..<900>6/1
                queue 1: 2.0[0..<40]0..<320>8/2 2.0[0..<40]320..<640>48/2 2.1[0..<40]0..<320>88/3 2.1[0..<40]320..<640>128/3
                queue 2: 1.0[256..<384]0..<192 1.1[256..<384]0..<192 1.0[128..<256]0..<128 1.1[128..<256]0..<128 1.0[384..<400]0..<200 1.1[384..<400]0..<200 1.0[0..<128]0..<64 1.1[0..<128]0..<64
                merge 0: row 0, 2 parts
                merge 1: row 4, 2 parts
                merge 2: row 8, 2 parts
                merge 3: row 88, 2 parts
                """)
    }

    @Test func fixedCuts() throws {
        let mode = Planner.Mode.batchInvariant(splitSize: 512)
        let plan = try text([1, 20], [900, 640], traits: queueTraits, processors: 1, mode: mode)
        #expect(
            plan == """
                worker 0: 0.0[0..<2]0..<512>0/0 0.0[0..<2]512..<900>2/0
                worker 1: 0.1[0..<2]0..<512>4/1 0.1[0..<2]512..<900>6/1
                queue 1: 1.0[0..<40]0..<512>8/2 1.0[0..<40]512..<640>48/2 1.1[0..<40]0..<512>88/3 1.1[0..<40]512..<640>128/3
                merge 0: row 0, 2 parts
                merge 1: row 4, 2 parts
                merge 2: row 8, 2 parts
                merge 3: row 88, 2 parts
                """)
    }
}
