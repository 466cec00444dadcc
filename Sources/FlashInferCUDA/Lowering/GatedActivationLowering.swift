package import CUDAKernels
package import FlashInferCore

/// The kernels of gated activations and, where there is no activation and only a gate, of conversion to bytes: element by element, or row
/// by row or group by group where each has a scale of its own.
package enum GatedActivationKernel {
    private static let table = SpecTable(count: 144)
    private static let rowTable = SpecTable(count: 72)
    private static let groupTable = SpecTable(count: 144)
    /// Threads of a row, short or long, and vectors that each holds of it: up to 16,384 elements of 16 bits. Four vectors of half as
    /// many threads would spill.
    private static let (rowThreads, rowChunks) = ([256, 1024], 2)

    /// `nil` is no activation.
    private static func numberAndName(_ activation: GatedActivationOperation.Activation?) -> (Int, String) {
        switch activation {
        case nil: (3, "quantize")
        case .silu: (0, "silu")
        case .geluErf: (1, "gelu")
        case .geluTanh: (2, "gelu-tanh")
        }
    }

    /// - Parameter output: `nil` for 8 bits, of a type chosen at run time.
    private static func spec(
        _ activation: GatedActivationOperation.Activation?, gate: DType, up: DType, output: DType?
    ) -> KernelSpec {
        let (number, name) = numberAndName(activation)
        let types = (gate.kernelNumber * 3 + up.kernelNumber) * 4 + (output?.kernelNumber ?? 3)
        return table.spec(number * 36 + types) {
            KernelSpec(
                file: "portable/gated_activation.cuh", entry: "gated_activation",
                defines: [
                    .init("FI_GATE", gate.kernelNumber), .init("FI_UP", up.kernelNumber),
                    .init("FI_OUTPUT", output?.kernelNumber ?? bytesNumber), .init("FI_ACTIVATION", number),
                ],
                // As many loads on their way as registers allow; the error function needs more of them.
                threads: fi_row_tiling.threads, blocksPerProcessor: activation == .geluErf ? 5 : 6,
                label: "\(name) \(typesLabel(gate, up, output ?? gate))" + (output == nil ? " to bytes" : ""))
        }
    }

    private static func rowSpec(
        _ activation: GatedActivationOperation.Activation?, gate: DType, up: DType, isLong: Bool
    ) -> KernelSpec {
        let (number, name) = numberAndName(activation)
        let types = (number * 3 + gate.kernelNumber) * 3 + up.kernelNumber
        let threads = rowThreads[isLong ? 1 : 0]
        return rowTable.spec(2 * types + (isLong ? 1 : 0)) {
            KernelSpec(
                file: "portable/gated_activation_rows.cuh", entry: "gated_activation_rows",
                defines: [
                    .init("FI_GATE", gate.kernelNumber), .init("FI_UP", up.kernelNumber),
                    .init("FI_OUTPUT", bytesNumber), .init("FI_ACTIVATION", number), .init("FI_CHUNKS", rowChunks),
                ],
                threads: threads, blocksPerProcessor: isLong ? 1 : activation == nil && gate != .float32 ? 6 : 4,
                label: "\(name) \(typesLabel(gate, up, gate)) to bytes by row \(threads)x\(rowChunks)")
        }
    }

    /// Rows that a thread has a vector of, where there are blocks enough all the same: both are on their way at once, and neighbours share
    /// out the groups whose scales they find. Conversion alone is bound by bytes with two.
    private static func rowsOfGroups(_ activation: GatedActivationOperation.Activation?, blocks: Int) -> Int {
        blocks < 4096 ? 1 : activation == nil ? 2 : 4
    }

    private static func groupSpec(
        _ activation: GatedActivationOperation.Activation?, gate: DType, up: DType, rows: Int
    ) -> KernelSpec {
        let (number, name) = numberAndName(activation)
        return groupTable.spec(((number * 3 + gate.kernelNumber) * 3 + up.kernelNumber) * 4 + rows - 1) {
            KernelSpec(
                file: "portable/gated_activation_groups.cuh", entry: "gated_activation_groups",
                defines: [
                    .init("FI_GATE", gate.kernelNumber), .init("FI_UP", up.kernelNumber),
                    .init("FI_OUTPUT", bytesNumber), .init("FI_ACTIVATION", number), .init("FI_ROWS", rows),
                ],
                threads: fi_row_tiling.threads,
                blocksPerProcessor: activation == nil ? 8 : rows > 1 ? 4 : activation == .geluErf ? 5 : 6,
                label: "\(name) \(typesLabel(gate, up, gate)) to bytes by group" + (rows > 1 ? " of \(rows) rows" : ""))
        }
    }

    /// The specialisations that ship.
    package static func shipped() -> [KernelSpec] {
        DType.computeTypes.flatMap { type in
            let activations = GatedActivationOperation.Activation.allCases.map { Optional($0) } + [nil]
            return activations.flatMap { activation in
                (activation == nil ? [] : [spec(activation, gate: type, up: type, output: type)])
                    + [
                        spec(activation, gate: type, up: type, output: nil),
                        rowSpec(activation, gate: type, up: type, isLong: false),
                        rowSpec(activation, gate: type, up: type, isLong: true),
                        groupSpec(activation, gate: type, up: type, rows: 1),
                        groupSpec(activation, gate: type, up: type, rows: activation == nil ? 2 : 4),
                    ]
            }
        }
    }

    /// The launch of an operation.
    package static func lower(
        _ operation: GatedActivationOperation
    ) throws(FlashInferError) -> KernelLaunch<fi_gated_activation_params>? {
        try lower(operation.gate, operation.up, operation.output, operation.activation, operation.quantization)
    }

    /// The launch of a conversion to bytes.
    package static func lower(
        _ operation: QuantizeOperation
    ) throws(FlashInferError) -> KernelLaunch<fi_gated_activation_params>? {
        try lower(operation.input, nil, operation.output, nil, operation.quantization)
    }

    private static func lower(
        _ gate: TensorView, _ up: TensorView?, _ output: TensorView,
        _ activation: GatedActivationOperation.Activation?, _ quantization: OutputQuantization?
    ) throws(FlashInferError) -> KernelLaunch<fi_gated_activation_params>? {
        if gate.elementCount == 0 {
            // Rows of no elements have a scale all the same.
            guard case .perRow = quantization, gate.rowCount > 0 else { return nil }
        }
        let isQuantized = quantization != nil
        let upType = up?.dtype ?? gate.dtype
        let vector = vectorWidth(gate.dtype, upType, isQuantized ? .float32 : output.dtype)
        let hasOwnScales =
            switch quantization {
            case .perRow, .perGroup: true
            case nil, .scale, .scaleTensor: false
            }
        let cover = try fi_row_tiling.covering(
            (gate, output, up), vector: vector, name: "gate", mayJoinRows: !hasOwnScales)
        let parameters = fi_gated_activation_params(
            gate: try fi_row_tensor(gate, "gate"),
            up: try up.map { (view) throws(FlashInferError) in try fi_row_tensor(view, "up") } ?? .absent,
            output: try fi_row_tensor(output, "output"), tiling: cover.tiling,
            quantize: try fi_quantize(quantization, output.dtype))
        switch quantization {
        case .perRow:
            let chunks = gate.width / (cover.tiling.vectorised == 0 ? 1 : vector)
            let isLong = chunks > rowThreads[0] * rowChunks
            // A processor has one block of long rows, which brings its next row while it has one; several of short ones.
            let rows = Int(cover.tiling.rows), each = isLong ? min(max(rows / 128, 1), 16) : 1
            return KernelLaunch(
                rowSpec(activation, gate: gate.dtype, up: upType, isLong: isLong), blocks: (rows + each - 1) / each,
                parameters)
        case .perGroup(let size, _):
            // A warp a group where rows are not aligned.
            let (groups, overflow) = gate.rowCount.multipliedReportingOverflow(by: gate.width / size)
            let warps = fi_row_tiling.threads / 32
            let isSingle = cover.tiling.vectorised == 0
            let rows = isSingle ? 1 : rowsOfGroups(activation, blocks: cover.blocks)
            let across = max(Int(cover.tiling.column_blocks), 1)
            let blocks =
                isSingle ? (groups + warps - 1) / warps : (cover.blocks / across + rows - 1) / rows * across
            guard !overflow, blocks <= Int(Int32.max) else { throw .overflow("elements of gate") }
            return KernelLaunch(
                groupSpec(activation, gate: gate.dtype, up: upType, rows: rows), blocks: blocks, parameters)
        case nil, .scale, .scaleTensor:
            return KernelLaunch(
                spec(activation, gate: gate.dtype, up: upType, output: isQuantized ? nil : output.dtype),
                blocks: cover.blocks, parameters)
        }
    }
}
