package import CUDAKernels
package import FlashInferCore

/// The kernels that store keys and values: one for each type of new ones, with all types of caches.
package enum AppendKVKernel {
    private static let table = SpecTable(count: 6)
    private static let threads = 256
    /// Tokens of a thread: two where there are blocks enough all the same, so that it has two vectors on their way. With four there are
    /// too few blocks to follow each other.
    private static func tokensPerThread(of tokens: Int) -> Int { tokens < 2048 ? 1 : 2 }

    private static func spec(_ source: DType, tokens: Int) -> KernelSpec {
        table.spec(2 * source.kernelNumber + (tokens > 1 ? 1 : 0)) {
            KernelSpec(
                file: "portable/append_kv.cuh", entry: "append_kv",
                defines: [.init("FI_SOURCE", source.kernelNumber), .init("FI_TOKENS", tokens)],
                threads: threads, blocksPerProcessor: tokens == 1 ? 1 : source == .float32 ? 4 : 5,
                label: "append-kv \(source.label)" + (tokens > 1 ? " of \(tokens) tokens" : ""))
        }
    }

    /// The specialisations that ship: all.
    package static func shipped() -> [KernelSpec] {
        DType.computeTypes.flatMap { type in [1, 2].map { spec(type, tokens: $0) } }
    }

    /// The launches of an operation: one, or two where keys and values differ in type.
    ///
    /// - Parameter slots: the address of the slots, `[2, tokens]`.
    package static func lower(
        _ operation: AppendKVOperation, slots: UInt
    ) throws(FlashInferError) -> [KernelLaunch<fi_append_params>] {
        let cache = operation.cache
        let keys = Half(
            source: operation.keys, cache: cache.keys, scale: cache.scales.key, perHead: cache.scales.keyPerHead,
            name: "keys")
        let values = Half(
            source: operation.values, cache: cache.values, scale: cache.scales.value,
            perHead: cache.scales.valuePerHead, name: "values")
        var launches: [KernelLaunch<fi_append_params>] = []
        if operation.keys.dtype == operation.values.dtype {
            try append(keys, values, operation, slots, to: &launches)
        } else {
            try append(keys, nil, operation, slots, to: &launches)
            try append(values, nil, operation, slots, to: &launches)
        }
        return launches
    }

    /// Keys or values.
    private struct Half {
        let source: TensorView
        let cache: KVTensor
        let scale: Float
        let perHead: TensorView?
        let name: StaticString

        func isAligned(_ vector: Int) -> Bool {
            cache.headDim % vector == 0 && source.hasAlignedRows && cache.view.hasAlignedRows
        }

        func parameters(vector: Int) throws(FlashInferError) -> fi_append_half {
            try source.checkAlignment(name)
            try cache.view.checkAlignment("cache", of: name)
            try perHead?.checkAlignment("scales", of: name)
            return fi_append_half(
                source: UInt64(source.address), source_token: Int64(source.strides[0]),
                source_head: Int64(source.strides[1]), cache: UInt64(cache.view.address),
                block: Int64(cache.blockStride), token: Int64(cache.tokenStride), head: Int64(cache.headStride),
                scales: UInt64(perHead?.address ?? 0), scale: scale, lanes: UInt32(cache.headDim / vector),
                width: UInt32(cache.headDim))
        }
    }

    private static func append(
        _ first: Half, _ second: Half?, _ operation: AppendKVOperation, _ slots: UInt,
        to launches: inout [KernelLaunch<fi_append_params>]
    ) throws(FlashInferError) {
        let cache = first.cache
        let tokens = operation.slots.count
        let full = vectorWidth(first.source.dtype, cache.dtype)
        let isAligned = first.isAligned(full) && second?.isAligned(full) ?? true
        let vector = isAligned ? full : 1
        let firstItems = cache.headCount * (cache.headDim / vector)
        let secondItems = second.map { $0.cache.headCount * ($0.cache.headDim / vector) } ?? 0
        guard let items = Int32(exactly: firstItems + secondItems) else { throw .overflow("heads of \(first.name)") }
        let tokenBlocks = (Int(items) + threads - 1) / threads
        let together = tokensPerThread(of: tokens)
        // Latent attention's tokens are short.
        let sides = max(1, items > 0 ? threads / Int(items) : 1)
        let groups = (tokens + together * sides - 1) / (together * sides)
        let (blocks, overflow) = groups.multipliedReportingOverflow(by: tokenBlocks)
        guard !overflow, blocks <= Int(Int32.max) else { throw .overflow("elements of \(first.name)") }
        if blocks == 0 { return }
        // Heads of no elements have no threads; a lane each keeps the kernel's division defined.
        var halves = (try first.parameters(vector: vector), try (second ?? first).parameters(vector: vector))
        let heads = (
            halves.0.lanes == 0 ? 0 : UInt32(cache.headCount),
            second == nil || halves.1.lanes == 0 ? 0 : UInt32(cache.headCount)
        )
        halves.0.lanes = max(halves.0.lanes, 1)
        halves.1.lanes = max(halves.1.lanes, 1)
        launches.append(
            KernelLaunch(
                spec(first.source.dtype, tokens: together), blocks: blocks,
                fi_append_params(
                    half: halves, slots: UInt64(slots), blocks: Int64(cache.blockCount),
                    block_rows: Int64(cache.blockSize ?? 0), tokens: UInt32(tokens), heads: heads,
                    token_blocks: UInt32(tokenBlocks), sides: UInt32(sides),
                    cache_type: Int32(cache.dtype.kernelNumber), vectorised: isAligned ? 1 : 0)))
    }
}
