internal import CFlashInferCPU
public import FlashInferCore
internal import Synchronization

extension CPUOps {
    /// Softmax of rows.
    public func execute(_ operation: SoftmaxOperation) {
        let rows = operation.input.rowCount
        scratch.withLock { scratch in
            var arguments = fi_softmax_args(
                x: operation.input.kernelRows, out: operation.output.kernelRows,
                scale: Self.reciprocals(operation.temperatures, rows: rows, &scratch.scales),
                status: operation.status.elements(as: UInt8.self), inner: operation.input.innerRows,
                width: operation.input.width)
            withUnsafePointer(to: &arguments) { arguments in
                spread(rows: rows, units: 6 * operation.input.elementCount) { _, first, last in
                    kernels.softmax(arguments, first, last)
                }
            }
        }
    }

    /// The greatest entry of rows.
    public func execute(_ operation: ArgmaxOperation) {
        var arguments = fi_argmax_args(
            x: operation.input.kernelRows, out: operation.output.elements(as: Int32.self),
            status: operation.status.elements(as: UInt8.self), inner: operation.input.innerRows,
            width: operation.input.width)
        withUnsafePointer(to: &arguments) { arguments in
            spread(rows: operation.input.rowCount, units: operation.input.elementCount) { _, first, last in
                kernels.argmax(arguments, first, last)
            }
        }
    }

    /// The log-probability of one token of each row.
    public func execute(_ operation: LogProbabilityOperation) {
        let rows = operation.logits.rowCount
        scratch.withLock { scratch in
            var arguments = fi_logprob_args(
                x: operation.logits.kernelRows, ids: operation.ids.elements(as: Int32.self),
                scale: Self.reciprocals(operation.temperatures, rows: rows, &scratch.scales),
                out: operation.output.elements(as: Float.self), status: operation.status.elements(as: UInt8.self),
                inner: operation.logits.innerRows, width: operation.logits.width)
            withUnsafePointer(to: &arguments) { arguments in
                spread(rows: rows, units: 4 * operation.logits.elementCount) { _, first, last in
                    kernels.logprob(arguments, first, last)
                }
            }
        }
    }

    /// One over each row's temperature, or `nil` where all are 1.
    private static func reciprocals(
        _ temperatures: [Float], rows: Int, _ scratch: inout ScratchArray<Float>
    ) -> UnsafePointer<Float>? {
        if temperatures.isEmpty { return nil }
        let scales = scratch.reserve(rows)
        for row in 0..<rows {
            // Bounded, so that 0 times it is 0 for any temperature.
            scales[row] = min(1 / (temperatures.count == 1 ? temperatures[0] : temperatures[row]), 1e30)
        }
        return UnsafePointer(scales)
    }
}
