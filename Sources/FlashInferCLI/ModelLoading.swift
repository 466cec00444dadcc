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
    /// How the cache lies over ranks; `nil` where it is all here.
    let cache: String?

    /// The table of what was served.
    func table(_ requests: [GenerationStatistics], elapsed: Duration) async -> String {
        await StatisticsTable(
            model: model, device: device, cache: cache, status: engine.status, requests: requests, elapsed: elapsed
        ).text
    }
}

extension LanguageModel {
    /// Packs the weights and makes an engine whose cache is large enough for `plan`, unless that takes more than half
    /// of the device's memory or the flags say otherwise; then runs `body` with it.
    ///
    /// Of several ranks the first does this, with the others' part of the cache, while the others compute what it asks for: they are done
    /// when it is.
    func serve(
        _ plan: ServingPlan, _ flags: EngineFlags, across launched: LaunchedRanks, progress: ProgressLine,
        _ body: (Served) async throws -> Void
    ) async throws {
        let device = try launched.device(flags.device, threads: flags.threads)
        let ranks = try launched.join(on: device, flags.rankTransport)
        let limit = flags.maxContext ?? config.contextLength
        let options = try options(plan, flags, limit: limit, on: device, launched, ranks)
        let load = { fraction in progress.show("Loading \(name)", fraction: fraction) }
        if let ranks, !launched.isFirst {
            defer { progress.clear() }
            return try follow(options, on: device, across: ranks, progress: load)
        }
        let engine = try makeEngine(options, contextLength: limit, on: device, across: ranks, progress: load)
        progress.clear()
        let result: Result<Void, any Error>
        do {
            // Packing does not stop halfway; a Ctrl-C meanwhile counts here.
            try Task.checkCancellation()
            try await body(
                Served(
                    engine: engine, model: name, device: device.name + (ranks == nil ? "" : ", rank 0"),
                    cache: ranks.map { cacheText(options, ranks: $0.worldSize) }))
            result = .success(())
        } catch { result = .failure(error) }
        await engine.finish()
        try result.get()
    }

    /// The cache and the largest step.
    private func options(
        _ plan: ServingPlan, _ flags: EngineFlags, limit: Int, on device: any Device, _ launched: LaunchedRanks,
        _ ranks: (any Communicator)?
    ) throws -> DecoderOptions {
        var options = DecoderOptions()
        // A GPU needs more rows at a time to be busy with a prompt.
        options.maximumBatchTokens = flags.batchTokens ?? (device.readsHostMemory ? 512 : 2048)
        options.maximumSequences = max(1, min(plan.parallel, options.maximumBatchTokens))
        // Rows that see the same of a rank's keys are computed together: as many as its pages are long.
        options.pageSize = flags.pageSize ?? (launched.count > 1 ? 64 : 16)
        options.cacheType = flags.kvCacheType
        options.cacheScale = flags.kvCacheScale ?? 1
        let positions = options.pageSize * launched.count
        let lengths = plan.lengths.map { min($0, limit) }.sorted(by: >)
        let wanted = lengths.prefix(options.maximumSequences).map { ($0 - 1) / positions + 1 }.reduce(0, +)
        let memory = device.limits.memoryByteCount ?? Int(clamping: ProcessInfo.processInfo.physicalMemory)
        let share = device.readsHostMemory ? memory / launched.countHere : memory
        let affordable = share / 2 / max(1, cacheByteCount(perTokenOf: flags.kvCacheType) * options.pageSize)
        let pages = max(1, min(wanted, affordable))
        guard let ranks else {
            options.pageCount = flags.cachePages ?? pages
            return options
        }
        let settled = try ranks.settle(pages: pages, affordable: affordable, sequences: options.maximumSequences)
        options.pageCount = flags.cachePages ?? max(1, settled.pages)
        options.maximumSequences = settled.sequences
        return options
    }

    private func cacheText(_ options: DecoderOptions, ranks: Int) -> String {
        let tokens = options.pageCount * options.pageSize
        let megabytes = Double(tokens * cacheByteCount(perTokenOf: options.cacheType)) / 1e6
        return "\(tokens * ranks) tokens: \(options.pageCount) pages of \(options.pageSize) on each of \(ranks) ranks, "
            + "\(StatisticsTable.decimal(megabytes)) MB each"
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
