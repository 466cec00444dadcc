package import CUDAKernels
package import FlashInferCore

/// The kernels that select pages by their scores.
package enum SelectPagesKernel {
    private static let table = SpecTable(count: 3)

    private static func spec(_ type: DType) -> KernelSpec {
        table.spec(type.kernelNumber) {
            KernelSpec(
                file: "portable/select_pages.cuh", entry: "select_pages",
                defines: [.init("FI_INPUT", type.kernelNumber)], threads: 512, blocksPerProcessor: 2,
                label: "select pages \(type.label)")
        }
    }

    /// The specialisations that ship: all.
    package static func shipped() -> [KernelSpec] { DType.computeTypes.map(spec) }

    /// The launch of an operation.
    package static func lower(
        _ operation: SelectPagesOperation
    ) throws(FlashInferError) -> KernelLaunch<fi_select_pages_params>? {
        let (scores, pages) = (operation.scores, operation.pages)
        let rows = try scores.kernelRowCount("scores")
        if rows == 0 { return nil }
        try operation.lengths.checkAlignment("lengths")
        try operation.requests?.checkAlignment("requests")
        var parameters = fi_select_pages_params()
        parameters.scores = try fi_row_tensor(scores, "scores")
        parameters.lengths = UInt64(operation.lengths.address)
        parameters.requests = UInt64(operation.requests?.address ?? 0)
        switch operation.transform {
        case .table(let table):
            try table.checkAlignment("table")
            parameters.table = UInt64(table.address)
            parameters.table_stride = Int64(table.strides[0])
            parameters.table_rows = UInt32(clamping: table.shape[0])
        case .offsets(let offsets):
            try offsets.checkAlignment("offsets")
            parameters.offsets = UInt64(offsets.address)
        }
        parameters.pages = try fi_row_tensor(pages, "pages")
        parameters.positions =
            try operation.positions.map { (view) throws(FlashInferError) in
                try fi_row_tensor(view, "positions")
            } ?? .absent
        parameters.heads = scores.innerRows
        parameters.width = UInt32(scores.width)
        // No row has more pages than 32 bits count.
        parameters.k = UInt32(clamping: pages.width)
        parameters.recent = UInt32(clamping: operation.recent)
        parameters.takes_highest = operation.ties == .highest ? 1 : 0
        return KernelLaunch(spec(scores.dtype), blocks: Int(rows), parameters)
    }
}
