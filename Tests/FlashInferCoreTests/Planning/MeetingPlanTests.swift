import FlashInferCore
import TestSupport
import Testing

/// Plans whose parts merge without a way through memory: who has them.
@Suite struct MeetingPlanTests {
    private var traits: KernelTraits {
        var traits = gpuTraits
        (traits.meetingParts, traits.meetingGain, traits.minimumSplit) = (16, 1e6, 64)
        return traits
    }

    private func plan(_ lengths: [Int], _ traits: KernelTraits, workers: Int, mode: Planner.Mode = .balanced) throws
        -> Plan
    {
        let batch = PlanCase(name: "decode", queries: .init(repeating: 1, count: lengths.count), keys: lengths)
        let problem = try batch.problem()
        let plan = try Planner.plan(problem, traits: traits, processors: workers, mode: mode)
        checkCoverage(plan)
        #expect(try Planner.measure(problem, traits: traits, processors: workers, mode: mode) == plan.size)
        return plan
    }

    /// Each tile's parts are the only items of neighbouring workers, and no group of workers has parts of two tiles.
    private func checkMeetings(_ plan: Plan) {
        let group = plan.meetingWorkers
        var owners: [Int: Int32] = [:]
        for worker in 0..<plan.workerCount {
            let list = plan.items[Int(plan.itemIndptr[worker])..<Int(plan.itemIndptr[worker + 1])]
            #expect(list.count <= 1)
            guard let item = list.first, item.merge >= 0 else { continue }
            let merge = plan.merges[Int(item.merge)]
            #expect(owners[worker / group] ?? item.merge == item.merge)
            owners[worker / group] = item.merge
            let part = (item.partialRow - merge.partialRow) / (merge.headCount * merge.rowCount)
            #expect(Int(part) == worker % group)
        }
        #expect(plan.merges.allSatisfy { $0.partCount <= group })
    }

    /// Eight heads of each request are tiles here.
    @Test(arguments: [
        ([1024], 264, 16), ([8192, 8192], 264, 16), ([1024, 300, 65], 264, 8), ([4096, 100, 0, 1, 5000], 264, 4),
        ([4096], 16, 2),
    ])
    func fewTilesAreCutInGroups(lengths: [Int], workers: Int, group: Int) throws {
        let plan = try plan(lengths, traits, workers: workers)
        #expect(plan.meetingWorkers == group)
        checkMeetings(plan)
    }

    @Test func manyTilesAreNotCutInGroups() throws {
        #expect(try plan(.init(repeating: 4096, count: 20), traits, workers: 264).meetingWorkers == 1)
        #expect(try plan([4096], traits, workers: 8).meetingWorkers == 1)
    }

    /// Nothing to cut, nothing to gain, and results that must not depend on neighbours.
    @Test func groupsAreForWhereTheyPay() throws {
        #expect(try plan([64, 1, 0], traits, workers: 264).meetingWorkers == 1)
        var none = traits
        none.meetingGain = 0
        #expect(try plan([100_000, 100], none, workers: 264).meetingWorkers == 1)
        #expect(try plan([1024], traits, workers: 264, mode: .batchInvariant(splitSize: 256)).meetingWorkers == 1)
        #expect(try plan([1024], traits, workers: 264, mode: .unsplit).meetingWorkers == 1)
        #expect(try plan([1024], gpuTraits, workers: 264).meetingWorkers == 1)
    }
}
