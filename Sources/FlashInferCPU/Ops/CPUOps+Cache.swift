internal import CFlashInferCPU
public import FlashInferCore
internal import Synchronization

extension CPUOps {
    /// Stores new keys and values.
    public func execute(_ operation: AppendKVOperation) {
        let slots = operation.slots.onHost
        let (tokens, heads) = (slots.count, operation.cache.keys.headCount)
        scratch.withLock { scratch in
            let offsets = scratch.slots.reserve(2 * tokens)
            let scales = scratch.scales.reserve(2 * heads)
            let cache = operation.cache
            let keys = Self.arguments(
                operation.keys, cache.keys, slots, offsets, cache.scales.key, cache.scales.keyPerHead, scales)
            let values = Self.arguments(
                operation.values, cache.values, slots, offsets + tokens, cache.scales.value,
                cache.scales.valuePerHead, scales + heads)
            spread(
                rows: tokens, units: 2 * (operation.keys.elementCount + operation.values.elementCount)
            ) { _, first, last in
                withUnsafePointer(to: keys) { kernels.scatter($0, first, last) }
                withUnsafePointer(to: values) { kernels.scatter($0, first, last) }
            }
        }
    }

    /// The scatter of keys or of values, its offsets and reciprocal scales filled in.
    static func arguments(
        _ source: TensorView, _ cache: KVTensor, _ slots: KVSlots, _ offsets: UnsafeMutablePointer<Int64>,
        _ scale: Float, _ perHead: TensorView?, _ reciprocals: UnsafeMutablePointer<Float>
    ) -> fi_scatter_args {
        for token in 0..<slots.count {
            let block = Int(slots.blocks[token])
            offsets[token] =
                block < 0 ? -1 : Int64(block * cache.blockStride + Int(slots.rows[token]) * cache.tokenStride)
        }
        let scales = perHead?.elements(as: Float.self)
        for head in 0..<cache.headCount { reciprocals[head] = 1 / (scale * (scales?[head] ?? 1)) }
        return fi_scatter_args(
            x: source.kernelRows, destination: cache.view.pointer, destination_dtype: cache.dtype.kernelType,
            slots: offsets, head_stride: Int64(cache.headStride), scale: reciprocals, scale_stride: 1,
            heads: Int64(cache.headCount), width: Int64(cache.headDim))
    }

    /// Copies pages.
    public func execute(_ operation: CopyPagesOperation) {
        let moves = operation.schedule()
        if moves.isEmpty { return }
        scratch.withLock { scratch in
            for tensor in [operation.cache.keys, operation.cache.values] {
                let pages = PageCopier(tensor)
                let spare = UnsafeMutableRawPointer(scratch.page.reserve(pages.byteCount))
                // Every thread makes all moves, in order, for its part of every page: no thread waits for another.
                spread(rows: pages.parts, units: moves.count * pages.byteCount / 4) { _, first, last in
                    for move in moves { pages.make(move, spare, Int(first)..<Int(last)) }
                }
            }
        }
    }
}

/// Copies parts of pages. A page is `parts` runs of `partByteCount` contiguous bytes.
private struct PageCopier {
    let byteCount: Int
    let parts: Int
    private let partByteCount: Int
    private let base: UnsafeMutableRawPointer?
    private let pageByteStride: Int
    private let heads: Int
    private let (tokenByteStride, headByteStride): (Int, Int)
    private let isContiguous: Bool

    init(_ tensor: KVTensor) {
        let (tokens, size, dim) = (tensor.blockSize ?? 1, tensor.dtype.byteCount, tensor.headDim)
        heads = tensor.headCount
        byteCount = tokens * heads * dim * size
        base = tensor.view.pointer
        pageByteStride = tensor.blockStride * size
        (tokenByteStride, headByteStride) = (tensor.tokenStride * size, tensor.headStride * size)
        let tokensFirst = tensor.tokenStride == heads * dim && (tensor.headStride == dim || heads == 1)
        let headsFirst = tensor.headStride == tokens * dim && (tensor.tokenStride == dim || tokens == 1)
        isContiguous = tokensFirst || headsFirst
        // A contiguous page is cut into runs of a few cache lines, which one move joins again.
        partByteCount = isContiguous ? 256 : dim * size
        parts = isContiguous ? (byteCount + 255) / 256 : tokens * heads
    }

    func make(_ move: CopyPagesOperation.Move, _ spare: UnsafeMutableRawPointer, _ range: Range<Int>) {
        guard let base else { return }
        switch move {
        case .copy(let source, let destination):
            forRuns(range) { page, _, count in
                (base + Int(destination) * pageByteStride + page)
                    .copyMemory(from: base + Int(source) * pageByteStride + page, byteCount: count)
            }
        case .save(let source):
            forRuns(range) { page, packed, count in
                (spare + packed).copyMemory(from: base + Int(source) * pageByteStride + page, byteCount: count)
            }
        case .restore(let destination):
            forRuns(range) { page, packed, count in
                (base + Int(destination) * pageByteStride + page).copyMemory(from: spare + packed, byteCount: count)
            }
        }
    }

    /// Calls `body` with each run's byte offset in a page, its offset in the spare page, and its size.
    private func forRuns(_ range: Range<Int>, _ body: (_ page: Int, _ packed: Int, _ count: Int) -> Void) {
        if isContiguous {
            let first = range.lowerBound * partByteCount
            return body(first, first, min(range.upperBound * partByteCount, byteCount) - first)
        }
        for part in range {
            let page = part / heads * tokenByteStride + part % heads * headByteStride
            body(page, part * partByteCount, partByteCount)
        }
    }
}
