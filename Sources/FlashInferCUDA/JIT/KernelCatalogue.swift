/// The specialisations that ship: those that `flashinfer compile` makes.
package enum KernelCatalogue {
    /// Each family of kernels' `shipped()`, one a line.
    private static let families: [@Sendable () -> [KernelSpec]] = [
        AttentionKernel.shipped,
        ExpandItemsKernel.shipped,
        NormKernel.shipped,
        RoPEKernel.shipped,
        GatedActivationKernel.shipped,
        AddKernel.shipped,
        ConvertKernel.shipped,
        EmbeddingKernel.shipped,
        PackBitsKernel.shipped,
        SoftmaxKernel.shipped,
        ArgmaxKernel.shipped,
        LogProbabilityKernel.shipped,
        SampleKernel.shipped,
        FilterKernel.shipped,
        TopKKernel.shipped,
        SelectPagesKernel.shipped,
        PageBoundsKernel.shipped,
        ScorePagesKernel.shipped,
        AdjustLogitsKernel.shipped,
        VerifyDraftsKernel.shipped,
        AppendKVKernel.shipped,
        RoPEPartsKernel.shipped,
        CopyPagesKernel.shipped,
        MergeStatesKernel.shipped, MergeLevelsKernel.shipped, ExchangeStatesKernel.shipped,
    ]

    /// Those of every family, each in its order.
    package static var shipped: [KernelSpec] { families.flatMap { $0() } }

    /// The architectures that every shipped kernel is checked for: one of each generation.
    package static let architectures = ["sm_80", "sm_90a", "sm_100", "sm_120"].compactMap { Architecture($0) }

    /// Whether there is code of a kernel for an architecture: attention's tiles are of each architecture's own size, Hopper's kernels
    /// use instructions that only 9.0 has, and clusters of blocks and long lists need 9.0 or 10.0.
    package static func isShipped(_ spec: KernelSpec, for architecture: Architecture) -> Bool {
        if spec.entry.hasSuffix("attention") { return AttentionKernel.isShipped(spec, for: architecture) }
        if spec.needsLargeProcessors { return [9, 10].contains(architecture.major) }
        return !spec.file.hasPrefix("hopper/") || (architecture.isSpecific && architecture.major == 9)
    }
}
