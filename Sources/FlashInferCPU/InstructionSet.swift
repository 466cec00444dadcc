package import CFlashInferCPU

/// A level of vector instructions that the CPU kernels are written for.
public enum InstructionSet: Int, Sendable, CaseIterable, Comparable {
    /// Portable C; what the others are tested against.
    case scalar = 0
    /// AArch64 Advanced SIMD.
    case neon = 1
    /// AVX2, FMA and F16C.
    case avx2 = 2
    /// AVX-512 F, BW, DQ and VL.
    case avx512 = 3
    /// AVX-512 with VNNI, BF16 and VBMI.
    case avx512BF16 = 4

    /// The highest level that this build and this machine have.
    public static var detected: InstructionSet { InstructionSet(rawValue: Int(fi_detect_isa().rawValue)) ?? .scalar }

    /// Whether this machine can run the level's kernels.
    public var isAvailable: Bool { fi_isa_available(cValue) }

    /// The level's name, such as "avx512-bf16".
    public var name: String { String(cString: fi_isa_name(cValue)) }

    /// The level as the C kernels know it.
    package var cValue: fi_isa { fi_isa(rawValue: UInt32(rawValue)) }

    /// By what a level adds to the one before.
    public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
}
