import FlashInferCPU
import FlashInferCore
import TestSupport

extension CPUOps {
    /// Draws once for each of `rows`; `input` has one row of logits or probabilities, shared by all, or one for each.
    func draw(
        _ input: TensorView, as form: DistributionForm = .logits, _ rows: [SampleOperation.Row],
        order: SampleOperation.FilterOrder = .topKFirst
    ) throws -> (tokens: [Int], status: [Int]) {
        let (tokens, status) = (try OpsTensor(.int32, [rows.count]), try OpsTensor(.uint8, [rows.count]))
        var view = input
        if input.shape[0] == 1 {
            view = try TensorView(
                input.region, byteOffset: input.byteOffset, dtype: input.dtype, shape: [rows.count, input.shape[1]],
                strides: [0, 1])
        }
        let operation = SampleOperation(
            view, as: form, tokens: tokens.view, status: status.view, rows: rows, order: order)
        try operation.validate()
        execute(operation)
        return (tokens.values.map { Int($0) }, status.values.map { Int($0) })
    }
}
