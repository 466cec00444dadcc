internal import FlashInfer

extension DecoderModel {
    /// One token for each row of `logits`, which penalties change.
    ///
    /// - Throws: ``DecoderError/noDistribution(request:status:)`` for a row that cannot be sampled.
    func sample(_ logits: TensorView, _ rows: ArraySlice<SamplingRow>) throws -> [SampledToken] {
        let (tokens, status, _) = try buffers.results(rows.count)
        let wantsLogProbabilities = rows.contains(where: \.wantsLogProbability)
        let hasPenalty = rows.contains { $0.parameters.repetitionPenalty != 1 }
        // Log-probabilities are those of the model's own logits.
        let own = wantsLogProbabilities && hasPenalty ? try sampling.copy(of: logits) : logits
        if hasPenalty { try penalize(logits, rows) }
        try device.run(
            .sample(
                SampleOperation(
                    logits: logits, tokens: tokens, status: status,
                    rows: rows.map { .init($0.parameters, seed: $0.seed, step: UInt64($0.drawIndex)) })))
        let drawn = try drawnTokens(rows, outOf: rows.count)
        guard wantsLogProbabilities else { return drawn.map { SampledToken(token: $0) } }
        let logProbabilities = try logProbabilities(of: tokens, in: own)
        return zip(rows, zip(drawn, logProbabilities)).map { row, found in
            SampledToken(token: found.0, logProbability: row.wantsLogProbability ? found.1 : nil)
        }
    }

    /// The tokens for `rows` after a decode step that computed `count` rows: the most likely ones, which the step found, or drawn
    /// from its logits.
    func tokens(_ rows: ArraySlice<SamplingRow>, afterDecodeOf count: Int) throws -> [SampledToken] {
        if config.finalSoftCap == nil, rows.allSatisfy(\.takesTheMostLikely) {
            return try drawnTokens(rows, outOf: count).map { SampledToken(token: $0) }
        }
        let logits = buffers.logits.view.slice(0..<rows.count)
        if let cap = config.finalSoftCap { try softCap(logits, cap) }
        return try sample(logits, rows)
    }

    /// The first of `count` tokens that the device drew, checked against their statuses.
    private func drawnTokens(_ rows: ArraySlice<SamplingRow>, outOf count: Int) throws -> [Int32] {
        let bytes: [UInt8] = try device.read(buffers.results(count).both)
        return try zip(rows, 0...).map { row, index in
            let state = bytes[4 * count + index]
            guard state == RowStatus.ok.rawValue else {
                throw DecoderError.noDistribution(
                    request: row.id, status: RowStatus(rawValue: state)?.description ?? "status \(state)")
            }
            return bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 4 * index, as: Int32.self) }
        }
    }

    /// Each row's natural log-probability of its token.
    private func logProbabilities(of tokens: TensorView, in logits: TensorView) throws(FlashInferError) -> [Float] {
        let output = try sampling.logProbabilities(tokens.shape[0])
        try device.run(
            .logProbability(
                LogProbabilityOperation(logits: logits, ids: tokens, output: output.values, status: output.status)))
        return try device.read(output.values)
    }

    /// Applies each request's repetition penalty.
    private func penalize(_ logits: TensorView, _ rows: ArraySlice<SamplingRow>) throws(FlashInferError) {
        var history: [Int32] = []
        let changes = rows.map { row in
            guard row.parameters.repetitionPenalty != 1 else { return AdjustLogitsOperation.Row() }
            let start = history.count
            history += row.penalizedTokens
            return AdjustLogitsOperation.Row(
                repetition: row.parameters.repetitionPenalty, prompt: start..<history.count)
        }
        try device.run(
            .adjustLogits(
                AdjustLogitsOperation(logits: logits, rows: changes, history: sampling.history(history))))
    }
}

extension SamplingRow {
    /// Whether the token is the greatest of the model's own logits, and nothing else is wanted.
    fileprivate var takesTheMostLikely: Bool {
        parameters.temperature == 0 && parameters.repetitionPenalty == 1 && !wantsLogProbability
    }
}

/// What can go wrong in a step of a model that loaded.
public enum DecoderError: Error, Sendable, CustomStringConvertible {
    /// The logits of a request's row hold NaN or nothing finite.
    case noDistribution(request: RequestID, status: String)
    /// The other ranks were told that there are no more steps.
    case finished

    /// What happened, and where.
    public var description: String {
        switch self {
        case .noDistribution(let request, let status):
            "request \(request): the model's logits have no distribution to sample from (\(status)); "
                + "the weights or the cache's scale are wrong"
        case .finished: "the ranks have parted; nothing more can be computed"
        }
    }
}
