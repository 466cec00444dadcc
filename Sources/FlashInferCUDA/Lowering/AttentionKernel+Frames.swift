internal import FlashInferCore

extension AttentionKernel {
    /// The frames that ship: of prefill's longest tiles, heads of 64 and 128 elements of 16 bits, for variants that hide keys or change
    /// logits, with and without elements of tensors for each key. The others' are made at their first use.
    package static func shippedFrames(for architecture: Architecture) -> [KernelSpec] {
        var seen: Set<KernelSpec> = []
        var frames: [KernelSpec] = []
        for type in [DType.bfloat16, .float16] {
            for dim in [64, 128] {
                for geometry in geometries {
                    for variant in kinds {
                        // Heads of these dimensions are supported everywhere.
                        guard
                            let problem = try? AttentionProblem(
                                geometry: geometry, shape: AttentionShape(queryHeads: 2, kvHeads: 2, headDimQK: dim),
                                variant: variant, queryType: type, kvType: type),
                            let frame = try? longestSpec(of: problem, on: architecture).frame,
                            seen.insert(frame).inserted
                        else { continue }
                        frames.append(frame)
                    }
                }
            }
        }
        return frames
    }

    /// Ragged, and pages of 16.
    private static let geometries: [BatchGeometry] = [
        try? .ragged(queryIndptr: [0, 1024], kvIndptr: [0, 1024]),
        try? .paged(
            queryIndptr: [0, 1024], pageIndptr: [0, 64], pageIndices: (0..<64).map { $0 }, kvLengths: [1024],
            pageSize: 16,
            pageCount: 64),
    ].compactMap { $0 }

    /// A variant of each kind.
    private static let kinds: [AttentionVariant] = {
        let tags = Parameter<Int32>("tags", .perPosition)
        let table = Parameter<Float>("table", .perHeadTable(count: 2))
        return [
            AttentionVariant("hides", mask: Mask { ($0.keyPosition & 1) == $0.head }),
            AttentionVariant("hides by a tensor", mask: Mask { tags[$0.keyPosition] == $0.head }),
            AttentionVariant("hides ranges", mask: Mask { $0.keyPosition < $0.head }),
            // Blocks take windows' items one by one.
            AttentionVariant("hides far ranges", mask: .window(left: 90) && Mask { $0.keyPosition < $0.head }),
            AttentionVariant("hides far keys", mask: .window(left: 90) && Mask { ($0.keyPosition & 1) == $0.head }),
            AttentionVariant(
                "hides far keys by a tensor", mask: .window(left: 90) && Mask { tags[$0.keyPosition] == $0.head }),
            AttentionVariant("logits", mask: .causal) { score, at in score + at.keyPosition.float },
            AttentionVariant("logits by a tensor", mask: .causal) { score, at in score + table[at.head, at.keyPosition]
            },
        ]
    }()
}
