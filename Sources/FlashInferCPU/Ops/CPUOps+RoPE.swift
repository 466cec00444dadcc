internal import CFlashInferCPU
public import FlashInferCore
internal import Synchronization

extension CPUOps {
    /// Turns queries and keys.
    ///
    /// All layers of a step have the same positions, so the cosines and sines of the last call are kept, and those of the
    /// last one with other parameters, as models with local and global layers have two.
    public func execute(_ operation: RoPEOperation) {
        let tokens = operation.queries.shape[0]
        let elements = operation.queries.elementCount + (operation.keys?.elementCount ?? 0)
        if tokens == 0 { return }
        scratch.withLock { scratch in
            let turns = turns(
                operation.parameters, headDim: operation.queries.shape[2], operation.positions, operation.table,
                &scratch)
            var queries = turns.arguments(operation.queries, into: operation.queryOutput.kernelRows)
            queries.norm = fi_head_norm(operation.normalization, \.queryWeight)
            var keys: fi_rope_args?
            if let input = operation.keys, let output = operation.keyOutput {
                keys = turns.arguments(input, into: output.kernelRows)
                keys?.norm = fi_head_norm(operation.normalization, \.keyWeight)
            }
            spread(rows: tokens, units: 2 * elements) { _, first, last in
                withUnsafePointer(to: queries) { kernels.rope($0, first, last) }
                if let keys { withUnsafePointer(to: keys) { kernels.rope($0, first, last) } }
            }
        }
    }

    /// Turns queries and keys, and stores keys and values: each token's heads one after another, while they are in the cache.
    public func execute(_ operation: RoPEAppendKVOperation) {
        let tokens = operation.queries.shape[0]
        let (queryHeads, heads) = (operation.queries.shape[1], operation.cache.keys.headCount)
        if tokens == 0 { return }
        let (cache, slots) = (operation.cache, operation.slots.onHost)
        scratch.withLock { scratch in
            let turns = turns(
                operation.parameters, headDim: operation.queries.shape[2], operation.positions, operation.table,
                &scratch)
            let offsets = scratch.slots.reserve(2 * tokens)
            let factors = scratch.scales.reserve(2 * heads + queryHeads)
            var queries = turns.arguments(operation.queries, into: operation.queryOutput.kernelRows)
            queries.norm = fi_head_norm(operation.normalization, \.queryWeight)
            if operation.queryScale != 1 {
                let queryFactors = factors + 2 * heads
                queryFactors.update(repeating: 1 / operation.queryScale, count: queryHeads)
                queries.scale = UnsafePointer(queryFactors)
            }
            // Keys and values go where the append alone would put them.
            let append = Self.arguments(
                operation.keys, cache.keys, slots, offsets, cache.scales.key, cache.scales.keyPerHead, factors)
            var keys = turns.arguments(
                operation.keys,
                into: fi_rows(
                    data: append.destination, outer_stride: 0, inner_stride: append.head_stride,
                    dtype: append.destination_dtype))
            (keys.slots, keys.scale) = (append.slots, append.scale)
            keys.norm = fi_head_norm(operation.normalization, \.keyWeight)
            let values = Self.arguments(
                operation.values, cache.values, slots, offsets + tokens, cache.scales.value,
                cache.scales.valuePerHead, factors + heads)
            let units =
                2 * (operation.queries.elementCount + operation.keys.elementCount + operation.values.elementCount)
            spread(rows: tokens, units: units) { _, first, last in
                withUnsafePointer(to: queries) { kernels.rope($0, first, last) }
                withUnsafePointer(to: keys) { kernels.rope($0, first, last) }
                withUnsafePointer(to: values) { kernels.scatter($0, first, last) }
            }
        }
    }

    /// The cosines and sines of a step's positions: computed, or those of a caller's table.
    func turns(
        _ parameters: RoPEParameters, headDim: Int, _ positions: TensorView, _ table: TensorView?,
        _ scratch: inout CPUOpsScratch
    ) -> RoPETurns {
        let isInterleaved = parameters.pairing == .interleaved
        if let table {
            return RoPETurns(
                table: table.elements(as: Float.self), rows: positions.elements(as: Int32.self),
                rowStride: Int64(table.strides[0]), rotaryDim: table.width, isInterleaved: isInterleaved)
        }
        let key = RoPETable.Key(parameters: parameters, headDim: headDim)
        if scratch.rope.key != key { swap(&scratch.rope, &scratch.otherRope) }
        let values = scratch.rope.table(for: key, positions, self)
        let rotaryDim = Int64(scratch.rope.rotaryDim)
        return RoPETurns(
            table: values, rows: nil, rowStride: rotaryDim, rotaryDim: rotaryDim, isInterleaved: isInterleaved)
    }
}

/// A table of cosines and sines, and which pairs it is for.
struct RoPETurns {
    let table: UnsafePointer<Float>?
    /// Which row of the table is a token's; `nil`: its own.
    let rows: UnsafePointer<Int32>?
    let rowStride: Int64
    let rotaryDim: Int64
    let isInterleaved: Bool

    init(
        table: UnsafePointer<Float>?, rows: UnsafeMutablePointer<Int32>?, rowStride: Int64, rotaryDim: Int64,
        isInterleaved: Bool
    ) {
        self.table = table
        self.rows = UnsafePointer(rows)
        self.rowStride = rowStride
        self.rotaryDim = rotaryDim
        self.isInterleaved = isInterleaved
    }

    func arguments(_ input: TensorView, into output: fi_rows) -> fi_rope_args {
        fi_rope_args(
            x: input.kernelRows, out: output, slots: nil, scale: nil, cos_sin: table, rows: rows, row_stride: rowStride,
            heads: Int64(input.shape[1]), head_dim: input.width, rotary_dim: rotaryDim, interleaved: isInterleaved,
            norm: fi_head_norm(nil, \.keyWeight))
    }
}

extension fi_head_norm {
    /// The normalisation of queries or of keys.
    fileprivate init(_ normalization: HeadNormalization?, _ weight: (HeadNormalization) -> TensorView?) {
        guard let normalization, let weight = weight(normalization) else {
            self.init(weight: nil, weight_dtype: FI_DTYPE_F32, epsilon: 0, weight_offset: 0)
            return
        }
        self.init(
            weight: weight.pointer, weight_dtype: weight.dtype.kernelType, epsilon: normalization.epsilon,
            weight_offset: normalization.weightOffset)
    }
}

/// Cosines and sines of a list of positions, kept until other positions or parameters come.
struct RoPETable: ~Copyable {
    /// What a table is made for, the positions aside.
    struct Key: Equatable {
        var parameters: RoPEParameters
        var headDim: Int
    }

    /// Elements of a head that turn.
    private(set) var rotaryDim = 0

    private(set) var key: Key?
    private var frequencies: [Double] = []
    private var count = 0
    private var positions = ScratchArray<Int32>()
    private var values = ScratchArray<Float>()

    /// `[positions, rotaryDim]`: each row the cosines, then the sines.
    mutating func table(for key: Key, _ wanted: TensorView, _ ops: borrowing CPUOps) -> UnsafePointer<Float> {
        if key != self.key {
            frequencies = key.parameters.frequencies(headDim: key.headDim)
            rotaryDim = 2 * frequencies.count
            (self.key, count) = (key, 0)
        }
        let tokens = wanted.shape[0]
        let values = values.reserve(tokens * rotaryDim)
        let known = positions.reserve(tokens)
        guard let base = wanted.elements(as: Int32.self) else { return UnsafePointer(values) }
        if count == tokens, (0..<tokens).allSatisfy({ base[$0] == known[$0] }) { return UnsafePointer(values) }
        known.update(from: base, count: tokens)
        count = tokens
        let (pairs, stride) = (frequencies.count, rotaryDim)
        frequencies.withUnsafeBufferPointer { frequencies in
            // A sine and a cosine of a double take some 40 ns.
            ops.spread(rows: tokens, units: 60 * tokens * pairs) { _, first, last in
                fi_rope_table(
                    values + Int(first) * stride, base + Int(first), last - first, frequencies.baseAddress,
                    Int64(pairs))
            }
        }
        return UnsafePointer(values)
    }
}
