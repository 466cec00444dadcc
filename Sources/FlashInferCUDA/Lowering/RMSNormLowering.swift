package import CUDAKernels
package import FlashInferCore

/// The kernels of root-mean-square normalisation.
package enum RMSNormKernel {
    /// How threads share a row.
    private struct Shape {
        /// Threads of a row, and of a block.
        var group: Int
        var threads: Int
        /// Vectors of a row that a thread holds.
        var chunks: Int
    }

    /// By width; a row of more vectors than the last holds is read twice.
    private static let shapes = [
        // Heads of 128 and less: several rows a block, so that blocks are worth their launch.
        Shape(group: 16, threads: 128, chunks: 1),
        Shape(group: 32, threads: 128, chunks: 1),
        // Two vectors a thread: twice the loads on their way, and half the threads at the barrier.
        Shape(group: 128, threads: 128, chunks: 2),
        Shape(group: 256, threads: 256, chunks: 2),
        Shape(group: 512, threads: 512, chunks: 2),
        Shape(group: 1024, threads: 1024, chunks: 2),
        Shape(group: 1024, threads: 1024, chunks: 4),
    ]

    private static let table = SpecTable(count: 108 * shapes.count)

    /// - Parameter output: `nil` for 8 bits, of a type chosen at run time.
    private static func spec(
        _ shape: Int, input: DType, residual: DType, weight: DType, output: DType?
    ) -> KernelSpec {
        let types =
            ((input.kernelNumber * 3 + residual.kernelNumber) * 3 + weight.kernelNumber) * 4
            + (output?.kernelNumber ?? 3)
        return table.spec(shape * 108 + types) {
            let way = shapes[shape]
            let isUniform = input == residual && input == weight && input == output ?? input
            let types = [input.label, residual.label, weight.label] + (output.map { [$0.label] } ?? [])
            let name = (isUniform ? input.label : types.joined(separator: "-")) + (output == nil ? " to bytes" : "")
            return KernelSpec(
                file: "portable/rms_norm.cuh", entry: "rms_norm",
                defines: [
                    .init("FI_INPUT", input.kernelNumber), .init("FI_RESIDUAL", residual.kernelNumber),
                    .init("FI_WEIGHT", weight.kernelNumber),
                    .init("FI_OUTPUT", output?.kernelNumber ?? bytesNumber),
                    .init("FI_GROUP", way.group), .init("FI_CHUNKS", way.chunks),
                ],
                // 1,280 threads a processor, 1,024 for bytes: more would spill what they hold of their rows.
                threads: way.threads, blocksPerProcessor: max((output == nil ? 1024 : 1280) / way.threads, 1),
                label: "rms-norm \(name) \(way.group)x\(way.chunks)")
        }
    }

    /// The specialisations that ship.
    package static func shipped() -> [KernelSpec] {
        DType.computeTypes.flatMap { type in
            [type, nil].flatMap { output in
                shapes.indices.map { spec($0, input: type, residual: type, weight: type, output: output) }
            }
        }
    }

    /// The launch of an operation.
    package static func lower(
        _ operation: RMSNormOperation
    ) throws(FlashInferError) -> KernelLaunch<fi_rms_norm_params>? {
        let (input, output, weight) = (operation.input, operation.output, operation.weight)
        if input.elementCount == 0 {
            // Rows of no elements have a scale all the same.
            guard case .perRow = operation.quantization, input.rowCount > 0 else { return nil }
        }
        let residual = operation.residual
        let residualType = residual?.dtype ?? input.dtype
        // Bytes take no part in the width of vectors: what a thread holds of its row would not fit in registers.
        let isQuantized = operation.quantization != nil
        let vector = vectorWidth(input.dtype, residualType, weight.dtype, isQuantized ? .float32 : output.dtype)
        let width = input.width
        let isAligned =
            width % vector == 0 && input.hasAlignedRows && output.hasAlignedRows(vector: vector)
            && weight.address % 16 == 0 && residual?.hasAlignedRows ?? true
        let chunks = isAligned ? width / vector : width
        let shape = shapes.firstIndex { chunks <= $0.group * $0.chunks } ?? shapes.count - 1
        let rows = try input.kernelRowCount("input")
        let rowsPerBlock = shapes[shape].threads / shapes[shape].group
        try weight.checkAlignment("weight")
        return KernelLaunch(
            spec(
                shape, input: input.dtype, residual: residualType, weight: weight.dtype,
                output: isQuantized ? nil : output.dtype),
            blocks: (Int(rows) + rowsPerBlock - 1) / rowsPerBlock,
            fi_rms_norm_params(
                input: try fi_row_tensor(input, "input"),
                residual: try residual.map { (view) throws(FlashInferError) in try fi_row_tensor(view, "residual") }
                    ?? .absent,
                output: try fi_row_tensor(output, "output"), weight: UInt64(weight.address), width: Int64(width),
                rows: rows, inner_rows: input.innerRows, epsilon: operation.epsilon,
                weight_offset: operation.weightOffset, quantize: try fi_quantize(operation.quantization, output.dtype),
                vectorised: isAligned ? 1 : 0))
    }
}
