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
            let key = RoPETable.Key(parameters: operation.parameters, headDim: operation.queries.shape[2])
            if scratch.rope.key != key { swap(&scratch.rope, &scratch.otherRope) }
            let table = scratch.rope.table(for: key, operation.positions, self)
            let dim = scratch.rope.rotaryDim
            let queries = Self.arguments(operation.queries, operation.queryOutput, table, dim, operation.parameters)
            var keys: fi_rope_args?
            if let input = operation.keys, let output = operation.keyOutput {
                keys = Self.arguments(input, output, table, dim, operation.parameters)
            }
            spread(rows: tokens, units: 2 * elements) { _, first, last in
                withUnsafePointer(to: queries) { kernels.rope($0, first, last) }
                if let keys { withUnsafePointer(to: keys) { kernels.rope($0, first, last) } }
            }
        }
    }

    private static func arguments(
        _ input: TensorView, _ output: TensorView, _ table: UnsafePointer<Float>, _ rotaryDim: Int,
        _ parameters: RoPEParameters
    ) -> fi_rope_args {
        fi_rope_args(
            x: input.kernelRows, out: output.kernelRows, cos_sin: table, heads: Int64(input.shape[1]),
            head_dim: input.width, rotary_dim: Int64(rotaryDim), interleaved: parameters.pairing == .interleaved)
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
