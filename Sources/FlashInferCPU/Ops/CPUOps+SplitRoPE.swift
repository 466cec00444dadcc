internal import CFlashInferCPU
public import FlashInferCore
internal import Synchronization

extension CPUOps {
    /// Turns the one part of heads, converts both, and stores keys and values: each token's, while they are in the cache.
    public func execute(_ operation: SplitRoPEOperation) {
        let tokens = operation.queries.turning.shape[0]
        if tokens == 0 { return }
        let heads = operation.keys.turning.shape[1]
        scratch.withLock { scratch in
            let turns = turns(
                operation.parameters, headDim: operation.rotaryDim, operation.positions, operation.table, &scratch)
            // One factor for each head of the queries, then of the keys: as the kernels of rotation read them.
            let queryHeads = operation.queries.turning.shape[1]
            let factors = scratch.scales.reserve(queryHeads + heads)
            factors.update(repeating: operation.queryFactor, count: queryHeads)
            (factors + queryHeads).update(repeating: operation.keyFactor, count: heads)
            let offsets = scratch.slots.reserve(2 * tokens)
            var parts = SplitRoPEParts(turns: turns)
            parts.turn(operation.queries.turning, into: operation.queryOutput.turning, by: factors)
            parts.move(operation.queries.rest, into: operation.queryOutput.rest, by: operation.queryFactor)
            let keyFactors = UnsafePointer(factors + queryHeads)
            switch operation.keyOutput {
            case .tensors(let output):
                parts.turn(operation.keys.turning, into: output.turning, by: keyFactors)
                parts.move(operation.keys.rest, into: output.rest, by: operation.keyFactor)
            case .cache(let cache, let slots):
                let slots = slots.onHost
                let keys = Self.offsets(cache.keys, slots, offsets)
                parts.turn(operation.keys.turning, into: cache.keys, keys, by: keyFactors)
                parts.store(operation.keys.rest, into: cache.keys, at: operation.rotaryDim, keys, by: keyFactors)
                parts.store(
                    operation.values, into: cache.values, at: 0, Self.offsets(cache.values, slots, offsets + tokens),
                    by: keyFactors)
            case .latentCache(let cache, let slots):
                let slots = slots.onHost
                let rotary = Self.offsets(cache.values, slots, offsets)
                parts.turn(operation.keys.turning, into: cache.values, rotary, by: keyFactors)
                parts.store(
                    operation.keys.rest, into: cache.keys, at: 0, Self.offsets(cache.keys, slots, offsets + tokens),
                    by: keyFactors)
            }
            spread(rows: tokens, units: 2 * parts.elementCount) { _, first, last in
                for part in parts.turned { withUnsafePointer(to: part) { kernels.rope($0, first, last) } }
                for part in parts.stored { withUnsafePointer(to: part) { kernels.scatter($0, first, last) } }
                for part in parts.moved {
                    withUnsafePointer(to: part) {
                        kernels.convert($0, first * $0.pointee.inner, last * $0.pointee.inner)
                    }
                }
            }
        }
    }

    /// Where each token's first head starts in keys or values of a cache, in elements; -1 for one that is not stored.
    private static func offsets(
        _ cache: KVTensor, _ slots: KVSlots, _ offsets: UnsafeMutablePointer<Int64>
    ) -> UnsafePointer<Int64> {
        for token in 0..<slots.count {
            let block = Int(slots.blocks[token])
            offsets[token] =
                block < 0 ? -1 : Int64(block * cache.blockStride + Int(slots.rows[token]) * cache.tokenStride)
        }
        return UnsafePointer(offsets)
    }
}

/// The kernels' arguments of each part.
private struct SplitRoPEParts {
    let turns: RoPETurns
    var turned: [fi_rope_args] = []
    var stored: [fi_scatter_args] = []
    var moved: [fi_convert_args] = []
    var elementCount = 0

    init(turns: RoPETurns) { self.turns = turns }

    mutating func turn(_ input: TensorView, into output: TensorView, by factors: UnsafePointer<Float>) {
        var part = turns.arguments(input, into: output.kernelRows)
        part.scale = factors
        turned.append(part)
        elementCount += input.elementCount
    }

    mutating func turn(
        _ input: TensorView, into cache: KVTensor, _ offsets: UnsafePointer<Int64>, by factors: UnsafePointer<Float>
    ) {
        var part = turns.arguments(
            input,
            into: fi_rows(
                data: cache.view.pointer, outer_stride: 0, inner_stride: Int64(cache.headStride),
                dtype: cache.dtype.kernelType))
        (part.slots, part.scale) = (offsets, factors)
        turned.append(part)
        elementCount += input.elementCount
    }

    mutating func move(_ input: TensorView?, into output: TensorView?, by factor: Float) {
        guard let input, let output, input.elementCount > 0 else { return }
        moved.append(
            fi_convert_args(
                x: input.kernelRows, out: output.kernelRows, inner: input.innerRows, width: input.width, scale: factor))
        elementCount += input.elementCount
    }

    /// Elements of heads from `start` on.
    mutating func store(
        _ input: TensorView?, into cache: KVTensor, at start: Int, _ offsets: UnsafePointer<Int64>,
        by factors: UnsafePointer<Float>
    ) {
        guard let input, input.elementCount > 0 else { return }
        stored.append(
            fi_scatter_args(
                x: input.kernelRows, destination: cache.view.pointer.map { $0 + start * cache.dtype.byteCount },
                destination_dtype: cache.dtype.kernelType, slots: offsets, head_stride: Int64(cache.headStride),
                scale: factors, scale_stride: 1, heads: Int64(input.shape[1]), width: input.width))
        elementCount += input.elementCount
    }
}
