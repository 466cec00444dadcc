package import FlashInferCore

/// One point of the conformance matrix.
package struct AttentionCase: Sendable, CustomStringConvertible {
    /// Where keys and values lie. Strided: no row is aligned to anything, of the queries neither.
    package enum Layout: CaseIterable, Sendable {
        case combinedNHD, combinedHND, splitNHD, splitHND, raggedNHD, raggedHND, strided
    }
    /// What the variant has.
    package enum Feature: CaseIterable, Sendable {
        case full, causal, window, causalWindow, custom, packed, cap, alibi, ropeHalf, ropeInterleaved, ropeLlama3,
            sinks
        case everything, packedWindow
    }

    package var queryType = DType.float32
    package var cacheType = DType.float32
    /// The problem's own where not given: the queries', or bfloat16.
    package var outputType: DType?
    package var layout = Layout.combinedNHD
    package var feature = Feature.causal
    /// A variant without parameters in the place of the feature's.
    package var options: AttentionVariant?
    package var dimQK = 64
    /// `dimQK` where not given.
    package var dimVO: Int?
    package var kvHeads = 2
    package var group = 2
    package var pageSize = 16
    /// (queries, keys) of each request.
    package var lengths = [(1, 37), (5, 80), (0, 9), (17, 100)]
    /// Whether scales a head multiply those of all queries and of the whole cache; those of queries have any sign.
    package var hasHeadScales = false
    /// Pages of the cache; twice as many as needed where not given. Cases that take turns in the same memory give the same.
    package var poolPages: Int?
    package var seed: UInt64 = 1
    /// A variant in the place of the feature's, with its parameters.
    package var sample: VariantSample?
    /// What scores of `full`, `causal` and `sinks` are multiplied by where given: a large one makes rows' maxima rise by much from stage to stage.
    package var scale: Float?

    /// A case; every argument not given is an ordinary one.
    package init(
        queryType: DType = .float32, cacheType: DType = .float32, outputType: DType? = nil,
        layout: Layout = .combinedNHD, feature: Feature = .causal, dimQK: Int = 64, dimVO: Int? = nil,
        kvHeads: Int = 2, group: Int = 2, pageSize: Int = 16,
        lengths: [(Int, Int)] = [(1, 37), (5, 80), (0, 9), (17, 100)], hasHeadScales: Bool = false,
        poolPages: Int? = nil, seed: UInt64 = 1, sample: VariantSample? = nil, scale: Float? = nil
    ) {
        self.queryType = queryType
        self.cacheType = cacheType
        self.outputType = outputType
        self.layout = layout
        self.feature = feature
        self.dimQK = dimQK
        self.dimVO = dimVO
        self.kvHeads = kvHeads
        self.group = group
        self.pageSize = pageSize
        self.lengths = lengths
        self.hasHeadScales = hasHeadScales
        self.poolPages = poolPages
        self.seed = seed
        self.sample = sample
        self.scale = scale
    }

    /// The text shown to people, all that makes the case again.
    package var description: String {
        "q \(queryType) kv \(cacheType) o \(outputType.map { "\($0)" } ?? "-") \(layout) \(sample?.variant.name ?? options.map(Self.text) ?? "\(feature)") D \(dimQK)/\(dimVO ?? dimQK) heads \(kvHeads)x\(group) "
            + "page \(pageSize) lengths \(lengths)\(hasHeadScales ? " head scales" : "")\(scale.map { " scale \($0)" } ?? "") seed \(seed)"
    }

    /// Options in words.
    private static func text(_ options: AttentionVariant) -> String {
        "\(options.form.mask) window \(options.windowLeft ?? -1) cap \(options.logitsSoftCap ?? 0) "
            + "scale \(options.scale.map { "\($0)" } ?? "-") \(options.positionEncoding)\(options.hasSinks ? " sinks" : "")"
    }

    /// What the feature stands for.
    package var variant: AttentionVariant {
        if let sample { return sample.variant }
        if let options { return options }
        return switch feature {
        case .full: AttentionVariant(scale: scale)
        case .causal: AttentionVariant(mask: .causal, scale: scale)
        case .window: AttentionVariant(windowLeft: 20)
        case .causalWindow: AttentionVariant(mask: .causal, windowLeft: 7, scale: 0.2)
        case .custom: AttentionVariant(mask: .custom)
        case .packed: AttentionVariant(mask: .customPacked)
        case .packedWindow: AttentionVariant(mask: .customPacked, windowLeft: 30)
        case .cap: AttentionVariant(mask: .causal, logitsSoftCap: 1.5)
        case .alibi: AttentionVariant(mask: .causal, positionEncoding: .alibi)
        case .ropeHalf: AttentionVariant(mask: .causal, positionEncoding: .rope(RoPEParameters()))
        case .ropeInterleaved:
            AttentionVariant(
                positionEncoding: .rope(
                    RoPEParameters(theta: 500, rotaryDim: 8, pairing: .interleaved, scaling: .linear(factor: 2))))
        case .ropeLlama3:
            AttentionVariant(
                mask: .causal,
                positionEncoding: .rope(
                    RoPEParameters(
                        theta: 500_000,
                        scaling: .llama3(
                            factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext: 8192))))
        case .sinks: AttentionVariant(mask: .causal, scale: scale, hasSinks: true)
        case .everything:
            AttentionVariant(
                mask: .customPacked, windowLeft: 40, logitsSoftCap: 3, scale: 0.3,
                positionEncoding: .rope(RoPEParameters(theta: 1000)), hasSinks: true)
        }
    }

    /// What all queries are multiplied by: those of 8 bits were divided by it.
    package var queryScale: Float { queryType.byteCount == 1 ? 0.75 : 1 }

    /// The heads.
    package var shape: AttentionShape {
        get throws {
            try AttentionShape(
                queryHeads: kvHeads * group, kvHeads: kvHeads, headDimQK: dimQK, headDimVO: dimVO)
        }
    }

    /// Whether keys and values are rows of a ragged tensor.
    package var isRagged: Bool { layout == .raggedNHD || layout == .raggedHND }
}
