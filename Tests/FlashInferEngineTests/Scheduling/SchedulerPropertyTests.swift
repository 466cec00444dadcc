import FlashInferEngine
import Testing

/// Random traffic over tiny pools. After every step the invariants hold, and every request that ends has exactly the
/// tokens it would have had alone.
@Suite struct SchedulerPropertyTests {
    /// One seed's configuration: small numbers, so that pages and budgets run out all the time.
    struct Traffic: Sendable, CustomTestStringConvertible {
        let seed: UInt64
        var testDescription: String { "seed \(seed)" }
    }

    /// A request under way and what must come of it.
    struct Expectation {
        let prompt: [Int32]
        let tokens: [Int32]
        let reason: FinishReason
        var received: [Int32] = []
    }

    @Test(arguments: (0..<48).map { Traffic(seed: $0) })
    func randomTrafficLosesNothing(_ traffic: Traffic) throws {
        var random = SchedulingRandom(seed: traffic.seed)
        let pageSize = Int.random(in: 1...5, using: &random)
        let pool = try BlockPool(pageCount: Int.random(in: 1...24, using: &random), pageSize: pageSize)
        let budget = Int.random(in: 1...24, using: &random)
        let configuration = SchedulerConfiguration(
            contextLength: Int.random(in: 2...80, using: &random), maxBatchTokens: budget,
            maxSequences: Int.random(in: 1...min(budget, 8), using: &random),
            prefillChunk: Int.random(in: 1...12, using: &random), reusesPrefixes: traffic.seed % 5 != 4)
        var scheduler = try Scheduler(configuration: configuration, pool: pool)
        var model = FakePagedModel(pool: pool)
        var expected: [RequestID: Expectation] = [:]
        let stems = (0..<3).map { _ in randomTokens(Int.random(in: 1...40, using: &random), &random) }
        var nextID: UInt64 = 0
        var problems: [String] = []
        var finished = 0

        // The last 40,000 steps only drain; the fairness bound below says how few of them are needed.
        var drainLimit = Int.max
        for step in 0..<40_700 {
            let isDraining = step >= 700
            if step == 700 {
                drainLimit = step + expected.values.map { $0.prompt.count + $0.tokens.count }.reduce(0, +)
            }
            if step > drainLimit { break }
            if !isDraining, scheduler.waitingCount < 25, Int.random(in: 0..<3, using: &random) == 0 {
                for _ in 0..<Int.random(in: 1...4, using: &random) {
                    let stem = stems.randomElement(using: &random)!
                    let prompt =
                        stem.prefix(Int.random(in: 0...stem.count, using: &random))
                        + randomTokens(Int.random(in: 0...6, using: &random), &random)
                    submit(
                        Array(prompt), limit: Int.random(in: 1...30, using: &random), id: &nextID, &scheduler,
                        &expected, &problems)
                }
            }
            if !isDraining, Int.random(in: 0..<60, using: &random) == 0 { scheduler.forgetAllPrefixes() }
            guard let batch = scheduler.schedule() else {
                if !scheduler.isIdle { problems.append("step \(step): requests wait but nothing is scheduled") }
                if isDraining { break }
                continue
            }
            try scheduler.checkInvariants()
            if batch.rowCount > budget { problems.append("step \(step): over budget") }
            // The fairness bound: the oldest request moves in every step, so it ends in a bounded number of them.
            if !batch.entries.contains(where: { $0.id == scheduler.unfinished[0] }) {
                problems.append("step \(step): the oldest request stands still")
            }
            for entry in batch.entries {
                let truth = expected[entry.id]!.prompt + expected[entry.id]!.received
                let rows = batch.positions.indices.filter { batch.entries[Int(batch.entryOfRow[$0])].id == entry.id }
                for row in rows where batch.tokenIDs[row] != truth[Int(batch.positions[row])] {
                    problems.append("step \(step): row \(row) carries the wrong token")
                }
            }
            // An abort while the step is in flight; the model runs on regardless.
            let sampled = model.run(batch, pool: scheduler.pool) { problems.append("step \(step): \($0)") }
            if Int.random(in: 0..<25, using: &random) == 0 {
                let victim = scheduler.unfinished.randomElement(using: &random)!
                scheduler.abort(victim)
                expected[victim] = nil
                try scheduler.checkInvariants()
            }
            if !isDraining, Int.random(in: 0..<40, using: &random) == 0 {
                scheduler.abandonStep()
                continue
            }
            for update in try scheduler.complete(batch, sampled: sampled) {
                expected[update.id]!.received.append(update.token)
                guard let reason = update.finishReason else { continue }
                let wish = expected.removeValue(forKey: update.id)!
                finished += 1
                if wish.received != wish.tokens { problems.append("request \(update.id) got the wrong tokens") }
                if wish.reason != reason { problems.append("request \(update.id) ended by \(reason)") }
                if update.counts.generated != wish.tokens.count { problems.append("generated count") }
            }
            try scheduler.checkInvariants()
        }
        #expect(problems.isEmpty, "\(problems.prefix(5))")
        #expect(scheduler.isIdle && expected.isEmpty, "requests were lost: \(scheduler.unfinished)")
        #expect(scheduler.pool.freeCount == scheduler.pool.pageCount)
        #expect(finished > 0)
    }

    private func submit(
        _ prompt: [Int32], limit: Int, id: inout UInt64, _ scheduler: inout Scheduler,
        _ expected: inout [RequestID: Expectation], _ problems: inout [String]
    ) {
        let request = Request(
            id: RequestID(id), promptTokens: prompt, maxTokens: limit, stopTokens: [FakeLanguage.stopToken])
        id += 1
        do throws(SchedulingError) {
            let granted = try scheduler.submit(request)
            let (tokens, reason) = FakeLanguage.completion(of: prompt, limit: granted, cutBy: granted < limit)
            expected[request.id] = Expectation(prompt: prompt, tokens: tokens, reason: reason)
        } catch {
            switch error {
            case .emptyPrompt where prompt.isEmpty: break
            case .promptTooLong(let count, let longest) where count == prompt.count && count > longest: break
            default: problems.append("refused: \(error)")
            }
        }
    }

    private func randomTokens(_ count: Int, _ random: inout SchedulingRandom) -> [Int32] {
        (0..<count).map { _ in Int32.random(in: 1..<Int32(FakeLanguage.vocabularySize), using: &random) }
    }
}
