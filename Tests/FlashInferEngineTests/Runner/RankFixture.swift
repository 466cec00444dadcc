import FlashInferEngine
import TestSupport

/// Decoders on several ranks, each a thread with a CPU of its own.
enum RankFixture {
    /// Runs `body` on rank 0, whose steps the others compute with it.
    static func onRanks<Result: Sendable>(
        _ count: Int, _ weights: ModelWeights, _ options: DecoderOptions,
        device: @escaping @Sendable (Int) throws -> any Device = { _ in CPUDevice(threads: 1) },
        join: @escaping @Sendable (ThreadCommunicator, any Device) throws -> any Communicator = { ranks, _ in ranks },
        _ body: @escaping @Sendable (DecoderRunner) throws -> Result
    ) throws -> Result {
        let results: [Result?] = try onThreads(ThreadCommunicator.ranks(count)) { thread in
            let device = try device(thread.rank)
            let runner = try DecoderRunner(
                weights, options: options, on: device, across: count == 1 ? nil : try join(thread, device))
            if thread.rank > 0 {
                try runner.follow()
                return nil
            }
            defer { runner.finish() }
            return try body(runner)
        }
        return results[0]!
    }

    /// What each of as many ranks as there are options throws where they make runners together.
    static func errors(_ given: [(weights: ModelWeights, options: DecoderOptions)]) -> [FlashInferError?] {
        outcomes(ThreadCommunicator.ranks(given.count)) { thread in
            let (weights, options) = given[thread.rank]
            _ = try DecoderRunner(weights, options: options, on: CPUDevice(threads: 1), across: thread)
        }.map { outcome in
            if case .failure(let error) = outcome { error as? FlashInferError } else { nil }
        }
    }

    /// Follows rank 0 on threads of their own until it finishes.
    static func follow(_ ranks: ArraySlice<ThreadCommunicator>, _ weights: ModelWeights, _ options: DecoderOptions) {
        startThreads(Array(ranks)) { thread in
            try? DecoderRunner(weights, options: options, on: CPUDevice(threads: 1), across: thread).follow()
        }
    }

    /// `count` token ids of the tiny models' vocabulary.
    static func prompt(_ count: Int, seed: Int) -> [Int32] {
        (0..<count).map { Int32(($0 * $0 * 7 + $0 * 13 + seed * 29) % 61 + 1) }
    }
}

/// Threads as the ranks of a device that replays: collectives are captured and replayed with its operations.
struct ReplayingRanks: Communicator {
    let threads: ThreadCommunicator
    let replaying: ReplayingDevice

    var rank: Int { threads.rank }
    var worldSize: Int { threads.worldSize }
    var device: DeviceID { threads.device }
    var isCapturable: Bool { true }

    func allGather(_ source: MemoryRegion, into destination: MemoryRegion) throws(FlashInferError) {
        try replaying.perform { () throws(FlashInferError) in try threads.allGather(source, into: destination) }
    }

    func passOn(_ source: MemoryRegion, receiving destination: MemoryRegion) throws(FlashInferError) {
        try replaying.perform { () throws(FlashInferError) in try threads.passOn(source, receiving: destination) }
    }

    func gatherMessages(_ message: [UInt8]) throws(FlashInferError) -> [[UInt8]] {
        try threads.gatherMessages(message)
    }
}
