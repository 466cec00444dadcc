internal import FlashInfer

extension DecoderModel {
    /// One token for each row of `logits`.
    ///
    /// - Throws: ``DecoderError/noDistribution(request:status:)`` for a row that cannot be sampled.
    func sample(_ logits: TensorView, _ rows: ArraySlice<SamplingRow>) throws -> [SampledToken] {
        let (tokens, status, _) = try buffers.results(rows.count)
        let logProbabilities = try logProbabilitySource(logits, rows)
        try penalize(logits, rows)
        try device.run(
            .sample(
                SampleOperation(
                    logits: logits, tokens: tokens, status: status,
                    rows: rows.map { .init($0.parameters, seed: $0.seed, step: UInt64($0.drawIndex)) })))
        let drawn = try drawnTokens(rows, outOf: rows.count)
        return zip(zip(rows, drawn), 0...).map { pair, index in
            SampledToken(
                token: pair.1,
                logProbability: pair.0.wantsLogProbability ? logProbabilities[index].map { $0[Int(pair.1)] } : nil)
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

    /// Before penalties change the logits: each row's natural log-probabilities, where they are wanted.
    private func logProbabilitySource(
        _ logits: TensorView, _ rows: ArraySlice<SamplingRow>
    ) throws -> [[Float]?] {
        try zip(rows, 0...).map { row, index in
            guard row.wantsLogProbability else { return nil }
            let values: [Float] = try device.read(logits.slice(index..<index + 1))
            let largest = values.max() ?? 0
            let sum = values.reduce(0) { $0 + ElementaryFunctions.exp(Double($1 - largest)) }
            let normalizer = largest + Float(ElementaryFunctions.log(sum))
            return values.map { $0 - normalizer }
        }
    }

    /// Applies each request's repetition penalty.
    private func penalize(_ logits: TensorView, _ rows: ArraySlice<SamplingRow>) throws {
        for (row, index) in zip(rows, 0...) where row.parameters.repetitionPenalty != 1 {
            let view = logits.slice(index..<index + 1)
            var values: [Float] = try device.read(view)
            var seen = [UInt8](repeating: 0, count: values.count)
            var span = values.mutableSpan
            var scratch = seen.mutableSpan
            RepetitionPenalty.apply(
                row.parameters.repetitionPenalty, to: row.penalizedTokens, logits: &span, seen: &scratch)
            try device.write(values, to: view)
        }
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

    /// What happened, and where.
    public var description: String {
        switch self {
        case .noDistribution(let request, let status):
            "request \(request): the model's logits have no distribution to sample from (\(status)); "
                + "the weights or the cache's scale are wrong"
        }
    }
}
