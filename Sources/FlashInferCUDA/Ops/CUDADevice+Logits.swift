internal import CUDAKernels
internal import FlashInferCore

extension CUDADevice {
    /// Softmax of rows.
    func execute(_ operation: SoftmaxOperation) throws(FlashInferError) {
        try withTemperatures(operation.temperatures, "softmax") { (address) throws(FlashInferError) in
            try enqueue(
                SoftmaxKernel.lower(operation, temperatures: address, team: team(width: operation.input.width)))
        }
    }

    /// The greatest entry of rows.
    func execute(_ operation: ArgmaxOperation) throws(FlashInferError) {
        let input = operation.input
        try enqueue(ArgmaxKernel.lower(operation, team: passingTeam(width: input.width, rows: input.rowCount)))
    }

    /// The log-probability of one token of each row; NaN for an id that is not in the row.
    func execute(_ operation: LogProbabilityOperation) throws(FlashInferError) {
        try withTemperatures(operation.temperatures, "log-probabilities") { (address) throws(FlashInferError) in
            try enqueue(
                LogProbabilityKernel.lower(
                    operation, temperatures: address,
                    team: passingTeam(width: operation.logits.width, rows: operation.logits.rowCount)))
        }
    }

    /// Calls `body` with the address of the rows' temperatures, or 0 where they share one.
    private func withTemperatures(
        _ temperatures: [Float], _ what: String, _ body: (UInt) throws(FlashInferError) -> Void
    ) throws(FlashInferError) {
        if temperatures.sharedTemperature != nil { return try body(0) }
        try refuseHostArrays("\(what) with a temperature for each row", instead: "one temperature for all rows")
        try operations.withStaged(byteCount: 4 * temperatures.count) { bytes in
            temperatures.withUnsafeBytes { bytes.copyMemory(from: $0) }
        } _: { (address) throws(FlashInferError) in
            try body(address)
        }
    }
}
