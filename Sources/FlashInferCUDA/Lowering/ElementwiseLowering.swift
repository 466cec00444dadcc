package import CUDAKernels
package import FlashInferCore

/// The kernels of weighted sums.
package enum AddKernel {
    private static let table = SpecTable(count: 27)

    private static func spec(first: DType, second: DType, output: DType) -> KernelSpec {
        table.spec((first.kernelNumber * 3 + second.kernelNumber) * 3 + output.kernelNumber) {
            KernelSpec(
                file: "portable/add.cuh", entry: "add",
                defines: [
                    .init("FI_FIRST", first.kernelNumber), .init("FI_SECOND", second.kernelNumber),
                    .init("FI_OUTPUT", output.kernelNumber),
                ],
                threads: fi_row_tiling.threads, label: "add \(typesLabel(first, second, output))")
        }
    }

    /// The specialisations that ship.
    package static func shipped() -> [KernelSpec] {
        DType.computeTypes.map { spec(first: $0, second: $0, output: $0) }
    }

    /// The launch of an operation.
    package static func lower(
        _ operation: AddOperation
    ) throws(FlashInferError) -> KernelLaunch<fi_add_params>? {
        let (first, second, output) = (operation.first, operation.second, operation.output)
        if first.elementCount == 0 { return nil }
        let secondType = second?.dtype ?? first.dtype
        let cover = try fi_row_tiling.covering(
            (first, output, second), vector: vectorWidth(first.dtype, secondType, output.dtype), name: "first")
        return KernelLaunch(
            spec(first: first.dtype, second: secondType, output: output.dtype), blocks: cover.blocks,
            fi_add_params(
                first: try fi_row_tensor(first, "first"),
                second: try second.map { (view) throws(FlashInferError) in try fi_row_tensor(view, "second") }
                    ?? .absent,
                output: try fi_row_tensor(output, "output"), tiling: cover.tiling, alpha: operation.alpha,
                beta: operation.beta))
    }
}

/// The kernels of conversions: one for each type of input, with all types of output.
package enum ConvertKernel {
    private static let table = SpecTable(count: 6)

    private static func spec(input: DType) -> KernelSpec {
        table.spec(input.kernelNumber) {
            KernelSpec(
                file: "portable/convert.cuh", entry: "convert", defines: [.init("FI_INPUT", input.kernelNumber)],
                threads: fi_row_tiling.threads, label: "convert \(input.label)")
        }
    }

    /// The specialisations that ship: all.
    package static func shipped() -> [KernelSpec] {
        DType.allCases.filter(\.isCacheType).map { spec(input: $0) }
    }

    /// The launch of an operation.
    package static func lower(
        _ operation: ConvertOperation
    ) throws(FlashInferError) -> KernelLaunch<fi_convert_params>? {
        let (input, output) = (operation.input, operation.output)
        if input.elementCount == 0 { return nil }
        let cover = try fi_row_tiling.covering(
            (input, output, nil), vector: vectorWidth(input.dtype, output.dtype), name: "input")
        return KernelLaunch(
            spec(input: input.dtype), blocks: cover.blocks,
            fi_convert_params(
                input: try fi_row_tensor(input, "input"), output: try fi_row_tensor(output, "output"),
                tiling: cover.tiling, output_type: Int32(output.dtype.kernelNumber), scale: operation.scale))
    }
}

/// The kernels of gathers: one for each type of output, with all types of tables.
package enum EmbeddingKernel {
    private static let table = SpecTable(count: 3)

    private static func spec(output: DType) -> KernelSpec {
        table.spec(output.kernelNumber) {
            KernelSpec(
                file: "portable/embedding.cuh", entry: "embedding", defines: [.init("FI_OUTPUT", output.kernelNumber)],
                threads: fi_row_tiling.threads, label: "embedding \(output.label)")
        }
    }

    /// The specialisations that ship: all.
    package static func shipped() -> [KernelSpec] { DType.computeTypes.map { spec(output: $0) } }

    /// The launch of an operation.
    package static func lower(
        _ operation: EmbeddingOperation
    ) throws(FlashInferError) -> KernelLaunch<fi_embedding_params>? {
        let (table, output) = (operation.table, operation.output)
        if output.elementCount == 0 { return nil }
        let vector = vectorWidth(table.dtype, output.dtype)
        // Rows of the table are not those of the launch: its alignment counts, and rows are not joined.
        let cover = try fi_row_tiling.covering(
            (output, output, nil), vector: vector, name: "output", mayJoinRows: false,
            othersAreAligned: table.hasAlignedRows)
        try table.checkAlignment("table")
        try operation.ids.checkAlignment("ids")
        return KernelLaunch(
            spec(output: output.dtype), blocks: cover.blocks,
            fi_embedding_params(
                table: UInt64(table.address), table_stride: Int64(table.strides[0]),
                vocabulary: Int64(table.shape[0]), ids: UInt64(operation.ids.address),
                output: try fi_row_tensor(output, "output"), tiling: cover.tiling,
                table_type: Int32(table.dtype.kernelNumber), scale: operation.scale))
    }
}
