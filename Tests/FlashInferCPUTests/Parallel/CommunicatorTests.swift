import CRanks
import FlashInferCPU
import FlashInferCore
import Foundation
import TestSupport
import Testing

/// Ranks as threads and over sockets: the same collectives, the same errors, and never a wait without an end.
@Suite(.timeLimit(.minutes(10))) struct CommunicatorTests {
    enum Kind: CaseIterable, Sendable {
        case threads, sockets
    }

    private static func ranks(
        _ kind: Kind, _ count: Int, timeout: Duration = .seconds(20)
    ) throws -> [any Communicator] {
        switch kind {
        case .threads: return ThreadCommunicator.ranks(count, timeout: timeout)
        case .sockets:
            let port = freePort()
            return try onThreads(Array(0..<count)) { rank in
                try SocketCommunicator(
                    RankEnvironment(rank: rank, worldSize: count, masterPort: port), timeout: timeout)
            }
        }
    }

    private static func region(_ bytes: UnsafeMutableRawBufferPointer) -> MemoryRegion {
        MemoryRegion(UnsafeRawBufferPointer(bytes))
    }

    @Test(arguments: Kind.allCases, [2, 3, 4])
    func everyRankHasEverybodysPart(_ kind: Kind, _ count: Int) throws {
        let ranks = try Self.ranks(kind, count)
        // Larger than a socket's buffers, so that everybody sends and receives at once.
        for size in [0, 1, 1000, 3 << 20] {
            let gathered = try onThreads(ranks) { ranks -> [UInt8] in
                var all = [UInt8](repeating: 0xff, count: size * ranks.worldSize)
                try all.withUnsafeMutableBytes { all in
                    let own = UnsafeMutableRawBufferPointer(
                        rebasing: all[ranks.rank * size..<(ranks.rank + 1) * size])
                    for index in own.indices { own[index] = UInt8(truncatingIfNeeded: index &* 31 &+ ranks.rank) }
                    try ranks.allGather(Self.region(own), into: Self.region(all))
                }
                return all
            }
            let expected = (0..<count).flatMap { rank in
                (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ rank) }
            }
            for all in gathered { #expect(all == expected) }
        }
    }

    @Test(arguments: Kind.allCases, [2, 3, 4])
    func aStepRoundTheRing(_ kind: Kind, _ count: Int) throws {
        let ranks = try Self.ranks(kind, count)
        // Each rank sends as many bytes as it has rank and more.
        let received = try onThreads(ranks) { ranks -> [UInt8] in
            let mine = [UInt8](repeating: UInt8(ranks.rank), count: 100_000 * ranks.rank)
            var theirs = [UInt8](repeating: 0xff, count: 100_000 * ranks.previousRank)
            try mine.withUnsafeBytes { mine in
                try theirs.withUnsafeMutableBytes { theirs in
                    try ranks.passOn(MemoryRegion(mine), receiving: Self.region(theirs))
                }
            }
            return theirs
        }
        for (rank, bytes) in received.enumerated() {
            let previous = (rank + count - 1) % count
            #expect(bytes == [UInt8](repeating: UInt8(previous), count: 100_000 * previous))
        }
    }

    @Test(arguments: Kind.allCases)
    func messagesOfAnyLength(_ kind: Kind) throws {
        let ranks = try Self.ranks(kind, 3)
        let gathered = try onThreads(ranks) { ranks in
            try ranks.barrier()
            return try ranks.gatherMessages([UInt8](repeating: 7, count: ranks.rank * 10))
        }
        for messages in gathered { #expect(messages.map(\.count) == [0, 10, 20]) }
    }

    @Test(arguments: Kind.allCases)
    func ranksThatDisagreeAreNamed(_ kind: Kind) throws {
        let ranks = try Self.ranks(kind, 3)
        for outcome in outcomes(ranks, { try $0.requireAgreement([("rows", 8), ("heads", $0.rank == 2 ? 4 : 32)]) }) {
            #expect(
                throws: FlashInferError.rankMismatch("heads", rank: 2, found: "4", expected: "32, as on rank 0")
            ) {
                try outcome.get()
            }
        }
        // Agreement is no failure: the ranks go on.
        _ = try onThreads(ranks) { try $0.requireAgreement([("rows", 8)]) }
    }

    @Test(arguments: Kind.allCases)
    func differentSizesAreErrorsOnAllRanks(_ kind: Kind) throws {
        let ranks = try Self.ranks(kind, 3, timeout: .seconds(10))
        let found = outcomes(ranks) { ranks in
            let size = ranks.rank == 1 ? 64 : 32
            var all = [UInt8](repeating: 0, count: 3 * size)
            try all.withUnsafeMutableBytes { all in
                let own = UnsafeMutableRawBufferPointer(rebasing: all[..<size])
                try ranks.allGather(Self.region(own), into: Self.region(all))
            }
        }
        for outcome in found {
            guard case .failure(FlashInferError.rankMismatch(let argument, _, _, _)) = outcome else {
                Issue.record("\(outcome)")
                continue
            }
            #expect(argument == "bytes of all-gather")
        }
    }

    @Test(arguments: Kind.allCases)
    func differentCollectivesAreErrors(_ kind: Kind) throws {
        let ranks = try Self.ranks(kind, 2, timeout: .seconds(10))
        let found = outcomes(ranks) { ranks in
            if ranks.rank == 0 { return try ranks.barrier() }
            let mine = [UInt8](repeating: 0, count: 8)
            var theirs = [UInt8](repeating: 0, count: 8)
            try mine.withUnsafeBytes { mine in
                try theirs.withUnsafeMutableBytes { theirs in
                    try ranks.passOn(MemoryRegion(mine), receiving: Self.region(theirs))
                }
            }
        }
        for outcome in found {
            guard case .failure(FlashInferError.rankMismatch) = outcome else {
                Issue.record("\(outcome)")
                continue
            }
        }
    }

    @Test(arguments: Kind.allCases)
    func aRankThatIsLateOrGoneIsNamed(_ kind: Kind) throws {
        // Late: rank 2 does not come.
        let ranks = try Self.ranks(kind, 3, timeout: .milliseconds(300))
        let late = outcomes(Array(ranks[..<2])) { try $0.barrier() }
        for outcome in late {
            guard case .failure(FlashInferError.rankFailure(let rank, _, _)) = outcome else {
                Issue.record("\(outcome)")
                continue
            }
            #expect(rank == 2 || kind == .sockets)
        }
        // Of no use any more, and that at once.
        for rank in ranks[..<2] { #expect(throws: FlashInferError.self) { try rank.barrier() } }

        // Gone: rank 1's communicator ends while the others wait.
        var more: [any Communicator] = try Self.ranks(kind, 3)
        let staying = [more[0], more[2]]
        more = []
        let start = ContinuousClock.now
        for outcome in outcomes(staying, { try $0.barrier() }) {
            guard case .failure(FlashInferError.rankFailure) = outcome else {
                Issue.record("\(outcome)")
                continue
            }
        }
        #expect(ContinuousClock.now - start < .seconds(10))
    }

    /// Nobody is asked, and nothing that is on its way is lost by looking.
    @Test(arguments: Kind.allCases)
    func aRankThatLeavesIsNoticed(_ kind: Kind) throws {
        let ranks = try Self.ranks(kind, 3)
        let messages = outcomes(ranks) { rank -> [[UInt8]] in
            _ = rank.departedRank
            return try rank.gatherMessages([UInt8(rank.rank)])
        }
        for message in messages { #expect(try message.get() == [[0], [1], [2]]) }
        for rank in ranks { #expect(rank.departedRank == nil) }

        ranks[1].leave()
        let end = ContinuousClock.now + .seconds(10)
        for rank in [ranks[0], ranks[2]] {
            while rank.departedRank != 1, ContinuousClock.now < end { usleep(1000) }
            #expect(rank.departedRank == 1)
        }
        for outcome in outcomes(ranks, { try $0.barrier() }) {
            guard case .failure(FlashInferError.rankFailure) = outcome else {
                Issue.record("\(outcome)")
                continue
            }
        }
    }

    /// What is said where a rank cannot meet others.
    private func complaint(_ rank: Int, port: Int, address: String = "127.0.0.1", timeout: Duration) -> String {
        do {
            let environment = try RankEnvironment(
                rank: rank, worldSize: 2, masterAddress: address, masterPort: port)
            return "met \(try SocketCommunicator(environment, timeout: timeout).worldSize)"
        } catch {
            return "\(error)"
        }
    }

    @Test func placesThatAreOfNoUse() throws {
        // Somebody else has the port.
        var port: UInt16 = 0
        let taken = fi_socket_listen("127.0.0.1", 0, &port)
        defer { fi_socket_close(taken) }
        #expect(complaint(0, port: Int(port), timeout: .seconds(1)).hasPrefix("MASTER_PORT is \(port), but must be"))
        let nowhere = complaint(1, port: 29500, address: "no.such.host.invalid", timeout: .seconds(1))
        #expect(nowhere.hasPrefix("MASTER_ADDR is 'no.such.host.invalid', but must be"))
        // Nobody comes, nobody listens.
        let free = freePort()
        #expect(
            complaint(0, port: free, timeout: .milliseconds(200))
                == "rank 1: rendezvous at 127.0.0.1:\(free) failed: it did not come within 0.2 s; 1 of 2 ranks are here"
        )
        #expect(complaint(1, port: free, timeout: .milliseconds(200)).hasPrefix("rank 0: connecting to 127.0.0.1:"))
    }

    @Test func processesThatDisagreeDoNotMeet() throws {
        let port = freePort()
        // Rank 1 believes in another world.
        let sizes = outcomes([(0, 2), (1, 3)]) { rank, worldSize in
            _ = try SocketCommunicator(
                RankEnvironment(rank: rank, worldSize: worldSize, masterPort: port), timeout: .seconds(5))
        }
        for outcome in sizes {
            guard case .failure(FlashInferError.rankMismatch(let name, let rank, _, _)) = outcome else {
                Issue.record("\(outcome)")
                continue
            }
            #expect(name == "WORLD_SIZE" && rank == 1)
        }
        // Two processes are rank 1, and none is rank 2.
        let second = freePort()
        let twice = outcomes([0, 1, 1]) { rank in
            _ = try SocketCommunicator(
                RankEnvironment(rank: rank, worldSize: 3, masterPort: second), timeout: .seconds(5))
        }
        for outcome in twice {
            guard case .failure(FlashInferError.rankMismatch(let name, let rank, _, _)) = outcome else {
                Issue.record("\(outcome)")
                continue
            }
            #expect(name == "RANK" && rank == 1)
        }
    }

    @Test func strangersAtTheDoorAreIgnored() throws {
        let port = freePort()
        let ranks = try onThreads([0, 1, -1]) { rank -> (any Communicator)? in
            if rank >= 0 {
                if rank == 1 { Thread.sleep(forTimeInterval: 0.3) }
                return try SocketCommunicator(
                    RankEnvironment(rank: rank, worldSize: 2, masterPort: port), timeout: .seconds(10))
            }
            Thread.sleep(forTimeInterval: 0.1)
            let stranger = fi_socket_connect("127.0.0.1", UInt16(port), 1000)
            let text = Array("GET / HTTP/1.1\r\nHost: somewhere else entirely\r\n\r\n".utf8)
            _ = fi_socket_send(stranger, text, text.count)
            Thread.sleep(forTimeInterval: 0.5)
            fi_socket_close(stranger)
            return nil
        }
        _ = try onThreads(ranks.compactMap { $0 }) { try $0.barrier() }
    }

    @Test func wrongRegionsAreErrors() throws {
        let ranks = ThreadCommunicator.ranks(2)
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 64, alignment: 64)
        defer { bytes.deallocate() }
        let all = Self.region(bytes)
        #expect(
            throws: FlashInferError.lengthMismatch("all-gather destination (bytes)", found: 64, expected: 128)
        ) {
            try ranks[0].allGather(all, into: all)
        }
        let elsewhere = MemoryRegion(address: 64, byteCount: 32, device: .cuda(0))
        #expect(
            throws: FlashInferError.invalidArgument(
                "all-gather source", found: "on cuda:0", expected: "on cpu, as its communicator")
        ) {
            try ranks[0].allGather(elsewhere, into: all)
        }
        #expect(
            throws: FlashInferError.invalidArgument(
                "ring destination", found: "overlapping the source", expected: "apart from it")
        ) {
            try ranks[0].passOn(all, receiving: all)
        }
    }
}
