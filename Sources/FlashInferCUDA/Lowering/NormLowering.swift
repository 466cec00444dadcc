package import CUDAKernels
package import FlashInferCore

/// The kernels of normalisation: by the root of the mean square, and layer norm.
package enum NormKernel {
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

    /// Layer norm has no registers for the last.
    private static func shapes(isCentred: Bool) -> ArraySlice<Shape> { isCentred ? shapes.dropLast() : shapes[...] }

    /// Combinations of input, residual or none, weight, and output or bytes.
    private static let typeCombinations = 3 * 4 * 3 * 4
    private static let table = SpecTable(count: 2 * typeCombinations * shapes.count)

    /// - Parameters:
    ///   - isCentred: whether it is layer norm.
    ///   - residual: `nil` where nothing is added, which leaves registers to more threads.
    ///   - output: `nil` for 8 bits, of a type chosen at run time.
    private static func spec(
        _ shape: Int, isCentred: Bool, input: DType, residual: DType?, weight: DType, output: DType?
    ) -> KernelSpec {
        let types =
            ((input.kernelNumber * 4 + (residual?.kernelNumber ?? 3)) * 3 + weight.kernelNumber) * 4
            + (output?.kernelNumber ?? 3)
        return table.spec((isCentred ? shapes.count + shape : shape) * typeCombinations + types) {
            let way = shapes[shape]
            let isUniform = input == residual ?? input && input == weight && input == output ?? input
            let types = [input.label, (residual ?? input).label, weight.label] + (output.map { [$0.label] } ?? [])
            let name =
                (isUniform ? input.label : types.joined(separator: "-")) + (residual == nil ? "" : " with residual")
                + (output == nil ? " to bytes" : "")
            return KernelSpec(
                file: "portable/norm.cuh", entry: "norm_rows",
                defines: [
                    .init("FI_INPUT", input.kernelNumber),
                    .init("FI_RESIDUAL", (residual ?? input).kernelNumber),
                    .init("FI_HAS_RESIDUAL", residual != nil),
                    .init("FI_WEIGHT", weight.kernelNumber),
                    .init("FI_OUTPUT", output?.kernelNumber ?? bytesNumber),
                    .init("FI_GROUP", way.group), .init("FI_CHUNKS", way.chunks),
                    .init("FI_CENTRED", isCentred),
                ],
                // As many threads a processor as hold their rows without spilling.
                threads: way.threads,
                blocksPerProcessor: max(
                    threadsPerProcessor(
                        group: way.group, isCentred: isCentred, hasResidual: residual != nil, toBytes: output == nil)
                        / way.threads, 1),
                label: "\(isCentred ? "layer-norm" : "rms-norm") \(name) \(way.group)x\(way.chunks)")
        }
    }

    private static func threadsPerProcessor(group: Int, isCentred: Bool, hasResidual: Bool, toBytes: Bool) -> Int {
        if toBytes && (isCentred || hasResidual) { return isCentred && hasResidual ? 768 : 1024 }
        return hasResidual || toBytes && group <= 32 ? 1280 : 1536
    }

    // MARK: rows that share

    /// What bytes are scaled by; other outputs are not, as by a scale that is given.
    private enum Scales: Int, CaseIterable {
        case given, rows, groups

        /// `nil` where groups are smaller than the kernel has them.
        init?(_ quantization: OutputQuantization?) {
            switch quantization {
            case nil, .scale, .scaleTensor: self = .given
            case .perRow: self = .rows
            case .perGroup(let size, _):
                // FI_LARGEST_GROUP.
                if size != 128 { return nil }
                self = .groups
            }
        }

        var label: String { ["", " by row", " by group"][rawValue] }
    }

    /// From here on a block has several rows: there are blocks enough all the same.
    private static let manyRows = 1024
    /// Shapes whose rows have several warps each, few enough that several rows' sums fit in a warp.
    private static let sharedShapes = 2...4
    /// Combinations of input, weight, and output or bytes.
    private static let sharedTypeCombinations = 3 * 3 * 4
    /// Kinds of scales, of few rows and of many; and layer norm.
    private static let sharedKinds = 2 * Scales.allCases.count + 1
    private static let sharedTable = SpecTable(
        count: (sharedShapes.upperBound + 1) * sharedKinds * sharedTypeCombinations)

    /// Rows of a block: results that are float32 until their scales are known leave registers for two; layer norm's rows stay as they are.
    private static func sharedRows(_ shape: Int, isCentred: Bool, isMany: Bool) -> Int {
        isMany ? min(isCentred ? 4 : 2, 1024 / shapes[shape].threads) : 1
    }

    /// The kernel of aligned rows without residuals whose instructions outrun their bytes: those that become bytes, and many rows about
    /// their mean.
    private static func sharedSpec(
        _ shape: Int, isCentred: Bool, input: DType, weight: DType, output: DType?, _ scales: Scales, isMany: Bool
    ) -> KernelSpec {
        let types = (input.kernelNumber * 3 + weight.kernelNumber) * 4 + (output?.kernelNumber ?? 3)
        let kind = isCentred ? sharedKinds - 1 : 2 * scales.rawValue + (isMany ? 1 : 0)
        return sharedTable.spec((shape * sharedKinds + kind) * sharedTypeCombinations + types) {
            let way = shapes[shape], rows = sharedRows(shape, isCentred: isCentred, isMany: isMany)
            let isUniform = input == weight && input == output ?? input
            let types = [input.label, weight.label] + (output.map { [$0.label] } ?? [])
            return KernelSpec(
                file: "portable/norm_many.cuh", entry: "norm_many",
                defines: [
                    .init("FI_INPUT", input.kernelNumber), .init("FI_WEIGHT", weight.kernelNumber),
                    .init("FI_OUTPUT", output?.kernelNumber ?? bytesNumber), .init("FI_CHUNKS", way.chunks),
                    .init("FI_CENTRED", isCentred), .init("FI_ROWS", rows), .init("FI_SCALES", scales.rawValue),
                ],
                threads: way.threads, blocksPerProcessor: (isMany ? 1024 : 1536) / way.threads,
                label: (isCentred ? "layer-norm " : "rms-norm ")
                    + (isUniform ? input.label : types.joined(separator: "-")) + (output == nil ? " to bytes" : "")
                    + scales.label + " \(way.group)x\(way.chunks), \(rows == 1 ? "aligned" : "\(rows) rows")")
        }
    }

    private static func shippedShared() -> [KernelSpec] {
        DType.computeTypes.flatMap { type in
            sharedShapes.flatMap { shape in
                [false, true].flatMap { isMany in
                    Scales.allCases.map {
                        sharedSpec(
                            shape, isCentred: false, input: type, weight: type, output: nil, $0, isMany: isMany)
                    }
                } + [
                    sharedSpec(
                        shape, isCentred: true, input: type, weight: .float32, output: type, .given, isMany: true)
                ]
            }
        }
    }

    // MARK: few rows

    /// Up to here a launch takes as long as the instructions of one thread after its wait for the kernels ahead, so there is a kernel with
    /// few of those. It gives the same bits: a row's must not depend on how many rows there are.
    private static let fewRows = 256
    /// Combinations of input, residual or none, weight, and output.
    private static let fewTypeCombinations = 3 * 4 * 3 * 3
    private static let fewTable = SpecTable(count: (sharedShapes.upperBound + 1) * 2 * fewTypeCombinations)

    /// The kernel of few aligned rows that do not become bytes.
    private static func fewSpec(
        _ shape: Int, isCentred: Bool, input: DType, residual: DType?, weight: DType, output: DType
    ) -> KernelSpec {
        let types =
            ((input.kernelNumber * 4 + (residual?.kernelNumber ?? 3)) * 3 + weight.kernelNumber) * 3
            + output.kernelNumber
        return fewTable.spec((2 * shape + (isCentred ? 1 : 0)) * fewTypeCombinations + types) {
            let way = shapes[shape]
            let isUniform = input == residual ?? input && input == weight && input == output
            let labels = [input, residual ?? input, weight, output].map(\.label).joined(separator: "-")
            return KernelSpec(
                file: "portable/norm_row.cuh", entry: "norm_row",
                defines: [
                    .init("FI_INPUT", input.kernelNumber), .init("FI_RESIDUAL", (residual ?? input).kernelNumber),
                    .init("FI_HAS_RESIDUAL", residual != nil), .init("FI_WEIGHT", weight.kernelNumber),
                    .init("FI_OUTPUT", output.kernelNumber), .init("FI_CHUNKS", way.chunks),
                    .init("FI_CENTRED", isCentred),
                ],
                // Registers for all that is on its way: there are fewer blocks than fit.
                threads: way.threads, blocksPerProcessor: max((isCentred ? 768 : 1024) / way.threads, 1),
                label: "\(isCentred ? "layer-norm" : "rms-norm") \(isUniform ? input.label : labels)"
                    + (residual == nil ? "" : " with residual") + " \(way.group)x\(way.chunks), few rows")
        }
    }

    private static func shippedFew() -> [KernelSpec] {
        DType.computeTypes.flatMap { type in
            [(false, type), (true, .float32)].flatMap { isCentred, weight in
                [nil, type].flatMap { residual in
                    sharedShapes.map {
                        fewSpec($0, isCentred: isCentred, input: type, residual: residual, weight: weight, output: type)
                    }
                }
            }
        }
    }

    /// The specialisations that ship.
    package static func shipped() -> [KernelSpec] {
        shippedShared() + shippedFew()
            + DType.computeTypes.flatMap { type in
                [type, nil].flatMap { output in
                    // Layer norm's weights are float32 as a rule, whatever the rows are.
                    [(false, type), (true, .float32)].flatMap { isCentred, weight in
                        [nil, type].flatMap { residual in
                            shapes(isCentred: isCentred).indices.map {
                                spec(
                                    $0, isCentred: isCentred, input: type, residual: residual, weight: weight,
                                    output: output)
                            }
                        }
                    }
                }
            }
    }

    /// The launch of an operation.
    package static func lower(
        _ operation: RMSNormOperation
    ) throws(FlashInferError) -> KernelLaunch<fi_norm_params>? {
        try lower(
            operation.input, operation.residual, operation.weight, bias: nil, operation.output, operation.epsilon,
            offset: operation.weightOffset, operation.quantization)
    }

    /// The launch of an operation.
    package static func lower(
        _ operation: LayerNormOperation
    ) throws(FlashInferError) -> KernelLaunch<fi_norm_params>? {
        try lower(
            operation.input, operation.residual, operation.weight, bias: operation.bias, operation.output,
            operation.epsilon, offset: 0, operation.quantization)
    }

    private static func lower(
        _ input: TensorView, _ residual: TensorView?, _ weight: TensorView, bias: TensorView?, _ output: TensorView,
        _ epsilon: Float, offset: Float, _ quantization: OutputQuantization?
    ) throws(FlashInferError) -> KernelLaunch<fi_norm_params>? {
        if input.elementCount == 0 {
            // Rows of no elements have a scale all the same.
            guard case .perRow = quantization, input.rowCount > 0 else { return nil }
        }
        let residualType = residual?.dtype ?? input.dtype
        // Bytes take no part in the width of vectors: what a thread holds of its row would not fit in registers.
        let isQuantized = quantization != nil
        let vector = vectorWidth(input.dtype, residualType, weight.dtype, isQuantized ? .float32 : output.dtype)
        let width = input.width
        let isAligned =
            width % vector == 0 && input.hasAlignedRows && output.hasAlignedRows(vector: vector)
            && weight.address % 16 == 0 && (bias?.address ?? 0) % 16 == 0 && residual?.hasAlignedRows ?? true
        let chunks = isAligned ? width / vector : width
        let ways = shapes(isCentred: bias != nil)
        let shape = ways.firstIndex { chunks <= $0.group * $0.chunks } ?? ways.endIndex - 1
        let rows = try input.kernelRowCount("input")
        var rowsPerBlock = shapes[shape].threads / shapes[shape].group
        try weight.checkAlignment("weight")
        try bias?.checkAlignment("bias")
        let isCentred = bias != nil
        let kernel: KernelSpec
        if isAligned, residual == nil, input.innerRows == 1, sharedShapes ~= shape, isCentred != isQuantized,
            isQuantized || rows >= manyRows, let scales = Scales(quantization)
        {
            kernel = sharedSpec(
                shape, isCentred: isCentred, input: input.dtype, weight: weight.dtype,
                output: isQuantized ? nil : output.dtype, scales, isMany: rows >= manyRows)
            rowsPerBlock = sharedRows(shape, isCentred: isCentred, isMany: rows >= manyRows)
        } else if isAligned, !isQuantized, input.innerRows == 1, sharedShapes ~= shape, rows <= fewRows {
            kernel = fewSpec(
                shape, isCentred: isCentred, input: input.dtype, residual: residual?.dtype, weight: weight.dtype,
                output: output.dtype)
        } else {
            kernel = spec(
                shape, isCentred: isCentred, input: input.dtype, residual: residual?.dtype, weight: weight.dtype,
                output: isQuantized ? nil : output.dtype)
        }
        return KernelLaunch(
            kernel,
            blocks: (Int(rows) + rowsPerBlock - 1) / rowsPerBlock,
            fi_norm_params(
                input: try fi_row_tensor(input, "input"),
                residual: try residual.map { (view) throws(FlashInferError) in try fi_row_tensor(view, "residual") }
                    ?? .absent,
                output: try fi_row_tensor(output, "output"), weight: UInt64(weight.address),
                bias: UInt64(bias?.address ?? 0), width: Int64(width), rows: rows, inner_rows: input.innerRows,
                epsilon: epsilon, weight_offset: offset, quantize: try fi_quantize(quantization, output.dtype),
                vectorised: isAligned ? 1 : 0))
    }
}
