internal import FlashInfer

/// The keys and values of every sequence, spread over ranks: KV-sequence parallelism of a whole model.
///
/// Every rank has all weights and computes all rows; what a rank keeps of the cache is its part. A page of the pool, which the scheduler
/// knows, stands for the page of the same number on every rank: its positions are cut into as many runs as there are ranks, and rank r
/// has the r-th (``KVSplit/interleaved(pages:)`` of one page). So all ranks have one page table, prefixes are found and pages pushed out
/// on all of them alike, and a pool of so many pages holds as many times the tokens as there are ranks.
struct KeySpread: Sendable {
    /// The ranks.
    let ranks: any Communicator
    /// What this rank has of each sequence.
    let share: KVShare

    /// The positions of a page of the pool.
    var positionsPerPage: Int { share.pageSize * share.worldSize }

    /// How keys are spread; `nil` for one rank.
    ///
    /// - Throws: ``FlashInferError/unsupported(_:device:nearest:)`` for models with windows, whose keys' positions a rank does not know,
    ///   and ``FlashInferError/rankMismatch(_:rank:found:expected:)`` on all ranks where one was given another model or other options.
    init?(
        _ weights: ModelWeights, _ options: DecoderOptions, on device: any Device, across ranks: (any Communicator)?
    ) throws(FlashInferError) {
        guard let ranks, ranks.worldSize > 1 else { return nil }
        guard ranks.device == device.id else {
            throw .invalidArgument("communicator", found: "on \(ranks.device)", expected: "on \(device.id)")
        }
        if weights.config.slidingWindow != nil {
            throw .unsupported(
                "sliding windows over the keys of \(ranks.worldSize) ranks", device: device.name,
                nearest: "the model on one rank, or a model whose layers all see everything")
        }
        if options.isBatchInvariant {
            throw .unsupported(
                "tokens that are the same bit for bit next to any neighbours, on \(ranks.worldSize) ranks",
                device: device.name, nearest: "one rank's")
        }
        try ranks.requireAgreement(onText: Self.facts(weights, options, device))
        self.ranks = ranks
        share = try KVShare(
            .interleaved(pages: 1), pageSize: options.pageSize, rank: ranks.rank, worldSize: ranks.worldSize)
    }

    /// What all ranks must have in common, in the order in which a user would look for what differs.
    private static func facts(
        _ weights: ModelWeights, _ options: DecoderOptions, _ device: any Device
    ) -> [(name: String, value: String)] {
        let config = weights.config
        let kind =
            switch device.id {
            case .cpu: "a CPU"
            default: "a GPU"
            }
        return [
            ("the device", kind),
            (
                "the model",
                "\(config.architecture.rawValue) of \(config.layerCount) layers, hidden size \(config.hiddenSize), "
                    + "\(weights.byteCount) bytes, fingerprint \(weights.fingerprint)"
            ),
            ("the page size", "\(options.pageSize)"), ("the number of cache pages", "\(options.pageCount)"),
            ("the cache's type", "\(options.cacheType)"), ("the cache's scale", "\(options.cacheScale)"),
            ("the most tokens of a step", "\(options.maximumBatchTokens)"),
            ("the most sequences of a step", "\(options.maximumSequences)"),
        ]
    }

    /// Checks that the device attends to a part of the keys in every type that the ranks exchange.
    func requireKernels(
        _ config: ModelConfig, _ types: ActivationTypes, _ options: DecoderOptions, on device: any Device
    ) throws(FlashInferError) {
        let geometry = try BatchGeometry.paged(
            shares: [share], kvLengths: [1], pageIndptr: [0, 1], pageIndices: [0], pageCount: 1)
        for output in [types.states, .float32] {
            _ = try device.kernelTraits(
                for: AttentionProblem(
                    geometry: geometry, shape: config.attentionShape, variant: config.attentionVariant(window: nil),
                    queryType: types.query, kvType: options.cacheType, outputType: output))
        }
    }

    /// Where the rows' keys and values go in this rank's cache; −1 for those that are another rank's.
    func slots(of batch: StepBatch) -> [Int32] {
        let (own, all) = (Int32(share.pageSize), Int32(positionsPerPage))
        let first = Int32(share.rank) * own
        return batch.slots.map { slot in
            let (page, position) = (slot / all, slot % all - first)
            return position >= 0 && position < own ? page * own + position : -1
        }
    }

    /// The batch over this rank's keys, followed by requests of one row and no keys up to `rows` rows.
    func geometry(of batch: StepBatch, pageCount: Int, paddedTo rows: Int) throws(FlashInferError) -> BatchGeometry {
        let padding = rows - batch.rowCount
        let (last, end) = (Int32(batch.rowCount), Int32(batch.kvIndices.count))
        return try BatchGeometry.paged(
            shares: [KVShare](repeating: share, count: batch.entries.count + padding),
            queryIndptr: batch.queryIndptr + (0..<Int32(padding)).map { last + $0 + 1 },
            kvLengths: batch.entries.map { Int32($0.endPosition) } + [Int32](repeating: 0, count: padding),
            pageIndptr: batch.kvIndptr + [Int32](repeating: end, count: padding), pageIndices: batch.kvIndices,
            pageCount: pageCount)
    }
}

extension Communicator {
    /// Checks that all ranks have the same values, as people read them.
    ///
    /// - Throws: ``FlashInferError/rankMismatch(_:rank:found:expected:)`` on every rank, naming the first rank that differs from rank 0.
    func requireAgreement(onText values: [(name: String, value: String)]) throws(FlashInferError) {
        let own = values.map(\.value).joined(separator: "\n")
        let answers = try gatherMessages(Array(own.utf8)).map {
            String(decoding: $0, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false)
        }
        for rank in 1..<max(worldSize, 1) {
            for (index, value) in values.enumerated() {
                func said(_ rank: Int) -> Substring {
                    answers[rank].indices.contains(index) ? answers[rank][index] : ""
                }
                guard said(rank) == said(0) else {
                    throw .rankMismatch(
                        value.name, rank: rank, found: "\(said(rank))", expected: "\(said(0)), as on rank 0")
                }
            }
        }
    }
}

extension ModelWeights {
    /// A hash of the settings and of samples of every weight: the same for the same files, and for nothing else that is met by accident.
    var fingerprint: String {
        var hash = SHA256()
        hash.update("\(config)")
        for role in WeightRole.all(for: config) {
            guard let tensor = self[role] else { continue }
            hash.update("\(role) \(tensor.format) \(tensor.rows) \(tensor.columns)")
            let bytes = tensor.bytes
            let sample = min(bytes.count, 256)
            for start in [0, (bytes.count - sample) / 2, bytes.count - sample] {
                hash.update(UnsafeRawBufferPointer(rebasing: bytes[start..<start + sample]))
            }
        }
        return String(hash.finish().prefix(16))
    }
}
