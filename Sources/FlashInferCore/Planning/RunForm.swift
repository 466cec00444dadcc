/// What a plan asks of a run's tensors, in one place: every launch of every layer looks here, where nothing is counted and little is
/// copied, and not through the problem.
package struct RunForm: Sendable {
    /// Of the queries, the cache and the output.
    package let queryType, kvType, outputType: DType
    /// `[queries, queryHeads, headDimQK]`, `[queries, queryHeads, headDimVO]` and `[queries, queryHeads]`.
    package let queries, output, logSumExp: Shape
    /// The heads.
    package let heads: AttentionShape
    /// Of the cache's pages, or of a block-sparse matrix.
    package let blockSize, blockLimit: Int
    /// Whether keys are rows of a ragged tensor, not in pages.
    package let blocksAreRows: Bool
    /// What scores are multiplied by: the variant's scale, or 1 / √ headDimQK.
    package let scale: Float
    /// Whether the run has the sinks' logits.
    package let hasSinks: Bool
    /// Whether the run has a mask of its own.
    package let hasMask: Bool
    /// Whether the weights have a log-sum-exp.
    package let hasLogSumExp: Bool
    /// Whether the variant has other parameters.
    package let hasParameters: Bool

    init(_ problem: AttentionProblem) {
        let (shape, blocks, variant) = (problem.shape, problem.geometry.blocks, problem.variant)
        let form = variant.form
        let count = problem.geometry.queryCount
        (queryType, kvType, outputType) = (problem.queryType, problem.kvType, problem.outputType)
        queries = [count, shape.queryHeads, shape.headDimQK]
        output = [count, shape.queryHeads, shape.headDimVO]
        logSumExp = [count, shape.queryHeads]
        heads = shape
        (blockSize, blockLimit, blocksAreRows) = (blocks.blockSize, blocks.blockLimit, blocks.blocksAreRows)
        scale = variant.scale ?? 1 / Float(shape.headDimQK).squareRoot()
        (hasSinks, hasMask, hasLogSumExp) = (variant.hasSinks, form.maskTensor != nil, form.weights == nil)
        hasParameters = !form.parameters.isEmpty
    }
}
