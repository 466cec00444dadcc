import FlashInferCore

extension VariantSample {
    /// Variants with hooks of values and of the running state.
    static let hooks: [VariantSample] = {
        let documents = Parameter<Int32>("documents", .perPosition)
        let forget = Parameter<Float>("forget", .perPosition)
        let strength = Parameter<Float>("strength", .perHead)
        let strengths: @Sendable (BatchGeometry, AttentionShape) -> [String: ParameterValue] = { _, shape in
            ["strength": ParameterValue((0..<shape.queryHeads).map { Float($0) - 0.5 })]
        }
        return [
            VariantSample(
                AttentionVariant(
                    "gated values", mask: .causal,
                    value: Values { value, at in value * sigmoid(forget[at.keyPosition]) })
            ) { geometry, _ in
                ["forget": ParameterValue(floatPositions: perPosition(geometry) { Float($0 % 13) / 3 - 2 })]
            },
            VariantSample(
                AttentionVariant(
                    "own code of values", mask: .causal && .documents(documents),
                    value: Values { value, at in
                        select(value < 0, -sqrt(abs(value)), value * value) + 0.1 * at.kvHead.float
                    }), packedDocuments),
            VariantSample(
                AttentionVariant(
                    "sigmoid with decayed values", mask: .causal && .window(left: 90),
                    value: Values { value, at in -(value / (1 + 0.01 * (at.keyLength - at.keyPosition).float)) },
                    weights: Weights { logit, _ in sigmoid(logit - 2) })),
            VariantSample(
                AttentionVariant(
                    "computed sink", mask: .causal,
                    sink: .computed { at in strength[at.head] - 0.1 * at.queryIndex.float }), strengths),
            VariantSample(
                AttentionVariant(
                    "initial state", mask: .causal && .documents(documents),
                    sink: .initial { at in (strength[at.head], 1 + at.queryIndex.float) })
            ) { geometry, shape in
                packedDocuments(geometry, shape).merging(strengths(geometry, shape)) { a, _ in a }
            },
            VariantSample(
                AttentionVariant(
                    "off by one", mask: .causal,
                    normalizer: Normalizer { sum, _ in max(sum, 0) + log(1 + exp(-abs(sum))) })),
            VariantSample(
                AttentionVariant(
                    "all at once", mask: .causal && .window(left: 60), value: Values { value, at in value + 0.25 },
                    sink: .computed { at in strength[at.head] },
                    normalizer: Normalizer { sum, at in max(sum, log((max(at.queryPosition, 0) + 2).float)) },
                    output: Output { value, _ in tanh(value) }), strengths),
        ]
    }()

    /// An element for each request and position.
    private static func perPosition(_ geometry: BatchGeometry, _ element: (Int) -> Float) -> [[Float]] {
        (0..<max(geometry.requestCount, 1)).map { request in
            (0..<(0..<geometry.requestCount).reduce(1) { max($0, geometry.kvLength($1)) }).map {
                element($0 + 5 * request)
            }
        }
    }
}
