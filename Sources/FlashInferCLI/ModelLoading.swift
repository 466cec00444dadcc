import FlashInferEngine
import Foundation

/// What a command asks the engine for, once it knows its prompts.
struct ServingPlan {
    /// The most requests at a time.
    var parallel: Int
    /// For each prompt, the most tokens it can come to.
    var lengths: [Int]
}

/// An engine, and what it runs on.
struct Served: Sendable {
    let engine: Engine
    let model: String
    let device: String

    /// The table of what was served.
    func table(_ requests: [GenerationStatistics], elapsed: Duration) async -> String {
        await StatisticsTable(
            model: model, device: device, status: engine.status, requests: requests, elapsed: elapsed
        ).text
    }
}

extension LanguageModel {
    /// Packs the weights and makes an engine whose cache is large enough for `plan`, unless that takes more than half
    /// of the device's memory or the flags say otherwise.
    func serve(_ plan: ServingPlan, _ flags: EngineFlags, progress: ProgressLine) throws -> Served {
        let device = try flags.device.makeDevice(threads: flags.threads)
        let limit = flags.maxContext ?? config.contextLength
        var options = DecoderOptions()
        // A GPU needs more rows at a time to be busy with a prompt.
        options.maximumBatchTokens = flags.batchTokens ?? (device.readsHostMemory ? 512 : 2048)
        options.maximumSequences = min(plan.parallel, options.maximumBatchTokens)
        options.pageSize = flags.pageSize
        options.cacheType = flags.kvCacheType
        options.cacheScale = flags.kvCacheScale
        let lengths = plan.lengths.map { min($0, limit) }.sorted(by: >)
        let wanted = lengths.prefix(options.maximumSequences).map { ($0 - 1) / flags.pageSize + 1 }.reduce(0, +)
        let memory = device.limits.memoryByteCount ?? Int(clamping: ProcessInfo.processInfo.physicalMemory)
        let affordable = memory / 2 / max(1, cacheByteCount(perTokenOf: flags.kvCacheType) * flags.pageSize)
        options.pageCount = flags.cachePages ?? max(1, min(wanted, affordable))
        defer { progress.clear() }
        let engine = try makeEngine(options, contextLength: limit, on: device) { fraction in
            progress.show("Loading \(name)", fraction: fraction)
        }
        // Packing does not stop halfway; a Ctrl-C meanwhile counts here.
        try Task.checkCancellation()
        return Served(engine: engine, model: name, device: device.name)
    }
}

/// From what the user typed to a model in memory.
enum ModelLoading {
    /// The model that commands use when none is named.
    static let defaultModel = CatalogueModel.smolLM2.name

    /// Opens a model, fetching it first if it is a known one that is not here yet.
    static func open(_ nameOrPath: String, progress: ProgressLine) async throws -> LanguageModel {
        try LanguageModel(path: try await locate(nameOrPath, progress: progress).path)
    }

    /// Finds a model's files, fetching them first if it is a known one that is not here yet.
    static func locate(_ nameOrPath: String, progress: ProgressLine) async throws -> URL {
        let store = ModelStore()
        guard let known = ModelStore.catalogueModel(named: nameOrPath), !store.contains(known) else {
            return try store.locate(nameOrPath)
        }
        defer { progress.clear() }
        let size = "\((known.downloadBytes + 500_000) / 1_000_000) MB"
        return try await store.fetch(known) { report in
            switch report.stage {
            case .waiting: progress.show("Waiting for another process that fetches \(known.summary)")
            case .downloading:
                progress.show("Fetching \(known.summary), \(size), \(known.license)", fraction: report.fraction)
            case .unpacking: progress.show("Unpacking and checking \(known.summary)")
            case .finished: break
            }
        }
    }
}
