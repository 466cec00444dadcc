public import FlashInferCore

extension Device {
    /// Checks an operation and runs it.
    ///
    /// ```swift
    /// try device.run(.attention(operation))
    /// ```
    /// - Throws: ``FlashInferError`` that names the argument, its value and the limit; then nothing has been run or changed.
    public func run(_ operation: Operation) throws(FlashInferError) {
        try operation.validate()
        try execute(operation)
    }
}
