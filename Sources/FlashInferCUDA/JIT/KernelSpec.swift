/// One specialisation of one kernel: everything that its machine code depends on, apart from the architecture.
///
/// Make it once and keep it: equality is by content, but two uses of one value meet by identity, and the hash is computed when
/// the value is made.
package struct KernelSpec: Sendable {
    /// A macro that the text is compiled with.
    package struct Define: Hashable, Sendable {
        /// "FI_HEAD_DIM"
        package let name: String
        /// "128"
        package let value: String

        package init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }

        package init(_ name: String, _ value: Int) { self.init(name, String(value)) }

        /// 1 or 0.
        package init(_ name: String, _ value: Bool) { self.init(name, value ? "1" : "0") }
    }

    private final class Content: Sendable {
        let file: String
        let entry: String
        let defines: [Define]
        let threads: Int
        let sharedByteCount: Int
        let blocksPerProcessor: Int
        let usesFastMath: Bool
        let label: String
        let variant: String?
        let splice: VariantSplice?
        let hash: Int

        init(
            file: String, entry: String, defines: [Define], threads: Int, sharedByteCount: Int,
            blocksPerProcessor: Int, usesFastMath: Bool, label: String, variant: String?, splice: VariantSplice?
        ) {
            self.variant = variant
            self.splice = splice
            self.file = file
            self.entry = entry
            self.defines = defines
            self.threads = threads
            self.sharedByteCount = sharedByteCount
            self.blocksPerProcessor = blocksPerProcessor
            self.usesFastMath = usesFastMath
            self.label = label
            var hasher = Hasher()
            hasher.combine(file)
            hasher.combine(entry)
            hasher.combine(defines)
            hasher.combine(threads)
            hasher.combine(sharedByteCount)
            hasher.combine(blocksPerProcessor)
            hasher.combine(usesFastMath)
            hasher.combine(variant)
            hash = hasher.finalize()
        }
    }

    private let content: Content

    /// A specialisation.
    ///
    /// - Parameters:
    ///   - file: the text, by its path below the `CUDAKernels` module: "portable/attention.cuh".
    ///   - entry: the `extern "C" __global__` function in it.
    ///   - defines: macros, in order. `FI_THREADS` and `FI_MIN_BLOCKS` are added from the next two.
    ///   - threads: threads of a block, 1 ... 1024.
    ///   - sharedByteCount: bytes of dynamic shared memory.
    ///   - blocksPerProcessor: blocks that must fit on a processor at a time, for `__launch_bounds__`.
    ///   - usesFastMath: compile with `--use_fast_math`.
    ///   - label: its name in the register table and in messages.
    ///   - variant: the text of an attention variant's expressions, which the kernel includes as `FI_VARIANT`.
    ///   - splice: the same variant in parts for a frame, where it has them.
    package init(
        file: String, entry: String, defines: [Define] = [], threads: Int, sharedByteCount: Int = 0,
        blocksPerProcessor: Int = 1, usesFastMath: Bool = false, label: String, variant: String? = nil,
        splice: VariantSplice? = nil
    ) {
        precondition(threads >= 1 && threads <= 1024, "a block has 1 ... 1024 threads, not \(threads)")
        precondition(sharedByteCount >= 0 && blocksPerProcessor >= 1, "sizes of a launch are positive")
        content = Content(
            file: file, entry: entry, defines: defines, threads: threads, sharedByteCount: sharedByteCount,
            blocksPerProcessor: blocksPerProcessor, usesFastMath: usesFastMath, label: label, variant: variant,
            splice: splice)
    }

    /// The text's path below the `CUDAKernels` module.
    package var file: String { content.file }
    /// The function's name.
    package var entry: String { content.entry }
    /// Macros, in order, as given.
    package var defines: [Define] { content.defines }
    /// Threads of a block.
    package var threads: Int { content.threads }
    /// Bytes of dynamic shared memory.
    package var sharedByteCount: Int { content.sharedByteCount }
    /// Blocks that must fit on a processor.
    package var blocksPerProcessor: Int { content.blocksPerProcessor }
    /// Whether approximate maths is wanted everywhere.
    package var usesFastMath: Bool { content.usesFastMath }
    /// Its name in the register table.
    package var label: String { content.label }
    /// The text of a variant's expressions.
    package var variant: String? { content.variant }
    /// The variant in parts for a frame; follows from the variant, so that equality need not look at it.
    package var splice: VariantSplice? { content.splice }
    /// The frame of a spec that has one: the kernel of all variants of its kind, which is no kernel before one is put into it.
    package var frame: KernelSpec? {
        splice.map {
            KernelSpec(
                file: file, entry: entry, defines: defines, threads: threads, sharedByteCount: sharedByteCount,
                blocksPerProcessor: blocksPerProcessor, usesFastMath: usesFastMath, label: label, variant: $0.frame)
        }
    }
}

extension KernelSpec: Hashable {
    /// Whether both stand for the same machine code and launch; labels do not count.
    package static func == (left: KernelSpec, right: KernelSpec) -> Bool {
        let (a, b) = (left.content, right.content)
        if a === b { return true }
        return a.hash == b.hash && a.file == b.file && a.entry == b.entry && a.defines == b.defines
            && a.threads == b.threads && a.sharedByteCount == b.sharedByteCount
            && a.blocksPerProcessor == b.blocksPerProcessor && a.usesFastMath == b.usesFastMath
            && a.variant == b.variant
    }

    /// Feeds the hash made at the start.
    package func hash(into hasher: inout Hasher) { hasher.combine(content.hash) }
}
