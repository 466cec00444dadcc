package import CUDAKernels
package import FlashInferCore

/// The kernels of rotary embedding.
package enum RoPEKernel {
    private static let table = SpecTable(count: 18)
    /// A block has one vector of pairs for each thread: short enough that a single token's heads fill several processors.
    private static let threads = 128

    private static func spec(input: DType, output: DType, isTabled: Bool) -> KernelSpec {
        table.spec((isTabled ? 9 : 0) + input.kernelNumber * 3 + output.kernelNumber) {
            let types = input == output ? input.label : "\(input.label)-\(output.label)"
            return KernelSpec(
                file: "portable/rope.cuh", entry: "rope",
                defines: [
                    .init("FI_INPUT", input.kernelNumber), .init("FI_OUTPUT", output.kernelNumber),
                    .init("FI_TABLED", isTabled),
                ],
                threads: threads, blocksPerProcessor: 12, label: "rope \(types)" + (isTabled ? " by table" : ""))
        }
    }

    /// The specialisations that ship.
    package static func shipped() -> [KernelSpec] {
        DType.computeTypes.flatMap { type in
            [false, true].map { spec(input: type, output: type, isTabled: $0) }
        }
    }

    /// The launches of an operation: one, or two where queries and keys differ in type.
    ///
    /// Heads that are normalised are ``RoPEPartsKernel``'s.
    package static func lower(
        _ operation: RoPEOperation, angles: fi_rope_angles
    ) throws(FlashInferError) -> [KernelLaunch<fi_rope_params>] {
        let queries = Pair(operation.queries, operation.queryOutput, "queries", "query output")
        var launches: [KernelLaunch<fi_rope_params>] = []
        guard let input = operation.keys, let output = operation.keyOutput else {
            try append(queries, nil, operation, angles, to: &launches)
            return launches
        }
        let keys = Pair(input, output, "keys", "key output")
        if queries.input.dtype == keys.input.dtype, queries.output.dtype == keys.output.dtype {
            try append(queries, keys, operation, angles, to: &launches)
        } else {
            try append(queries, nil, operation, angles, to: &launches)
            try append(keys, nil, operation, angles, to: &launches)
        }
        return launches
    }

    /// A tensor and where its turned form goes.
    private struct Pair {
        let input: TensorView
        let output: TensorView
        let names: (StaticString, StaticString)

        init(_ input: TensorView, _ output: TensorView, _ name: StaticString, _ outputName: StaticString) {
            (self.input, self.output, names) = (input, output, (name, outputName))
        }

        /// What is not turned stays where it is.
        var isInPlace: Bool { input.address == output.address && input.dtype == output.dtype }
        var hasAlignedRows: Bool { input.hasAlignedRows && output.hasAlignedRows }

        func check() throws(FlashInferError) {
            try input.checkAlignment(names.0)
            try output.checkAlignment(names.1)
        }
    }

    private static func append(
        _ queries: Pair, _ keys: Pair?, _ operation: RoPEOperation, _ angles: fi_rope_angles,
        to launches: inout [KernelLaunch<fi_rope_params>]
    ) throws(FlashInferError) {
        let input = queries.input
        let (tokens, headDim) = (input.shape[0], input.shape[2])
        let heads = input.shape[1] + (keys?.input.shape[1] ?? 0)
        let rotaryDim = operation.parameters.rotaryDim ?? headDim
        let rest = queries.isInPlace && keys?.isInPlace ?? true ? 0 : headDim - rotaryDim
        if tokens == 0 || heads == 0 || rotaryDim + rest == 0 { return }
        let vector = vectorWidth(input.dtype, queries.output.dtype)
        let isAligned =
            rotaryDim / 2 <= FI_ROPE_TABLE_PAIRS && rotaryDim / 2 % vector == 0 && rest % vector == 0
            && queries.hasAlignedRows && keys?.hasAlignedRows ?? true
        let width = isAligned ? vector : 1
        let lanes = (rotaryDim / 2 + rest) / width
        guard headDim <= Int(Int32.max) / 2, let items = Int32(exactly: heads * lanes) else {
            throw .overflow("heads of \(queries.names.0)")
        }
        let tokenBlocks = (Int(items) + threads - 1) / threads
        let (blocks, overflow) = tokens.multipliedReportingOverflow(by: tokenBlocks)
        guard !overflow, blocks <= Int(Int32.max) else { throw .overflow("elements of \(queries.names.0)") }
        try queries.check()
        try keys?.check()
        try operation.positions.checkAlignment("positions")
        launches.append(
            KernelLaunch(
                spec(input: input.dtype, output: queries.output.dtype, isTabled: angles.table != 0), blocks: blocks,
                fi_rope_params(
                    queries: fi_heads_tensor(input), query_output: fi_heads_tensor(queries.output),
                    keys: fi_heads_tensor(keys?.input), key_output: fi_heads_tensor(keys?.output),
                    positions: UInt64(operation.positions.address), angles: angles,
                    query_heads: UInt32(input.shape[1]), key_heads: UInt32(keys?.input.shape[1] ?? 0),
                    head_dim: UInt32(headDim), rotary_dim: UInt32(rotaryDim),
                    turn_lanes: UInt32(rotaryDim / 2 / width), copy_lanes: UInt32(rest / width),
                    token_blocks: UInt32(tokenBlocks), by_lanes: fi_division(by: lanes),
                    by_token_blocks: fi_division(by: tokenBlocks),
                    interleaved: operation.parameters.pairing == .interleaved ? 1 : 0, vectorised: isAligned ? 1 : 0)))
    }
}

extension fi_division {
    /// Division by `divisor`, in `1 ..< 2³¹`.
    init(by divisor: Int) {
        let division = FastDivision(by: divisor)
        self.init(multiplier: division.multiplier, shift: division.shift)
    }
}

extension fi_heads_tensor {
    /// Heads of tokens; all zeros for none.
    init(_ view: TensorView?) {
        guard let view else {
            self.init(address: 0, token: 0, head: 0)
            return
        }
        self.init(address: UInt64(view.address), token: Int64(view.strides[0]), head: Int64(view.strides[1]))
    }
}

extension fi_rope_angles {
    /// Angles that are computed from fractions of a turn at this address, see ``RoPETurns``.
    package init(turns: UInt) { self.init(turns: UInt64(turns), table: 0, table_stride: 0, table_rows: 0) }

    /// Angles that are looked up.
    package init(table: TensorView) throws(FlashInferError) {
        try table.checkAlignment("table of cosines and sines")
        self.init(
            turns: 0, table: UInt64(table.address), table_stride: Int64(table.strides[0]),
            table_rows: UInt32(clamping: min(table.shape[0], Int(Int32.max))))
    }
}
