/// A choice among the shipped kernels, for bundles.
package enum KernelPreset: String, CaseIterable, Sendable {
    /// What models of the Llama family use: attention over heads of 64 and 128, and everything that is not attention.
    case llama
    /// Every shipped kernel.
    case all

    /// The kernels.
    package var specs: [KernelSpec] {
        switch self {
        case .all: KernelCatalogue.shipped
        case .llama: KernelCatalogue.shipped.filter(Self.isForLlama)
        }
    }

    private static func isForLlama(_ spec: KernelSpec) -> Bool {
        spec.defines.allSatisfy { define in
            !define.name.hasPrefix("FI_HEAD_DIM") || define.value == "64" || define.value == "128"
        }
    }
}
