package import CUDAKernels
package import FlashInferCore

/// The kernels that merge the states that tiles of several levels left.
package enum MergeLevelsKernel {
    static func spec(output: DType, headDim: Int) -> KernelSpec {
        KernelSpec(
            file: "portable/merge_levels.cuh", entry: "merge_levels",
            defines: [.init("FI_OUTPUT", output.kernelNumber), .init("FI_HEAD_DIM_VO", headDim)], threads: 128,
            label: "merge-levels \(output.label) D \(headDim)")
    }

    /// The specialisations that ship.
    package static func shipped() -> [KernelSpec] {
        DType.computeTypes.flatMap { type in [64, 128].map { spec(output: type, headDim: $0) } }
    }
}

/// The kernels that merge states of attention.
package enum MergeStatesKernel {
    /// How a thread goes through the states of its elements.
    private enum Form: Int, CaseIterable {
        /// One state at a time, heads of any width and alignment: `merge_states.cuh`.
        case any
        /// Two states at once, of aligned heads that a warp covers: `merge_heads.cuh` with few registers and many threads.
        case pair
        /// The same of more states, several of which are on their way.
        case many

        /// - Parameters:
        ///   - lanes: threads of a head.
        ///   - count: heads of all rows.
        init(states: Int, lanes: Int, isAligned: Bool, count: Int) {
            let isCovered = isAligned && lanes <= warpSize
            // `merge_heads.cuh` numbers heads by 31 bits, those that its last block does not have included.
            let isCounted = count <= Int(Int32.max) - threads
            // It adds up as many states at a time as a head has lanes: in the order of all kernels only if that is all of them. Of more than
            // FI_MERGED_AT_ONCE there is no such order.
            let isInOrder = states == 2 || states <= lanes || states > Int(FI_MERGED_AT_ONCE)
            self = !(isCovered && isCounted && isInOrder) ? .any : states == 2 ? .pair : .many
        }

        /// As many as registers allow, for loads on their way; float32's vectors take more of them, and most where outputs are narrow.
        func blocksPerProcessor(input: DType, output: DType) -> Int {
            let isWide = input == .float32, isWidest = isWide && output != .float32
            return switch self {
            case .any: isWide ? 1 : 4
            case .pair: 6
            case .many: isWidest ? 4 : 5
            }
        }

        var label: String { ["", ", a pair", ", of heads"][rawValue] }
    }

    private static let table = SpecTable(count: 9 * Form.allCases.count)
    private static let threads = 256, warpSize = 32

    private static func spec(input: DType, output: DType, _ form: Form) -> KernelSpec {
        table.spec((form.rawValue * 3 + input.kernelNumber) * 3 + output.kernelNumber) {
            let name = form == .any ? "merge_states" : "merge_heads"
            return KernelSpec(
                file: "portable/\(name).cuh", entry: name,
                defines: [.init("FI_INPUT", input.kernelNumber), .init("FI_OUTPUT", output.kernelNumber)]
                    + (form == .any ? [] : [.init("FI_PAIR", form == .pair)]),
                threads: threads, blocksPerProcessor: form.blocksPerProcessor(input: input, output: output),
                label: "merge-states " + (input == output ? input.label : "\(input.label)-\(output.label)")
                    + form.label)
        }
    }

    /// The specialisations that ship: those of one type, and from float32.
    package static func shipped() -> [KernelSpec] {
        Form.allCases.flatMap { form in
            DType.computeTypes.map { spec(input: $0, output: $0, form) }
                + DType.computeTypes.dropFirst().map { spec(input: .float32, output: $0, form) }
        }
    }

    /// The launch of an operation.
    package static func lower(
        _ operation: MergeStatesOperation
    ) throws(FlashInferError) -> KernelLaunch<fi_merge_params>? {
        let (values, output) = (operation.values, operation.output)
        let (rows, heads, width) = (values.shape[1], values.shape[2], values.shape[3])
        if rows == 0 || heads == 0 || (width == 0 && operation.mergedLogSumExp == nil) { return nil }
        let vector = vectorWidth(values.dtype, output.dtype)
        let isAligned =
            width % vector == 0 && values.hasAlignedRows(vector: vector) && output.hasAlignedRows(vector: vector)
        let lanes = max(isAligned ? width / vector : width, 1)
        let laneBits = min(Int.bitWidth - (lanes - 1).leadingZeroBitCount, threads.trailingZeroBitCount)
        let perBlock = threads >> laneBits
        let (count, overflow) = rows.multipliedReportingOverflow(by: heads)
        let blocks = (count + perBlock - 1) / perBlock
        // The kernel's index in a head runs one step past its end.
        guard !overflow, blocks <= Int(Int32.max), width <= Int(Int32.max) else {
            throw .overflow("elements of values")
        }
        return KernelLaunch(
            spec(
                input: values.dtype, output: output.dtype,
                Form(states: values.shape[0], lanes: 1 << laneBits, isAligned: isAligned, count: count)),
            blocks: blocks,
            try fi_merge_params(operation, laneBits: laneBits, isVectorised: isAligned))
    }
}

extension fi_merge_params {
    /// The states of an operation, and how a head's elements are shared out to lanes.
    ///
    /// - Throws: ``FlashInferError`` where there are more than the kernels count to, and where tensors are misaligned.
    init(_ operation: MergeStatesOperation, laneBits: Int, isVectorised: Bool) throws(FlashInferError) {
        let (values, lse, output) = (operation.values, operation.logSumExp, operation.output)
        let merged = operation.mergedLogSumExp
        guard let states = UInt32(exactly: values.shape[0]), let rows = UInt32(exactly: values.shape[1]),
            values.shape[2] <= Int(Int32.max), let width = UInt32(exactly: values.shape[3])
        else { throw .overflow("elements of values") }
        try values.checkAlignment("values")
        try lse.checkAlignment("logSumExp")
        try output.checkAlignment("output")
        try merged?.checkAlignment("mergedLogSumExp")
        self.init(
            values: UInt64(values.address), values_state: Int64(values.strides[0]),
            values_row: Int64(values.strides[1]), values_head: Int64(values.strides[2]), lse: UInt64(lse.address),
            lse_state: Int64(lse.strides[0]), lse_row: Int64(lse.strides[1]), lse_head: Int64(lse.strides[2]),
            output: UInt64(output.address), output_row: Int64(output.strides[0]),
            output_head: Int64(output.strides[1]), merged: UInt64(merged?.address ?? 0),
            merged_row: Int64(merged?.strides[0] ?? 0), merged_head: Int64(merged?.strides[1] ?? 0),
            states: states, rows: rows, heads: UInt32(values.shape[2]), width: width, lane_bits: UInt32(laneBits),
            by_heads: fi_division(by: max(values.shape[2], 1)), vectorised: isVectorised ? 1 : 0)
    }
}
