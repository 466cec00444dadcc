import FlashInfer
import TestSupport
import Testing

/// Keys that go round a ring give what one rank gives.
@Suite(.timeLimit(.minutes(10))) struct RingAttentionTests {
    private func check(_ fixture: KVParallelFixture) throws {
        let expected = try fixture.expected()
        let found = try onThreads(ThreadCommunicator.ranks(fixture.worldSize)) { ranks -> [String] in
            let device = CPUDevice(threads: 1)
            let shares = try fixture.splits.map {
                try KVShare($0, pageSize: fixture.pageSize, rank: ranks.rank, worldSize: ranks.worldSize)
            }
            let shape = try fixture.shape
            let attention = try RingAttention(
                shares: shares, queryLengths: fixture.lengths.map { Int32($0.0) },
                kvLengths: fixture.lengths.map { Int32($0.1) }, shape: shape, variant: fixture.variant, type: .float32,
                across: ranks, on: device)
            // This rank's rows of the whole, request after request.
            var (rows, keys, values): ([Int], [Float], [Float]) = ([], [], [])
            let all = fixture.queries
            for (request, share) in shares.enumerated() {
                let (queries, length) = fixture.lengths[request]
                let first = Int(fixture.queryIndptr[request]) - (length - queries)
                rows += share.positions(in: length - queries..<length).flatMap { $0.map { first + $0 } }
                for position in share.positions(in: 0..<length).flatMap({ Array($0) }) {
                    for head in 0..<fixture.kvHeads {
                        keys += (0..<fixture.headDim).map { fixture.key(request, position, head, $0) }
                        values += (0..<fixture.headDim).map { fixture.value(request, position, head, $0) }
                    }
                }
            }
            #expect(attention.rowCount == rows.count)
            let width = shape.queryHeads * fixture.headDim
            #expect(attention.keyCount * fixture.kvHeads * fixture.headDim == keys.count)
            func tensor(_ elements: [Float], _ shape: Shape) throws -> DeviceBuffer {
                let padded: Shape = [max(shape[0], 1), shape[1], shape[2]]
                let buffer = try DeviceBuffer(on: device, dtype: .float32, shape: padded)
                try device.fill(buffer.region, with: 0xff)
                try buffer.write(elements)
                return buffer
            }
            let own = rows.flatMap { all[$0 * width..<($0 + 1) * width] }
            let queries = try tensor(own, [rows.count, shape.queryHeads, fixture.headDim])
            let k = try tensor(keys, [attention.keyCount, fixture.kvHeads, fixture.headDim])
            let v = try tensor(values, [attention.keyCount, fixture.kvHeads, fixture.headDim])
            let output = try tensor([], [rows.count, shape.queryHeads, fixture.headDim])
            let lse = try tensor([], [rows.count, shape.queryHeads, 1])
            let lseView = lse.view.select(0, along: 2)
            for _ in 0..<2 {
                try attention.run(
                    queries.view.slice(0..<rows.count), keys: k.view.slice(0..<attention.keyCount),
                    values: v.view.slice(0..<attention.keyCount), into: output.view.slice(0..<rows.count),
                    logSumExp: lseView.slice(0..<rows.count))
            }
            var (whole, sums) = (expected.output.map { Float($0) }, expected.logSumExp.map { Float($0) })
            let (outputs, lses) = (try output.read(as: Float.self), try lse.read(as: Float.self))
            for (index, row) in rows.enumerated() {
                whole.replaceSubrange(
                    row * width..<(row + 1) * width, with: outputs[index * width..<(index + 1) * width])
                sums.replaceSubrange(
                    row * shape.queryHeads..<(row + 1) * shape.queryHeads,
                    with: lses[index * shape.queryHeads..<(index + 1) * shape.queryHeads])
            }
            return fixture.complaints(whole, sums, expected)
        }
        for (rank, complaints) in found.enumerated() {
            #expect(complaints.isEmpty, "rank \(rank) of \(fixture): \(complaints.prefix(3))")
        }
    }

    @Test(
        arguments: [AttentionVariant.causal, .full],
        [KVSplit.chunks(pages: 13), .zigzag(pages: 7), .interleaved(pages: 2)])
    func aPromptOverFourRanks(_ variant: AttentionVariant, _ split: KVSplit) throws {
        try check(
            KVParallelFixture(
                lengths: [(50, 50), (20, 70), (0, 9), (3, 3)], split: split, pageSize: 1, variant: variant))
    }

    @Test(arguments: 100...130)
    func randomBatches(_ seed: Int) throws {
        var fixture = KVParallelFixture.random(UInt64(seed))
        fixture.variant = AttentionVariant(mask: fixture.variant.mask, logitsSoftCap: fixture.variant.logitsSoftCap)
        fixture.lengths = fixture.lengths.map { (min($0.0, $0.1), $0.1) }
        try check(fixture)
    }

    @Test func whatARingCannotDoIsRefused() throws {
        let found = outcomes(ThreadCommunicator.ranks(2, timeout: .seconds(10))) { ranks in
            let share = try KVShare(.zigzag(pages: 4), pageSize: 1, rank: ranks.rank, worldSize: 2)
            _ = try RingAttention(
                shares: [share], queryLengths: [16], kvLengths: [16],
                shape: AttentionShape(queryHeads: 2, kvHeads: 2, headDimQK: 16),
                variant: AttentionVariant(mask: .causal, windowLeft: 3), type: .float32, across: ranks,
                on: CPUDevice(threads: 1))
        }
        for outcome in found {
            guard case .failure(FlashInferError.unsupported(let what, _, _)) = outcome else {
                Issue.record("\(outcome)")
                continue
            }
            #expect(what == "a window in a ring")
        }
    }
}
