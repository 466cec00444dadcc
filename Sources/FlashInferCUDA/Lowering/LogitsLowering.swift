package import CUDAKernels
package import FlashInferCore

extension [Float] {
    /// The temperature where one holds for all rows; `nil` where each row has its own.
    package var sharedTemperature: Float? { count > 1 ? nil : first ?? 1 }
}

/// The kernels of softmax.
package enum SoftmaxKernel {
    private static let table = SpecTable(count: 9 * RowTeam.holding.count)

    private static func spec(input: DType, output: DType, _ team: RowTeam) -> KernelSpec {
        let types = input.kernelNumber * 3 + output.kernelNumber
        return table.spec(types * RowTeam.holding.count + team.number) {
            team.spec(
                "softmax", "softmax",
                [.init("FI_INPUT", input.kernelNumber), .init("FI_OUTPUT", output.kernelNumber)],
                blocksPerProcessor: team == .eight ? 3 : 2,
                label: "softmax " + (input == output ? input.label : "\(input.label)-\(output.label)"))
        }
    }

    /// The specialisations that ship: those of one type, and of probabilities in float32.
    package static func shipped() -> [KernelSpec] {
        RowTeam.holding.flatMap { team in
            DType.computeTypes.map { spec(input: $0, output: $0, team) }
                + DType.computeTypes.dropFirst().map { spec(input: $0, output: .float32, team) }
        }
    }

    /// The launch of an operation.
    ///
    /// - Parameter temperatures: the address of the rows' temperatures, where they have one each.
    package static func lower(
        _ operation: SoftmaxOperation, temperatures: UInt = 0, team: RowTeam = .alone
    ) throws(FlashInferError) -> KernelLaunch<fi_softmax_params>? {
        let (input, output) = (operation.input, operation.output)
        let rows = try input.kernelRowCount("input")
        if rows == 0 { return nil }
        return KernelLaunch(
            spec(input: input.dtype, output: output.dtype, team), blocks: try team.blockCount(rows: rows, "input"),
            fi_softmax_params(
                input: try fi_row_tensor(input, "input"), output: try fi_row_tensor(output, "output"),
                status: UInt64(operation.status.address), temperatures: UInt64(temperatures),
                width: Int64(input.width), inner_rows: input.innerRows,
                temperature: operation.temperatures.sharedTemperature ?? 1))
    }
}

/// The kernel of argmax, for every type of input.
package enum ArgmaxKernel {
    private static let table = SpecTable(count: 2)

    private static func spec(_ team: RowTeam) -> KernelSpec {
        // More threads a processor have no registers for the loads of three types.
        table.spec(team.number) { team.spec("argmax", "argmax", [], blocksPerProcessor: 3, label: "argmax") }
    }

    /// The specialisations that ship: all.
    package static func shipped() -> [KernelSpec] { [RowTeam.alone, .passing].map(spec) }

    /// The launch of an operation.
    package static func lower(
        _ operation: ArgmaxOperation, team: RowTeam = .alone
    ) throws(FlashInferError) -> KernelLaunch<fi_argmax_params>? {
        let input = operation.input
        let rows = try input.kernelRowCount("input")
        if rows == 0 { return nil }
        try operation.output.checkAlignment("output")
        return KernelLaunch(
            spec(team), blocks: try team.blockCount(rows: rows, "input"),
            fi_argmax_params(
                input: try fi_row_tensor(input, "input"), output: UInt64(operation.output.address),
                status: UInt64(operation.status.address), width: Int64(input.width), inner_rows: input.innerRows,
                input_type: Int32(input.dtype.kernelNumber)))
    }
}

/// The kernels of log-probabilities.
package enum LogProbabilityKernel {
    private static let table = SpecTable(count: 6)

    private static func spec(_ type: DType, _ team: RowTeam) -> KernelSpec {
        table.spec(type.kernelNumber * 2 + team.number) {
            team.spec(
                "log_probability", "log_probability", [.init("FI_LOGITS", type.kernelNumber)], blocksPerProcessor: 3,
                label: "log-probability \(type.label)")
        }
    }

    /// The specialisations that ship: all.
    package static func shipped() -> [KernelSpec] {
        [RowTeam.alone, .passing].flatMap { team in DType.computeTypes.map { spec($0, team) } }
    }

    /// The launch of an operation.
    ///
    /// - Parameter temperatures: the address of the rows' temperatures, where they have one each.
    package static func lower(
        _ operation: LogProbabilityOperation, temperatures: UInt = 0, team: RowTeam = .alone
    ) throws(FlashInferError) -> KernelLaunch<fi_log_probability_params>? {
        let logits = operation.logits
        let rows = try logits.kernelRowCount("logits")
        if rows == 0 { return nil }
        try operation.ids.checkAlignment("ids")
        try operation.output.checkAlignment("output")
        return KernelLaunch(
            spec(logits.dtype, team), blocks: try team.blockCount(rows: rows, "logits"),
            fi_log_probability_params(
                logits: try fi_row_tensor(logits, "logits"), ids: UInt64(operation.ids.address),
                output: UInt64(operation.output.address), status: UInt64(operation.status.address),
                temperatures: UInt64(temperatures), width: Int64(logits.width), inner_rows: logits.innerRows,
                temperature: operation.temperatures.sharedTemperature ?? 1))
    }
}
