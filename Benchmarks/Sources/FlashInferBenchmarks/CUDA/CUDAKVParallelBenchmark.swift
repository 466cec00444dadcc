import ArgumentParser
import FlashInfer
import Foundation

struct CUDAKVParallelBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cuda-kv-parallel",
        abstract: "One long request's decode step on one GPU, and with its keys spread over the GPUs of all ranks.",
        discussion: """
            Started once for each rank, as torchrun or Scripts/launch-ranks do. Every rank first decodes alone over all keys, then all of \
            them together, each over its own; both as a graph of many steps whose median counts. The parts of a step are timed \
            apart: attention to a rank's own keys, the all-gather, the all-gather with the merge. Rank 0 prints, and writes the JSON.
            """)

    @Option(help: "Keys of the request.")
    var length = 262_144

    @Option(help: "Requests.")
    var batch = 1

    @Option(help: "How keys are spread: chunks or interleaved.")
    var split = "interleaved"

    @Option(help: "How states travel: allGather or ring.")
    var form = "allGather"

    @Option(help: "The type in which states travel.")
    var stateType = "float32"

    @Option(help: "What carries them: automatic (peer memory where there is), or nccl.")
    var transport = "automatic"

    @Option(help: "Steps in a graph.")
    var steps = 100

    @Option(help: "Timed replays of each graph.")
    var samples = 9

    @Option(help: "Write the figures to this file as JSON.")
    var json: String?

    @Option(help: "Give up where a rank does not come, or a collective does not end, within this many seconds.")
    var timeout = 30

    struct Report: Codable {
        var device: String
        var ranks: Int
        var length: Int
        var batch: Int
        var split: String
        var form: String
        var stateType: String
        /// What carries states.
        var transport: String
        /// Microseconds of a step.
        var oneGPU: Double
        var allGPUs: Double
        var localAttention: Double
        var allGather: Double
        var allGatherAndMerge: Double
        var speedUp: Double
        /// Slowest replay over fastest.
        var spread: Double
        /// Of bfloat16 outputs, and of LSEs.
        var outputDifference: Double
        var largestOutput: Double
        var lseDifference: Double
    }

    private static let (queryHeads, kvHeads, headDim, pageSize) = (32, 8, 128, 16)

    func run() throws {
        guard let form = StateExchange.Form(rawValue: form), let stateType = DType(stateType),
            let transport = Communicators.Transport(rawValue: transport)
        else {
            throw ValidationError(
                "--form is allGather or ring, --state-type a type's name, --transport automatic or nccl")
        }
        let environment = try RankEnvironment.current
        let gpu = try Devices.make(named: "cuda:\(environment.localRank)")
        let ranks = try Communicators.join(environment, on: gpu, transport: transport, timeout: .seconds(timeout))
        let (worldSize, pages) = (ranks.worldSize, (length + Self.pageSize - 1) / Self.pageSize)

        // Every rank has the whole cache, with the same numbers, so that it can decode alone; together, each reads its own pages of it.
        var arena = try CUDAArena(
            on: gpu, dtype: .bfloat16,
            byteCount: batch * pages * 2 * Self.pageSize * Self.kvHeads * Self.headDim * 2 + 4096)
        let cache = try KVCacheView.paged(
            combined: arena.take([batch * pages, 2, Self.pageSize, Self.kvHeads, Self.headDim]))
        var queryArena = try CUDAArena(on: gpu, dtype: .bfloat16, byteCount: batch * 16384)
        let shape: Shape = [batch, Self.queryHeads, Self.headDim]
        let queries = try queryArena.take(shape)
        func output() throws -> (DeviceBuffer) { try DeviceBuffer(on: gpu, dtype: .bfloat16, shape: shape) }
        let (aloneOutput, output) = try (Box(output()), Box(output()))
        let (aloneLSE, lse) = try (
            Box(DeviceBuffer(on: gpu, dtype: .float32, shape: [batch, Self.queryHeads])),
            Box(DeviceBuffer(on: gpu, dtype: .float32, shape: [batch, Self.queryHeads]))
        )

        let alone = try PlannedAttention(problem(rank: 0, of: 1, pages), on: gpu)
        let together = try KVParallelAttention(
            problem(rank: ranks.rank, of: worldSize, pages), across: ranks, on: gpu, form: form, stateType: stateType)
        let local = try PlannedAttention(problem(rank: ranks.rank, of: worldSize, pages, stateType), on: gpu)
        let exchange = try StateExchange(
            ranks, on: gpu, rows: batch, heads: Self.queryHeads, headDim: Self.headDim, stateType: stateType, form: form
        )
        let (values, sums) = try (exchange.values(batch), exchange.logSumExp(batch))
        let slot = sums.region.byteCount

        let one = try measure(gpu, ranks) { () throws(FlashInferError) in
            try alone.run(queries, cache, into: aloneOutput.view, logSumExp: aloneLSE.view)
        }
        let own = try measure(gpu, ranks) { () throws(FlashInferError) in
            try local.run(queries, cache, into: values, logSumExp: sums)
        }
        let all = try DeviceBuffer(on: gpu, dtype: .uint8, shape: [slot * worldSize])
        let part = MemoryRegion(
            address: all.region.address + UInt(ranks.rank * slot), byteCount: slot, device: gpu.id)
        let gather = try measure(gpu, ranks) { () throws(FlashInferError) in
            try ranks.allGather(part, into: all.region)
        }
        let merge = try measure(gpu, ranks) { () throws(FlashInferError) in
            try exchange.merge(rows: batch, into: output.view, logSumExp: lse.view)
        }
        let step = try measure(gpu, ranks) { () throws(FlashInferError) in
            try together.run(queries, cache, into: output.view, logSumExp: lse.view)
        }

        let (expected, found): ([BFloat16], [BFloat16]) = try (gpu.read(aloneOutput.view), gpu.read(output.view))
        let (expectedLSE, foundLSE): ([Float], [Float]) = try (gpu.read(aloneLSE.view), gpu.read(lse.view))
        func difference(_ a: [Float], _ b: [Float]) -> Double {
            zip(a, b).reduce(0) { largest, pair in
                let distance = Double(abs(pair.0 - pair.1))
                return distance.isNaN ? .nan : max(largest, distance)
            }
        }
        let report = Report(
            device: gpu.name, ranks: worldSize, length: length, batch: batch, split: split, form: form.rawValue,
            stateType: "\(stateType)", transport: "\(ranks)", oneGPU: one.microseconds, allGPUs: step.microseconds,
            localAttention: own.microseconds, allGather: gather.microseconds, allGatherAndMerge: merge.microseconds,
            speedUp: one.microseconds / step.microseconds, spread: step.spread,
            outputDifference: difference(expected.map { Float($0) }, found.map { Float($0) }),
            largestOutput: expected.reduce(0) { max($0, Double(abs(Float($1)))) },
            lseDifference: difference(expectedLSE, foundLSE))
        guard report.outputDifference.isFinite, report.largestOutput > 0 else {
            throw FlashInferError.deviceFailure(call: "attention", message: "the output is not finite, or nothing")
        }
        try ranks.barrier()
        guard ranks.rank == 0 else { return }
        printTable(report)
        try writeJSON(report, to: json)
    }

    /// A rank's keys are its pages of the whole cache.
    private func problem(
        rank: Int, of worldSize: Int, _ pages: Int, _ outputType: DType = .bfloat16
    ) throws -> AttentionProblem {
        let split: KVSplit
        switch self.split {
        case "chunks": split = .chunks(ofLength: length, pageSize: Self.pageSize, ranks: worldSize)
        case "interleaved": split = .interleaved(pages: 1)
        default: throw ValidationError("--split is chunks or interleaved, not '\(self.split)'")
        }
        let share = try KVShare(split, pageSize: Self.pageSize, rank: rank, worldSize: worldSize)
        // Pages in random order, as a server's pool hands them out after a while.
        var random = Random(state: 1)
        let pool = (0..<Int32(batch * pages)).shuffled(using: &random)
        let count = share.pageCount(forLength: length)
        let indices = (0..<batch).flatMap { request in
            (0..<count).map { pool[request * pages + share.globalPage($0)] }
        }
        return try AttentionProblem(
            geometry: .paged(
                shares: .init(repeating: share, count: batch), kvLengths: .init(repeating: Int32(length), count: batch),
                pageIndptr: (0...batch).map { Int32($0 * count) }, pageIndices: indices, pageCount: batch * pages),
            shape: AttentionShape(queryHeads: Self.queryHeads, kvHeads: Self.kvHeads, headDimQK: Self.headDim),
            variant: .causal, queryType: .bfloat16, kvType: .bfloat16, outputType: outputType)
    }

    private struct Timing {
        var microseconds: Double
        var spread: Double
    }

    /// A graph of as many steps on every rank, replayed by all at once.
    private func measure(
        _ gpu: any Device, _ ranks: any Communicator, _ body: () throws(FlashInferError) -> Void
    ) throws -> Timing {
        for _ in 0..<3 { try body() }
        try wait(gpu, ranks)
        let recorded = try gpu.capture { () throws(FlashInferError) in for _ in 0..<steps { try body() } }
        guard let graph = recorded else {
            throw FlashInferError.unsupported("graphs", device: gpu.name, nearest: "a CUDA device")
        }
        var times: [Double] = []
        for sample in 0..<samples + 2 {
            try ranks.barrier()
            let seconds = try time {
                try graph.replay()
                try wait(gpu, ranks)
            }
            if sample >= 2 { times.append(seconds) }
        }
        return Timing(
            microseconds: times.median / Double(steps) * 1e6, spread: (times.max() ?? 0) / (times.min() ?? 1))
    }

    /// Waits for the GPU, but not for ever where others are gone.
    private func wait(_ gpu: any Device, _ ranks: any Communicator) throws {
        if let ranks = ranks as? NCCLCommunicator { return try ranks.synchronize(timeout: .seconds(timeout)) }
        try gpu.synchronize()
    }

    private func printTable(_ report: Report) {
        print(
            "\(report.device), \(report.ranks) ranks: \(report.batch) x \(report.length) keys, \(report.split), "
                + "\(report.form), states in \(report.stateType); \(report.transport)")
        var table = Table(headings: ["step", "us"])
        for (name, value) in [
            ("one GPU", report.oneGPU), ("\(report.ranks) GPUs", report.allGPUs),
            ("  attention to own keys", report.localAttention), ("  all-gather", report.allGather),
            ("  exchange and merge", report.allGatherAndMerge),
        ] { table.rows.append([name, value.fixed(1)]) }
        table.print()
        print(
            "speed-up \(report.speedUp.fixed(2)), spread \(report.spread.fixed(3)); largest difference of outputs "
                + "\(report.outputDifference) of \(report.largestOutput), of LSEs \(report.lseDifference)")
    }
}

/// A buffer that a tuple can hold.
private final class Box {
    let buffer: DeviceBuffer
    var view: TensorView { buffer.view }

    init(_ buffer: consuming DeviceBuffer) { self.buffer = buffer }
}
