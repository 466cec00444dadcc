import FlashInferEngine
import Foundation

/// The processes that a launcher (torchrun, `Scripts/launch-ranks`) has started to work on the same requests, this one among them.
struct LaunchedRanks: Sendable {
    /// Which of them this is; `nil` for a process by itself.
    private let environment: RankEnvironment?

    /// What the environment's variables say.
    init() throws {
        let found = RankEnvironment.isSet ? try RankEnvironment.current : nil
        environment = found.flatMap { $0.worldSize > 1 ? $0 : nil }
    }

    /// The number of ranks.
    var count: Int { environment?.worldSize ?? 1 }

    /// Whether this is the one that reads prompts and prints answers.
    var isFirst: Bool { environment.map { $0.rank == 0 } ?? true }

    /// Ranks on this machine, which share its processors and its memory.
    var countHere: Int { environment?.localWorldSize ?? 1 }

    /// This rank's device: of GPUs, the one of its number on this machine.
    func device(_ choice: DeviceChoice, threads: Int?) throws -> any Device {
        guard let environment else { return try choice.makeDevice(threads: threads) }
        let threads = threads ?? max(1, ProcessInfo.processInfo.activeProcessorCount / countHere)
        switch choice {
        case .cpu: return try choice.makeDevice(threads: threads)
        case .cuda(0): return try DeviceChoice.cuda(environment.localRank).makeDevice()
        case .cuda(let number):
            throw CommandError(
                "--device cuda:\(number) is one GPU, but \(count) ranks take one each, by LOCAL_RANK: say cuda")
        case .automatic:
            let gpu = try? DeviceChoice.cuda(environment.localRank).makeDevice()
            return try gpu ?? DeviceChoice.cpu.makeDevice(threads: threads)
        }
    }

    /// Meets the others.
    ///
    /// - Parameters:
    ///   - device: what this rank computes on.
    ///   - transport: what carries the ranks' data.
    /// - Returns: `nil` for a process by itself.
    func join(on device: any Device, _ transport: Communicators.Transport) throws -> (any Communicator)? {
        guard let environment else { return nil }
        let host = try SocketCommunicator(environment)
        // Ranks that differ would wait for each other's NCCL for ever.
        let gpus = try host.gatherMessages([device.id == .cpu ? 0 : 1])
        if let other = gpus.firstIndex(where: { $0 != gpus[0] }) {
            func kind(_ rank: Int) -> String { gpus[rank] == [0] ? "a CPU" : "a GPU" }
            throw FlashInferError.rankMismatch(
                "the device", rank: other, found: kind(other), expected: "\(kind(0)), as on rank 0")
        }
        return try Communicators.join(host, on: device, transport: transport)
    }
}

extension Communicator {
    /// The cache's pages and the largest step's sequences, the same for all: as many as rank 0 wants, as far as every rank can afford
    /// the pages.
    func settle(pages: Int, affordable: Int, sequences: Int) throws -> (pages: Int, sequences: Int) {
        let own = "\(pages) \(affordable) \(sequences)"
        let all = try gatherMessages(Array(own.utf8)).map { message in
            String(decoding: message, as: UTF8.self).split(separator: " ").compactMap { Int($0) }
        }
        guard all.allSatisfy({ $0.count == 3 }) else { throw CommandError("the ranks are of different versions") }
        return (min(all[0][0], all.map { $0[1] }.min()!), all[0][2])
    }
}
