package import CUDAKernels
package import FlashInferCore

/// The kernel that packs flags.
package enum PackBitsKernel {
    /// Vectors of flags that a thread has: several where there are blocks enough all the same.
    private static let specs = [1, 4].map { vectors in
        KernelSpec(
            file: "portable/pack_bits.cuh", entry: "pack_bits", defines: [.init("FI_VECTORS", vectors)], threads: 256,
            blocksPerProcessor: 6, label: "pack-bits" + (vectors > 1 ? " of \(vectors) vectors" : ""))
    }

    /// All there are.
    package static func shipped() -> [KernelSpec] { specs }

    /// The launch of an operation.
    package static func lower(
        _ operation: PackBitsOperation
    ) throws(FlashInferError) -> KernelLaunch<fi_pack_bits_params>? {
        let (flags, output, segments) = (operation.flags, operation.output, operation.segments)
        let segmentCount = segments.map { $0.flags.shape[0] - 1 }
        if output.elementCount == 0 || segmentCount == 0 { return nil }
        // Two bytes of output a vector.
        let isLarge = output.elementCount >= 1 << 20
        let (spec, bytes) = (specs[isLarge ? 1 : 0], 2 * (isLarge ? 4 : 1))
        let blocks = (output.elementCount + spec.threads * bytes - 1) / (spec.threads * bytes)
        guard blocks <= Int(Int32.max), segmentCount ?? 0 <= Int(Int32.max) else { throw .overflow("flags") }
        try segments?.flags.checkAlignment("segments")
        try segments?.bytes.checkAlignment("bytes of segments")
        return KernelLaunch(
            spec, blocks: blocks,
            fi_pack_bits_params(
                flags: UInt64(flags.address), output: UInt64(output.address), flag_count: Int64(flags.elementCount),
                byte_count: Int64(output.elementCount), flag_starts: UInt64(segments?.flags.address ?? 0),
                byte_starts: UInt64(segments?.bytes.address ?? 0), segments: UInt32(segmentCount ?? 0),
                highest_first: operation.order == .highestFirst ? 1 : 0))
    }
}
