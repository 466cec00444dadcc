import ArgumentParser
import FlashInfer
import Foundation

/// `flashinfer ranks`
struct RanksCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ranks",
        abstract: "Check that several processes, each with its device, can work on one request.",
        discussion: """
            Start it once for each rank, by torchrun or 'Scripts/launch-ranks 2 flashinfer ranks': each process takes the GPU of its \
            LOCAL_RANK, or the CPU. The ranks meet, attend to one request whose keys are spread over them, and compare the \
            result with what each computes alone.
            """)

    @Option(help: "What ranks compute on: cuda (one GPU a rank) or cpu.")
    var device = "cuda"

    @Option(help: "What carries their data: automatic (NCCL and peer memory between GPUs), nccl or host.")
    var transport = "automatic"

    @Option(parsing: .unconditional, help: "Keys of the request.")
    var length = 1000

    @Option(
        parsing: .unconditional,
        help: "How often to compute it together: often, to find connections that fail now and then.")
    var rounds = 1

    @Option(parsing: .unconditional, help: "Seconds to wait for the other ranks.")
    var timeout = 60.0

    func validate() throws {
        guard ["cpu", "cuda"].contains(device) else {
            throw ValidationError("--device is cuda or cpu, not '\(device)'")
        }
        guard Communicators.Transport(rawValue: transport) != nil else {
            throw ValidationError("--transport is automatic, nccl or host, not '\(transport)'")
        }
        guard length >= 1, length <= 1 << 20 else { throw ValidationError("--length is 1 to 1048576, not \(length)") }
        try require("--rounds", rounds, atLeast: 1)
        guard timeout > 0, timeout <= 1e6 else {
            throw ValidationError("--timeout is \(timeout), but must be above 0 and at most 1000000.")
        }
    }

    private static let (queryHeads, kvHeads, headDim, pageSize) = (8, 2, 64, 16)

    func run() throws {
        let environment = try RankEnvironment.current
        let device = try Devices.make(named: device == "cpu" ? "cpu" : "cuda:\(environment.localRank)")
        let ranks = try Communicators.join(
            environment, on: device, transport: Communicators.Transport(rawValue: transport)!,
            timeout: .milliseconds(Int(timeout * 1000)))
        let names = try ranks.gatherMessages(Array(device.name.utf8)).map { String(decoding: $0, as: UTF8.self) }
        for round in 1...rounds {
            let difference = try compare(ranks, on: device)
            let differences = try ranks.gatherMessages(Array("\(difference)".utf8)).map {
                Float(String(decoding: $0, as: UTF8.self)) ?? .nan
            }
            if ranks.rank == 0, round == 1 {
                for (rank, name) in names.enumerated() {
                    Terminal.write(
                        "rank \(rank) of \(ranks.worldSize): \(name), largest difference \(differences[rank])\n")
                }
            }
            // Sums of up to a million keys in float32, of outputs below 1.
            guard differences.allSatisfy({ $0 <= 0x1p-8 }) else {
                throw CommandError(
                    "the ranks' results differ from one rank's in round \(round) of \(rounds): by "
                        + differences.map { "\($0)" }.joined(separator: ", "))
            }
        }
        if ranks.rank == 0 { Terminal.write("\(ranks.worldSize) ranks give what one gives\n") }
    }

    /// The largest difference between what all ranks together and this one alone compute.
    private func compare(_ ranks: any Communicator, on device: any Device) throws -> Float {
        let share = try KVShare(
            .interleaved(pages: 1), pageSize: Self.pageSize, rank: ranks.rank, worldSize: ranks.worldSize)
        let all = try KVShare(.interleaved(pages: 1), pageSize: Self.pageSize, rank: 0, worldSize: 1)
        let pages = all.pageCount(forLength: length)
        let cacheShape: Shape = [pages, 2, Self.pageSize, Self.kvHeads, Self.headDim]
        var state: UInt32 = 1
        func number() -> Float16 {
            state = state &* 1_664_525 &+ 1_013_904_223
            return Float16(Float(state >> 8) / Float(1 << 23) - 1)
        }
        let cache = try DeviceBuffer(
            on: device, (0..<cacheShape.elementCount!).map { _ in number() }, shape: cacheShape)
        let shape: Shape = [1, Self.queryHeads, Self.headDim]
        let queries = try DeviceBuffer(on: device, (0..<shape.elementCount!).map { _ in number() }, shape: shape)
        let alone = try DeviceBuffer(on: device, dtype: .float32, shape: shape)
        let together = try DeviceBuffer(on: device, dtype: .float32, shape: shape)
        // Every rank has the whole cache here, and reads its own pages of it.
        func problem(_ share: KVShare) throws -> AttentionProblem {
            let count = share.pageCount(forLength: length)
            return try AttentionProblem(
                geometry: .paged(
                    shares: [share], kvLengths: [Int32(length)], pageIndptr: [0, Int32(count)],
                    pageIndices: (0..<count).map { Int32(share.globalPage($0)) }, pageCount: pages),
                shape: AttentionShape(queryHeads: Self.queryHeads, kvHeads: Self.kvHeads, headDimQK: Self.headDim),
                variant: .causal, queryType: .float16, kvType: .float16, outputType: .float32)
        }
        try PlannedAttention(problem(all), on: device).run(
            queries.view, .paged(combined: cache.view), into: alone.view)
        try KVParallelAttention(problem(share), across: ranks, on: device).run(
            queries.view, .paged(combined: cache.view), into: together.view)
        if let ranks = ranks as? NCCLCommunicator { try ranks.synchronize(timeout: .milliseconds(Int(timeout * 1000))) }
        let (expected, found): ([Float], [Float]) = try (device.read(alone.view), device.read(together.view))
        return zip(expected, found).reduce(0) { $1.0.isFinite && $1.1.isFinite ? max($0, abs($1.0 - $1.1)) : .infinity }
    }
}
