import CFlashInfer
import FlashInferCore
import TestSupport
import Testing

/// Ranks through the C ABI: threads of this process, each with a device of its own, that meet over TCP.
@Suite(.timeLimit(.minutes(10))) struct ParallelTests {
    private static func share(_ split: Int, rank: Int, of worldSize: Int, pageSize: Int, pages: Int = 1) -> fi_kv_share
    {
        fi_kv_share(
            struct_size: UInt64(MemoryLayout<fi_kv_share>.size), split: Int32(split), rank: Int32(rank),
            world_size: Int32(worldSize), reserved: 0, page_size: Int64(pageSize), run_pages: Int64(pages))
    }

    private static func join(
        _ device: CDevice, rank: Int, of worldSize: Int, port: Int, timeout: Int = 20_000
    ) -> (status: fi_status, handle: OpaquePointer?) {
        var options = fi_communicator_options.sized
        (options.rank, options.world_size, options.port) = (Int32(rank), Int32(worldSize), Int32(port))
        options.timeout_ms = Int64(timeout)
        var handle: OpaquePointer?
        return (fi_communicator_create(device.handle, nil, &options, &handle), handle)
    }

    @Test func ranksGiveWhatOneGives() throws {
        let fixture = KVParallelFixture(
            lengths: [(1, 40), (7, 7), (0, 3), (5, 61)], split: .interleaved(pages: 2), worldSize: 3)
        let expected = try fixture.expected()
        let port = freePort()
        let found = try onThreads(Array(0..<3)) { rank -> [String] in
            let device = try CDevice.cpu()
            let (status, handle) = Self.join(device, rank: rank, of: 3, port: port)
            try ok(status)
            defer { fi_communicator_destroy(handle) }
            var (own, count): (Int32, Int32) = (0, 0)
            try ok(fi_communicator_get_rank(handle, &own, &count))
            #expect(own == Int32(rank) && count == 3)
            try ok(fi_communicator_barrier(handle))

            let part = try fixture.part(ofRank: rank, worldSize: 3)
            let shape = try fixture.shape
            let problem = try AttentionProblem(
                geometry: part.geometry, shape: shape, variant: .causal, queryType: .float32, kvType: .float32)
            let attention = try CAttention(COptions(problem, .combinedNHD).options, on: device)
            // The page table again, as a caller has it: the fixture's geometry lists pages once for each stretch of rows.
            let shares = fixture.lengths.map { _ in
                Self.share(FI_SHARE_INTERLEAVED, rank: rank, of: 3, pageSize: fixture.pageSize, pages: 2)
            }
            var counts: [Int32] = []
            for (index, (_, keys)) in fixture.lengths.enumerated() {
                var keysHere: Int64 = 0
                var share = shares[index]
                try ok(fi_kv_share_key_count(&share, Int64(keys), &keysHere))
                counts.append((Int32(keysHere) + Int32(fixture.pageSize) - 1) / Int32(fixture.pageSize))
            }
            let indptr = counts.reduce(into: [Int32(0)]) { $0.append($0.last! + $1) }
            try ok(
                shares.withUnsafeBufferPointer {
                    fi_attention_plan_kv_share(
                        attention.handle, nil, $0.baseAddress, UInt64($0.count), fixture.queryIndptr.c,
                        fixture.lengths.map { Int32($0.1) }.c, indptr.c, part.pages.c, Int64(part.pageCount))
                })
            let width = [fixture.rows, shape.queryHeads, fixture.headDim]
            let q = try OpsTensor(.float32, width, values: fixture.queries.map { Double($0) })
            let cache = try OpsTensor(
                .float32, [part.pageCount, 2, fixture.pageSize, fixture.kvHeads, fixture.headDim],
                values: part.cache.map { Double($0) })
            let (v, out) = try (OpsTensor(.float32, width), OpsTensor(.float32, width))
            let lse = try OpsTensor(.float32, Array(width.dropLast()))
            let merged = try OpsTensor(.float32, Array(width.dropLast()))
            var args = fi_attention_run_args()
            args.q = UnsafePointer(q.c)
            args.kv = UnsafePointer(cache.c)
            args.out = UnsafePointer(v.c)
            args.lse = UnsafePointer(lse.c)
            try ok(attention.run(args))
            for _ in 0..<2 { try ok(fi_merge_states_across_ranks(handle, v.c, lse.c, out.c, merged.c)) }
            return fixture.complaints(out.values.map { Float($0) }, merged.values.map { Float($0) }, expected)
        }
        for (rank, complaints) in found.enumerated() {
            #expect(complaints.isEmpty, "rank \(rank): \(complaints.prefix(3))")
        }
    }

    @Test func sharesAndHeads() throws {
        var share = Self.share(FI_SHARE_ZIGZAG, rank: 0, of: 2, pageSize: 4)
        var (rank, local, page): (Int32, Int64, Int64) = (9, 9, 9)
        try ok(fi_kv_share_owner(&share, 9, &rank, &local))
        #expect(rank == 1 && local == 5)
        try ok(fi_kv_share_page(&share, 1, &page))
        #expect(page == 3)
        var heads: (qo: [Int64], kv: [Int64]) = ([0, 0], [0, 0])
        try ok(fi_head_share(32, 8, 3, 16, &heads.qo, &heads.kv))
        #expect(heads.qo == [6, 2] && heads.kv == [1, 1])
        expect(fi_head_share(32, 8, 0, 3, &heads.qo, &heads.kv), FI_INVALID_ARGUMENT, "world size is 3")
        share.split = 7
        expect(fi_kv_share_page(&share, 1, &page), FI_INVALID_ARGUMENT, "share.split is 7")
        share = Self.share(FI_SHARE_CHUNKS, rank: 2, of: 2, pageSize: 4)
        expect(fi_kv_share_page(&share, 1, &page), FI_INVALID_ARGUMENT, "rank is 2")
    }

    @Test func ranksThatDoNotComeOrDisagree() throws {
        let device = try CDevice.cpu()
        let (port, second) = (freePort(), freePort())
        expect(
            Self.join(device, rank: 0, of: 2, port: port, timeout: 100).status, FI_RANK_FAILURE,
            "rank 1: rendezvous at 127.0.0.1:\(port)")
        expect(Self.join(device, rank: 2, of: 2, port: port).status, FI_INVALID_ARGUMENT, "RANK is '2'")
        let found = try onThreads([(0, 2), (1, 3)]) { rank, worldSize in
            Self.join(try CDevice.cpu(), rank: rank, of: worldSize, port: second, timeout: 5_000).status
        }
        #expect(found == [fi_status(FI_RANK_MISMATCH), fi_status(FI_RANK_MISMATCH)])
        // One rank alone needs nobody, and merging is a copy.
        let (status, handle) = Self.join(device, rank: 0, of: 1, port: 0)
        try ok(status)
        defer { fi_communicator_destroy(handle) }
        let v = try OpsTensor(.float32, [2, 1, 8], values: (0..<16).map { Double($0) })
        let lse = try OpsTensor(.float32, [2, 1], values: [1, 2])
        let out = try OpsTensor(.float32, [2, 1, 8])
        try ok(fi_merge_states_across_ranks(handle, v.c, lse.c, out.c, nil))
        #expect(out.values == v.values)
        expect(
            fi_merge_states_across_ranks(handle, v.c, v.c, out.c, nil), FI_INVALID_ARGUMENT, "lse is float32 [2, 1, 8]")
        expect(fi_merge_states_across_ranks(nil, v.c, lse.c, out.c, nil), FI_INVALID_ARGUMENT, "communicator is NULL")
    }
}
