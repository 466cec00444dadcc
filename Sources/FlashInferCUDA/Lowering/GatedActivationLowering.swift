package import CUDAKernels
package import FlashInferCore

/// The kernels of gated activations: element by element, or row by row where each row has a scale of its own.
package enum GatedActivationKernel {
    private static let table = SpecTable(count: 108)
    private static let rowTable = SpecTable(count: 54)
    /// Threads of a row, short or long, and vectors that each holds of it: up to 16,384 elements of 16 bits. Four vectors of half as
    /// many threads would spill.
    private static let (rowThreads, rowChunks) = ([256, 1024], 2)

    private static func numberAndName(_ activation: GatedActivationOperation.Activation) -> (Int, String) {
        switch activation {
        case .silu: (0, "silu")
        case .geluErf: (1, "gelu")
        case .geluTanh: (2, "gelu-tanh")
        }
    }

    /// - Parameter output: `nil` for 8 bits, of a type chosen at run time.
    private static func spec(
        _ activation: GatedActivationOperation.Activation, gate: DType, up: DType, output: DType?
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
        _ activation: GatedActivationOperation.Activation, gate: DType, up: DType, isLong: Bool
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
                threads: threads, blocksPerProcessor: 1024 / threads,
                label: "\(name) \(typesLabel(gate, up, gate)) to bytes by row \(threads)x\(rowChunks)")
        }
    }

    /// The specialisations that ship.
    package static func shipped() -> [KernelSpec] {
        DType.computeTypes.flatMap { type in
            GatedActivationOperation.Activation.allCases.flatMap {
                [
                    spec($0, gate: type, up: type, output: type), spec($0, gate: type, up: type, output: nil),
                    rowSpec($0, gate: type, up: type, isLong: false),
                    rowSpec($0, gate: type, up: type, isLong: true),
                ]
            }
        }
    }

    /// The launch of an operation.
    package static func lower(
        _ operation: GatedActivationOperation
    ) throws(FlashInferError) -> KernelLaunch<fi_gated_activation_params>? {
        let (gate, up, output) = (operation.gate, operation.up, operation.output)
        if gate.elementCount == 0 {
            // Rows of no elements have a scale all the same.
            guard case .perRow = operation.quantization, gate.rowCount > 0 else { return nil }
        }
        let isQuantized = operation.quantization != nil
        let vector = vectorWidth(gate.dtype, up.dtype, isQuantized ? .float32 : output.dtype)
        let isByRow = if case .perRow = operation.quantization { true } else { false }
        let cover = try fi_row_tiling.covering(
            (gate, up, output), vector: vector, name: "gate", mayJoinRows: !isByRow)
        let parameters = fi_gated_activation_params(
            gate: try fi_row_tensor(gate, "gate"), up: try fi_row_tensor(up, "up"),
            output: try fi_row_tensor(output, "output"), tiling: cover.tiling,
            quantize: try fi_quantize(operation.quantization, output.dtype))
        if isByRow {
            let chunks = gate.width / (cover.tiling.vectorised == 0 ? 1 : vector)
            return KernelLaunch(
                rowSpec(
                    operation.activation, gate: gate.dtype, up: up.dtype, isLong: chunks > rowThreads[0] * rowChunks),
                blocks: Int(cover.tiling.rows), parameters)
        }
        return KernelLaunch(
            spec(operation.activation, gate: gate.dtype, up: up.dtype, output: isQuantized ? nil : output.dtype),
            blocks: cover.blocks, parameters)
    }
}
