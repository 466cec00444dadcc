package import FlashInferCore

extension VariantSample {
    /// One of each kind of what people write.
    package static let builtIns: [VariantSample] = {
        let documents = Parameter<Int32>("documents", .perPosition)
        let prompt = Parameter<Int32>("prompt", .perRequest)
        let bias = Parameter<Float>("bias", .perHeadTable(count: 32))
        let ancestors = Parameter<Int32>("ancestors", .perPosition)
        let temperature = Parameter<Float>("temperature", .perHead)
        return [
            VariantSample(AttentionVariant("documents", mask: .causal && .documents(documents)), packedDocuments),
            VariantSample(AttentionVariant("documents both ways", mask: .documents(documents)), packedDocuments),
            VariantSample(AttentionVariant("prefix", mask: .causal || .prefix(prompt))) { geometry, _ in
                ["prompt": ParameterValue((0..<geometry.requestCount).map { Int32($0 * 11) })]
            },
            VariantSample(AttentionVariant("streaming", mask: .causal && (.window(left: 21) || .prefix(4)))),
            VariantSample(AttentionVariant("window both ways", mask: .window(left: 9, right: 5))),
            VariantSample(
                AttentionVariant("items", mask: .items(prompt: prompt, item: documents))
            ) { geometry, shape in
                packedDocuments(geometry, shape).merging(
                    ["prompt": ParameterValue((0..<geometry.requestCount).map { Int32($0 * 7) })]) { a, _ in a }
            },
            VariantSample(AttentionVariant("tree", mask: .tree(ancestors: ancestors))) { geometry, _ in
                let width = (0..<geometry.requestCount).reduce(1) { max($0, geometry.kvLength($1)) }
                return [
                    "ancestors": ParameterValue(
                        (0..<geometry.requestCount * width).map { Int32(truncatingIfNeeded: $0 &* 0x9E37_79B1) | 1 })
                ]
            },
            VariantSample(AttentionVariant("dilated", mask: .causal && .strided(3))),
            VariantSample(AttentionVariant("block diagonal", mask: .blockDiagonal(16))),
            VariantSample(
                AttentionVariant("custom and documents", mask: .custom && .documents(documents)), packedDocuments),
            VariantSample(AttentionVariant("packed or near", mask: .customPacked || .window(left: 2, right: 2))),
            VariantSample(AttentionVariant("gemma-2", mask: .causal && .window(left: 30), logits: .softCap(5))),
            VariantSample(
                AttentionVariant(
                    "causal, cap of 1, documents", mask: .causal && .documents(documents), logits: .softCap(1)),
                packedDocuments),
            VariantSample(
                AttentionVariant("relative bias", mask: .causal) { score, at in
                    score + bias[at.head, clamp(at.queryPosition - at.keyPosition, 0, 31)]
                }
            ) { _, shape in
                ["bias": ParameterValue((0..<shape.queryHeads * 32).map { Float($0 % 17) / 9 - 1 })]
            },
            VariantSample(
                AttentionVariant("temperature", mask: .causal, scale: 0.3) { score, at in
                    score * temperature[at.head] * log(2 + at.queryPosition.float)
                }
            ) { _, shape in ["temperature": ParameterValue((0..<shape.queryHeads).map { 0.2 + Float($0) / 9 })] },
            VariantSample(
                AttentionVariant(
                    "alibi, clipped", mask: .causal, logits: Logits.alibi.then(Logits { score, _ in max(score, -6) }))),
            VariantSample(
                AttentionVariant(
                    "sigmoid", mask: .causal,
                    weights: Weights { logit, at in sigmoid(logit - log(at.keyLength.float)) })),
            VariantSample(
                AttentionVariant(
                    "squared relu", logits: .plain, weights: Weights { logit, _ in max(logit, 0) * max(logit, 0) * 0.1 }
                )),
            VariantSample(AttentionVariant("softmax plus one", mask: .causal, sink: .logit(0))),
            VariantSample(
                AttentionVariant(
                    "rotated documents", mask: .causal && .documents(documents), rope: RoPEParameters(theta: 1000),
                    sink: .perHead),
                packedDocuments),
            VariantSample(
                AttentionVariant("mask in the logits") { score, at in
                    select(at.keyPosition <= at.queryPosition, score, Expr(-Float.infinity))
                }),
            VariantSample(AttentionVariant("future", mask: !.causal)),
            VariantSample(
                AttentionVariant(
                    "log-n", mask: .causal, query: Scaling { at in log((at.queryPosition + 3).float) * 0.5 },
                    key: Scaling { at in temperature[at.kvHead] + 0.01 * at.keyPosition.float },
                    logits: .softCap(4))
            ) { _, shape in ["temperature": ParameterValue((0..<shape.queryHeads).map { 0.4 + Float($0) / 9 })] },
            VariantSample(
                AttentionVariant(
                    "gated", mask: .causal && .documents(documents), sink: .logit(-1),
                    output: Output { value, at in
                        tanh(value) * sigmoid(temperature[at.head] - 0.1 * at.queryIndex.float) + 0.25
                    })
            ) { geometry, shape in
                packedDocuments(geometry, shape).merging(
                    ["temperature": ParameterValue((0..<shape.queryHeads).map { Float($0) - 0.5 })]) { a, _ in a }
            },
            VariantSample(
                AttentionVariant(
                    "sigmoid, normed", mask: .window(left: 40), weights: Weights { logit, _ in sigmoid(logit - 2) },
                    output: Output { value, at in value / sqrt((at.keyLength + 1).float) })),
            manyParameters,
        ] + hooks
    }()

    /// A polynomial of the distance, whose sixteen coefficients are a tensor each.
    private static let manyParameters: VariantSample = {
        let names = (0..<16).map { "c\($0)" }
        let variant = AttentionVariant("sixteen tensors", mask: .causal) { score, at in
            let x = tanh((at.queryPosition - at.keyPosition).float * 0.01)
            return names.reversed().reduce(Expr<Float>(0)) { sum, name in
                sum * x + Parameter<Float>(name, .perHead)[at.head]
            } + score
        }
        return VariantSample(variant) { _, shape in
            Dictionary(
                uniqueKeysWithValues: names.enumerated().map { index, name in
                    (name, ParameterValue((0..<shape.queryHeads).map { Float(($0 + index) % 5) / 5 - 0.4 }))
                })
        }
    }()

    /// Documents of some 30 tokens, numbered in order.
    package static let packedDocuments: @Sendable (BatchGeometry, AttentionShape) -> [String: ParameterValue] = {
        geometry, _ in
        [
            "documents": ParameterValue(
                positions: (0..<max(geometry.requestCount, 1)).map { request in
                    (0..<(0..<geometry.requestCount).reduce(1) { max($0, geometry.kvLength($1)) }).map {
                        Int32(($0 + 7 * request) / 30)
                    }
                })
        ]
    }
}
