internal import FlashInfer

extension DecoderModel {
    /// One token for each row of `logits`.
    ///
    /// - Throws: ``DecoderError/noDistribution(request:status:)`` for a row that cannot be sampled.
    func sample(_ logits: TensorView, _ rows: ArraySlice<SamplingRow>) throws -> [SampledToken] {
        let count = rows.count
        let (tokens, status) = (buffers.tokens.view.slice(0..<count), buffers.status.view.slice(0..<count))
        let logProbabilities = try logProbabilitySource(logits, rows)
        try penalize(logits, rows)
        try device.run(
            .sample(
                SampleOperation(
                    logits: logits, tokens: tokens, status: status,
                    rows: rows.map { .init($0.parameters, seed: $0.seed, step: UInt64($0.drawIndex)) })))
        let drawn: [Int32] = try device.read(tokens)
        let states: [UInt8] = try device.read(status)
        for (row, state) in zip(rows, states) where state != RowStatus.ok.rawValue {
            throw DecoderError.noDistribution(
                request: row.id, status: RowStatus(rawValue: state)?.description ?? "status \(state)")
        }
        return zip(zip(rows, drawn), 0...).map { pair, index in
            SampledToken(
                token: pair.1,
                logProbability: pair.0.wantsLogProbability ? logProbabilities[index].map { $0[Int(pair.1)] } : nil)
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
