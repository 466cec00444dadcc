internal import CFlashInferCPU
public import FlashInferCore
internal import Synchronization

extension CPUOps {
    /// Samples one token from each row.
    ///
    /// - Complexity: a few passes over each row; no sort.
    public func execute(_ operation: SampleOperation) {
        let (rows, width) = (operation.logits.shape[0], operation.logits.width)
        // Whole cache lines apart, so that threads do not share any.
        let part = (fi_sample_scratch_size(width) + 127) & ~63
        scratch.withLock { scratch in
            let parameters = scratch.rows.reserve(rows)
            for (index, row) in operation.rows.enumerated() {
                parameters[index] = fi_sample_row(
                    uniform: Philox4x32(seed: row.seed, step: row.step).uniform(), temperature: row.temperature,
                    top_p: row.topP, min_p: row.minP, top_k: Int32(clamping: row.topK))
            }
            let memory = UnsafeMutableRawPointer(scratch.sampling.reserve(part * pool.threads))
            let arguments = fi_sample_args(
                x: operation.logits.kernelRows, rows: parameters, out: operation.tokens.elements(as: Int32.self),
                status: operation.status.elements(as: UInt8.self), width: width, joint: operation.order == .joint,
                scratch: memory)
            spread(rows: rows, units: 8 * operation.logits.elementCount) { worker, first, last in
                var own = arguments
                own.scratch = memory + worker * part
                kernels.sample(&own, first, last)
            }
        }
    }
}
