package import CUDAKernels
package import FlashInferCore

/// Where ranks' parts of states lie in a rank's window, as the kernel has it: for even exchanges and for odd ones, by sender, by block,
/// in units of 16 bytes of which a thread has several.
package struct ExchangeWindow: Sendable, Equatable {
    /// The most ranks.
    package static let mostRanks = Int(FI_EXCHANGE_RANKS)
    /// The most blocks of a launch.
    package static let mostBlocks = Int(FI_EXCHANGE_BLOCKS)
    /// Threads of a block.
    package static let threads = Int(FI_EXCHANGE_THREADS)

    private static let blockByteCount = Int(FI_EXCHANGE_BLOCK_BYTES)
    private static let units = Int(FI_EXCHANGE_UNITS)

    /// The ranks that exchange.
    package let ranks: Int

    /// The window of so many ranks.
    package init(ranks: Int) { self.ranks = ranks }

    /// The size of a window.
    package var byteCount: Int { 2 * ranks * Self.mostBlocks * Self.blockByteCount }

    /// Where a unit of a thread lies: two pairs of a word and the exchange's number.
    package func offset(exchange: Int, sender: Int, block: Int, thread: Int, unit: Int) -> Int {
        ((exchange % 2 * ranks + sender) * Self.mostBlocks + block) * Self.blockByteCount
            + 16 * (unit * Self.threads + thread)
    }
}

/// The kernels that exchange states of attention between ranks, and merge them.
package enum ExchangeStatesKernel {
    private static let table = SpecTable(count: 9)

    private static func spec(input: DType, output: DType) -> KernelSpec {
        table.spec(input.kernelNumber * 3 + output.kernelNumber) {
            KernelSpec(
                file: "portable/exchange_states.cuh", entry: "exchange_states",
                defines: [.init("FI_INPUT", input.kernelNumber), .init("FI_OUTPUT", output.kernelNumber)],
                threads: ExchangeWindow.threads,
                label: "exchange-states " + (input == output ? input.label : "\(input.label)-\(output.label)"))
        }
    }

    /// The specialisations that ship: those of one type, and from float32.
    package static func shipped() -> [KernelSpec] {
        DType.computeTypes.map { spec(input: $0, output: $0) }
            + DType.computeTypes.dropFirst().map { spec(input: .float32, output: $0) }
    }

    /// Whether states of these sizes fit the windows: all ranks must say the same of the same states, so nothing else counts.
    package static func canExchange(_ values: TensorView) -> Bool {
        let (rows, heads, width) = (values.shape[1], values.shape[2], values.shape[3])
        guard let blocks = blocks(rows: rows, heads: heads, width: width, values.dtype) else { return false }
        return blocks.count <= ExchangeWindow.mostBlocks
    }

    private static func blocks(
        rows: Int, heads: Int, width: Int, _ dtype: DType
    ) -> (count: Int, laneBits: Int)? {
        let vector = 16 / dtype.byteCount
        guard width > 0, width % vector == 0, width / vector <= ExchangeWindow.threads,
            case (let count, false) = rows.multipliedReportingOverflow(by: heads)
        else { return nil }
        let laneBits = Int.bitWidth - (width / vector - 1).leadingZeroBitCount
        let perBlock = ExchangeWindow.threads >> laneBits
        return ((count + perBlock - 1) / perBlock, laneBits)
    }

    /// The launch of a merge of which this rank has its own state alone; the exchange's own fields are the caller's to fill in.
    ///
    /// - Throws: ``FlashInferError`` where tensors are misaligned.
    package static func lower(
        _ operation: MergeStatesOperation
    ) throws(FlashInferError) -> KernelLaunch<fi_exchange_params>? {
        let (values, output) = (operation.values, operation.output)
        let (rows, heads, width) = (values.shape[1], values.shape[2], values.shape[3])
        guard canExchange(values), let (count, laneBits) = blocks(rows: rows, heads: heads, width: width, values.dtype),
            values.hasAlignedRows
        else { return nil }
        var parameters = fi_exchange_params()
        parameters.merge = try fi_merge_params(
            operation, laneBits: laneBits,
            isVectorised: output.hasAlignedRows(vector: 16 / values.dtype.byteCount))
        return KernelLaunch(spec(input: values.dtype, output: output.dtype), blocks: count, parameters)
    }
}
