import FlashInferCore
import TestSupport
import Testing

@Suite struct KVShareTests {
    private static let splits: [KVSplit] = [
        .chunks(pages: 1), .chunks(pages: 3), .interleaved(pages: 1), .interleaved(pages: 2), .zigzag(pages: 1),
        .zigzag(pages: 2),
    ]

    @Test func documented() throws {
        let share = try KVShare(.interleaved(pages: 1), pageSize: 16, rank: 1, worldSize: 4)
        #expect(share.keyCount(before: 100) == 32)
        #expect(share.localPosition(of: 17) == 1)
    }

    /// Every position has one owner, and each rank counts its own in order.
    @Test(arguments: splits, [1, 2, 3, 4])
    func everyPositionHasOneOwner(_ split: KVSplit, _ worldSize: Int) throws {
        let pageSize = 3
        let shares = try (0..<worldSize).map {
            try KVShare(split, pageSize: pageSize, rank: $0, worldSize: worldSize)
        }
        var counts = [Int](repeating: 0, count: worldSize)
        for position in 0..<80 {
            for share in shares {
                #expect(share.keyCount(before: position) == counts[share.rank])
                #expect(share.pageCount(forLength: position) == (counts[share.rank] + pageSize - 1) / pageSize)
            }
            let owner = shares[0].owner(of: position)
            for share in shares {
                #expect(share.owner(of: position) == owner)
                #expect(share.localPosition(of: position) == (share.rank == owner ? counts[owner] : nil))
            }
            // Pages stay whole: a page's keys follow one another on one rank.
            let page = counts[owner] / pageSize
            #expect(shares[owner].globalPage(page) == position / pageSize)
            #expect(counts[owner] % pageSize == position % pageSize)
            counts[owner] += 1
        }
        for share in shares {
            let own = share.positions(in: 5..<77).flatMap { Array($0) }
            #expect(own == (5..<77).filter { share.owner(of: $0) == share.rank })
        }
    }

    @Test func partsOfAPromptAreEven() throws {
        for (length, pageSize, ranks) in [(262_144, 16, 2), (1000, 16, 4), (1, 16, 4), (0, 16, 3), (65, 1, 4)] {
            for split in [
                KVSplit.chunks(ofLength: length, pageSize: pageSize, ranks: ranks),
                .zigzag(ofLength: length, pageSize: pageSize, ranks: ranks),
            ] {
                let counts = try (0..<ranks).map {
                    try KVShare(split, pageSize: pageSize, rank: $0, worldSize: ranks).keyCount(before: length)
                }
                #expect(counts.reduce(0, +) == length)
                #expect(counts.max()! <= (length + ranks - 1) / ranks + 2 * pageSize)
            }
        }
    }

    @Test func impossibleSharesAreErrors() {
        #expect(throws: FlashInferError.invalidArgument("rank", found: "2", expected: "in 0 ..< 2")) {
            _ = try KVShare(.interleaved(pages: 1), pageSize: 16, rank: 2, worldSize: 2)
        }
        #expect(throws: FlashInferError.invalidArgument("pages of a run", found: "0", expected: "1 or more")) {
            _ = try KVShare(.chunks(pages: 0), pageSize: 16, rank: 0, worldSize: 2)
        }
        #expect(throws: FlashInferError.overflow("keys of a run of 2147483647 pages")) {
            _ = try KVShare(.chunks(pages: Int(Int32.max)), pageSize: 16, rank: 0, worldSize: 2)
        }
    }

    @Test func headsOfRanks() throws {
        let wide = try HeadShare(queryHeads: 32, kvHeads: 8, rank: 3, worldSize: 16)
        #expect(wide.queryHeads == 6..<8 && wide.kvHeads == 1..<2 && wide.kvCopies == 2)
        let narrow = try HeadShare(queryHeads: 32, kvHeads: 8, rank: 1, worldSize: 2)
        #expect(narrow.queryHeads == 16..<32 && narrow.kvHeads == 4..<8 && narrow.kvCopies == 1)
        // Each query head's key/value head is on its rank.
        for worldSize in [1, 2, 4, 8, 16, 32] {
            for rank in 0..<worldSize {
                let share = try HeadShare(queryHeads: 32, kvHeads: 8, rank: rank, worldSize: worldSize)
                #expect(share.queryHeads.allSatisfy { share.kvHeads.contains($0 / 4) })
                #expect(share.queryHeads.count % share.kvHeads.count == 0)
            }
        }
        #expect(throws: FlashInferError.self) { _ = try HeadShare(queryHeads: 32, kvHeads: 8, rank: 0, worldSize: 3) }
        #expect(
            throws: FlashInferError.invalidArgument(
                "world size", found: "4", expected: "a divisor or a multiple of the 6 key/value heads")
        ) {
            _ = try HeadShare(queryHeads: 24, kvHeads: 6, rank: 0, worldSize: 4)
        }
    }

    @Test func decodeIsOneRequestARequest() throws {
        let share = try KVShare(.interleaved(pages: 1), pageSize: 4, rank: 1, worldSize: 2)
        let geometry = try BatchGeometry.paged(
            shares: [share, share], kvLengths: [13, 3], pageIndptr: [0, 2, 2], pageIndices: [7, 5], pageCount: 8)
        // Positions 4 to 7 and 12; none of the short request.
        #expect(geometry.requestCount == 2 && geometry.levelCount == 1)
        #expect(geometry.blocks.lengths == [5, 0])
    }

    @Test func rowsThatSeeAFixedNumberOfKeysAreALevel() throws {
        // Positions 8 to 15 are queries; rank 0 has pages 0 and 2 (positions 8 to 11), rank 1 the others.
        let share = try KVShare(.interleaved(pages: 1), pageSize: 4, rank: 0, worldSize: 2)
        let geometry = try BatchGeometry.paged(
            shares: [share], queryIndptr: [0, 8], kvLengths: [16], pageIndptr: [0, 2], pageIndices: [3, 1],
            pageCount: 4)
        #expect(geometry.levelCount == 2 && geometry.queryCount == 8)
        #expect(geometry.blocks.lengths == [0, 8, 8, 0])
        #expect(geometry.blocks.indices == [3, 1, 3, 1])
    }

    @Test func geometriesNameTheRequest() throws {
        let share = try KVShare(.chunks(pages: 1), pageSize: 4, rank: 0, worldSize: 2)
        #expect(
            throws: FlashInferError.invalidRequest(
                1, argument: "pages on rank 0", found: 0, expected: "1 or more, for its part of 9 keys")
        ) {
            _ = try BatchGeometry.paged(
                shares: [share, share], kvLengths: [4, 9], pageIndptr: [0, 1, 1], pageIndices: [0], pageCount: 2)
        }
        #expect(throws: FlashInferError.lengthMismatch("shares", found: 1, expected: 2)) {
            _ = try BatchGeometry.paged(
                shares: [share], kvLengths: [4, 9], pageIndptr: [0, 1, 1], pageIndices: [0], pageCount: 2)
        }
        let other = share.ofRank(1)
        #expect(
            throws: FlashInferError.invalidRequest(
                1, argument: "rank of its share", found: 1, expected: "0, as of request 0")
        ) {
            _ = try BatchGeometry.paged(
                shares: [share, other], kvLengths: [4, 4], pageIndptr: [0, 1, 1], pageIndices: [0], pageCount: 2)
        }
        #expect(
            throws: FlashInferError.invalidRequest(
                0, argument: "query length", found: 5, expected: "in 0 ... 4, its keys")
        ) {
            _ = try BatchGeometry.ringStep(shares: [share], keysOf: 0, queryLengths: [5], kvLengths: [4])
        }
    }
}

@Suite struct RankEnvironmentTests {
    private func environment(_ variables: [String: String]) throws -> RankEnvironment {
        try RankEnvironment { variables[$0] }
    }

    private let good = [
        "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "29500",
    ]

    @Test func whatTorchrunSets() throws {
        let found = try environment(good)
        #expect(found.rank == 3 && found.worldSize == 4 && found.localRank == 1)
        #expect(found.masterAddress == "node0" && found.masterPort == 29500)
        // torchrun's own store has the port.
        var torchrun = good
        torchrun["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        #expect(try environment(torchrun).masterPort == 29501)
        // One rank needs no place to meet, and a missing local rank is the rank.
        let sole = try environment(["RANK": "0", "WORLD_SIZE": "1"])
        #expect(sole.localRank == 0 && sole.worldSize == 1)
    }

    @Test(arguments: [
        ("RANK", nil, "not set"), ("RANK", "4", "'4'"), ("RANK", "-1", "'-1'"), ("RANK", "one", "'one'"),
        ("WORLD_SIZE", nil, "not set"), ("WORLD_SIZE", "0", "'0'"), ("WORLD_SIZE", "", "not set"),
        ("LOCAL_RANK", "x", "'x'"), ("MASTER_ADDR", nil, "not set"), ("MASTER_PORT", nil, "not set"),
        ("MASTER_PORT", "70000", "'70000'"), ("MASTER_PORT", "0", "'0'"),
    ])
    func errorsNameTheVariable(_ name: String, _ value: String?, _ found: String) throws {
        var variables = good
        variables[name] = value
        #expect(
            "\(outcome(variables))".hasPrefix(found == "not set" ? "\(name) is not set" : "\(name) is \(found), but"))
    }

    private func outcome(_ variables: [String: String]) -> String {
        do { return "\(try environment(variables))" } catch { return "\(error)" }
    }
}
