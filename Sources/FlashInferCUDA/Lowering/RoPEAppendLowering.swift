package import CUDAKernels
package import FlashInferCore

/// The kernels of rotary embedding with an append: one for each type of queries, keys and values, with all types of caches.
package enum RoPEAppendKernel {
    private static let table = SpecTable(count: 3)
    /// As for rotary embedding alone: short enough that a single token's heads fill several processors.
    private static let threads = 128

    private static func spec(_ input: DType) -> KernelSpec {
        table.spec(input.kernelNumber) {
            KernelSpec(
                file: "portable/rope_append.cuh", entry: "rope_append",
                defines: [.init("FI_INPUT", input.kernelNumber)], threads: threads, blocksPerProcessor: 8,
                label: "rope-append \(input.label)")
        }
    }

    /// The specialisations that ship: all.
    package static func shipped() -> [KernelSpec] { DType.computeTypes.map(spec) }

    /// The launch of an operation.
    ///
    /// - Parameters:
    ///   - turns: the address of the parameters' table, see ``RoPETurns``.
    ///   - slots: the address of the slots, `[2, tokens]`.
    package static func lower(
        _ operation: RoPEAppendKVOperation, turns: UInt, slots: UInt
    ) throws(FlashInferError) -> KernelLaunch<fi_rope_append_params>? {
        let (queries, output) = (operation.queries, operation.queryOutput)
        let cache = operation.cache
        let (tokens, queryHeads, headDim) = (queries.shape[0], queries.shape[1], queries.shape[2])
        let (heads, valueDim) = (cache.keys.headCount, cache.values.headDim)
        let rotaryDim = operation.parameters.rotaryDim ?? headDim
        let rest = headDim - rotaryDim
        // What is not turned stays where it is.
        let isInPlace = output.address == queries.address && output.dtype == queries.dtype
        try check(operation)

        let full = vectorWidth(queries.dtype)
        let isAligned =
            rotaryDim / 2 <= FI_ROPE_TABLE_PAIRS && rotaryDim / 2 % full == 0 && rest % full == 0
            && valueDim % full == 0
            && [queries, output, operation.keys, operation.values, cache.keys.view, cache.values.view]
                .allSatisfy { $0.hasAlignedRows(vector: full) }
        let vector = isAligned ? full : 1
        let (turnLanes, copyLanes) = (rotaryDim / 2 / vector, rest / vector)
        let queryCopyLanes = isInPlace ? 0 : copyLanes
        let valueLanes = valueDim / vector
        guard headDim <= Int(Int32.max) / 4, valueDim <= Int(Int32.max) / 4, queryHeads <= 1 << 24, heads <= 1 << 24,
            let items = Int32(
                exactly: queryHeads * (turnLanes + queryCopyLanes) + heads * (turnLanes + copyLanes + valueLanes))
        else { throw .overflow("heads of queries") }
        let tokenBlocks = (Int(items) + threads - 1) / threads
        let (blocks, overflow) = tokens.multipliedReportingOverflow(by: tokenBlocks)
        guard !overflow, blocks <= Int(Int32.max) else { throw .overflow("elements of queries") }
        if blocks == 0 { return nil }
        return KernelLaunch(
            spec(queries.dtype), blocks: blocks,
            fi_rope_append_params(
                queries: fi_heads_tensor(queries), query_output: fi_heads_tensor(output),
                keys: fi_heads_tensor(operation.keys), values: fi_heads_tensor(operation.values),
                key_cache: fi_cache_target(cache.keys, cache.scales.key, cache.scales.keyPerHead),
                value_cache: fi_cache_target(cache.values, cache.scales.value, cache.scales.valuePerHead),
                positions: UInt64(operation.positions.address), turns: UInt64(turns), slots: UInt64(slots),
                blocks: Int64(cache.keys.blockCount), block_rows: Int64(cache.keys.blockSize ?? 0),
                tokens: UInt32(tokens), query_heads: UInt32(queryHeads), kv_heads: UInt32(heads),
                rotary_dim: UInt32(rotaryDim), turn_lanes: UInt32(turnLanes),
                query_copy_lanes: UInt32(queryCopyLanes), key_copy_lanes: UInt32(copyLanes),
                value_lanes: UInt32(valueLanes), token_blocks: UInt32(tokenBlocks),
                query_factor: 1 / operation.queryScale, query_type: Int32(output.dtype.kernelNumber),
                cache_type: Int32(cache.keys.dtype.kernelNumber),
                interleaved: operation.parameters.pairing == .interleaved ? 1 : 0, vectorised: isAligned ? 1 : 0))
    }

    /// Elements lie at multiples of their size.
    private static func check(_ operation: RoPEAppendKVOperation) throws(FlashInferError) {
        try operation.queries.checkAlignment("queries")
        try operation.queryOutput.checkAlignment("query output")
        try operation.keys.checkAlignment("keys")
        try operation.values.checkAlignment("values")
        try operation.positions.checkAlignment("positions")
        try operation.cache.keys.view.checkAlignment("keys of the cache")
        try operation.cache.values.view.checkAlignment("values of the cache")
        try operation.cache.scales.keyPerHead?.checkAlignment("key scales")
        try operation.cache.scales.valuePerHead?.checkAlignment("value scales")
    }
}

extension fi_cache_target {
    fileprivate init(_ tensor: KVTensor, _ scale: Float, _ perHead: TensorView?) {
        self.init(
            address: UInt64(tensor.view.address), block: Int64(tensor.blockStride), token: Int64(tensor.tokenStride),
            head: Int64(tensor.headStride), scales: UInt64(perHead?.address ?? 0), scale: scale)
    }
}
