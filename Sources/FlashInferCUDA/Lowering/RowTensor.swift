package import CUDAKernels
package import FlashInferCore

extension fi_row_tensor {
    /// A tensor as rows: rank 1 is one row, rank 3 rows of rows.
    ///
    /// - Throws: ``FlashInferError/invalidArgument(_:found:expected:)`` where elements would straddle their natural alignment,
    ///   which a GPU answers with the loss of its context.
    package init(_ view: TensorView, _ name: StaticString) throws(FlashInferError) {
        try view.checkAlignment(name)
        self.init(
            address: UInt64(view.address), outer: view.rank > 1 ? Int64(view.strides[0]) : 0,
            inner: view.rank > 2 ? Int64(view.strides[1]) : 0)
    }

    /// No tensor.
    package static var absent: fi_row_tensor { fi_row_tensor(address: 0, outer: 0, inner: 0) }
}

extension TensorView {
    /// Elements of a row.
    var width: Int { shape[-1] }

    /// How many rows follow one another by the inner stride.
    var innerRows: UInt32 { rank > 2 ? UInt32(clamping: max(shape[1], 1)) : 1 }

    /// Rows, as kernels count them.
    func kernelRowCount(_ name: StaticString) throws(FlashInferError) -> UInt32 {
        let rows = rowCount
        guard rows <= Int(Int32.max) else { throw .overflow("rows of \(name)") }
        return UInt32(rows)
    }

    /// Elements lie at multiples of their size.
    ///
    /// - Parameter owner: what it belongs to, where an operation has several of the name: "scales of keys".
    func checkAlignment(_ name: StaticString, of owner: StaticString? = nil) throws(FlashInferError) {
        guard address % UInt(dtype.byteCount) == 0 else {
            throw .invalidArgument(
                "\(name)" + (owner.map { " of \($0)" } ?? ""), found: "at address \(address)",
                expected: "at a multiple of \(dtype.byteCount) bytes")
        }
    }

    /// Whether 16-byte accesses are allowed at every multiple of 16 bytes of every row.
    var hasAlignedRows: Bool { hasRows(alignedTo: 16) }

    /// Whether vectors of `vector` elements are allowed at every multiple of their size in every row: accesses of 16 bytes or fewer.
    func hasAlignedRows(vector: Int) -> Bool { hasRows(alignedTo: vectorAlignment(vector)) }

    /// The alignment of a vector's accesses.
    func vectorAlignment(_ vector: Int) -> Int { min(16, vector * dtype.byteCount) }

    private func hasRows(alignedTo byteCount: Int) -> Bool {
        guard address % UInt(byteCount) == 0 else { return false }
        for dimension in 0..<rank - 1 where shape[dimension] > 1 {
            if strides[dimension] * dtype.byteCount % byteCount != 0 { return false }
        }
        return true
    }
}

extension fi_row_tiling {
    /// Threads of a block of the elementwise kernels.
    package static let threads = 256

    /// The tiling of tensors of one shape, and the blocks that cover it.
    ///
    /// Rows one after another in all the tensors are treated as one long row. Short rows share a block, long ones take several.
    ///
    /// - Parameters:
    ///   - vector: elements that a thread takes where everything is aligned.
    ///   - views: the tensors; those that are `nil` do not count.
    ///   - mayJoinRows: whether the kernel treats all rows alike.
    ///   - othersAreAligned: whether tensors that are not among the views allow 16-byte accesses.
    package static func covering(
        _ views: (TensorView, TensorView, TensorView?), vector: Int, name: StaticString, mayJoinRows: Bool = true,
        othersAreAligned: Bool = true
    ) throws(FlashInferError) -> (tiling: fi_row_tiling, blocks: Int) {
        let (first, second, third) = views
        let isOneRow = mayJoinRows && first.isContiguous && second.isContiguous && third?.isContiguous ?? true
        let width = isOneRow ? first.elementCount : first.width
        let rows = isOneRow ? 1 : try first.kernelRowCount(name)
        // Of one long row only the start counts.
        func isAligned(_ view: TensorView) -> Bool {
            isOneRow
                ? view.address % UInt(view.vectorAlignment(vector)) == 0 : view.hasAlignedRows(vector: vector)
        }
        let isVectorised =
            othersAreAligned && width % vector == 0 && isAligned(first) && isAligned(second)
            && third.map(isAligned) ?? true
        let chunks = isVectorised ? width / vector : width
        // The lanes of a row: the power of two that covers it, within a block.
        let laneBits = chunks <= 1 ? 0 : min(Int.bitWidth - (chunks - 1).leadingZeroBitCount, 8)
        let columnBlocks = (chunks + (1 << laneBits) - 1) >> laneBits
        let rowsPerBlock = Self.threads >> laneBits
        let (blocks, overflow) = columnBlocks.multipliedReportingOverflow(
            by: (Int(rows) + rowsPerBlock - 1) / rowsPerBlock)
        guard !overflow, blocks <= Int(Int32.max) else { throw .overflow("elements of \(name)") }
        let tiling = fi_row_tiling(
            width: Int64(width), rows: rows, inner_rows: isOneRow ? 1 : first.innerRows, lane_bits: UInt32(laneBits),
            column_blocks: UInt32(columnBlocks), vectorised: isVectorised ? 1 : 0)
        return (tiling, blocks)
    }
}

extension fi_quantize {
    /// The scale of an output of a type; what there is to say of one that is not quantised.
    package init(_ quantization: OutputQuantization?, _ type: DType) throws(FlashInferError) {
        self.init(
            scale: 0, row_scales: 0, scale_row: 0, scale_group: 0, group: 0, factor: 1, type: Int32(type.kernelNumber))
        switch quantization {
        case nil: break
        case .scale(let scale): factor = 1 / scale
        case .scaleTensor(let tensor):
            try tensor.checkAlignment("output scale")
            scale = UInt64(tensor.address)
        case .perRow(let scales):
            try scales.checkAlignment("row scales")
            row_scales = UInt64(scales.address)
        case .perGroup(let size, let scales):
            try scales.checkAlignment("group scales")
            row_scales = UInt64(scales.address)
            (group, scale_row, scale_group) = (UInt32(size), Int64(scales.strides[0]), Int64(scales.strides[1]))
        }
    }
}
