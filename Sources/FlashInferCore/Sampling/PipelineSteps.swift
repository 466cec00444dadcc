/// One step of a logits pipeline.
public enum PipelineStep: String, Sendable, Hashable, CaseIterable {
    /// Logits divided by the row's temperature.
    case temperature
    /// Probabilities of logits.
    case softmax
    /// The k greatest, of logits or probabilities.
    case topK
    /// The likeliest that make up a share.
    case topP
    /// Those that are at least a share of the likeliest.
    case minP
    /// A token for each row.
    case sample
}

/// Steps whose order is data: checked when they are put together, where ``LogitsPipeline`` is checked by the compiler.
///
/// ```swift
/// try PipelineSteps([.softmax, .temperature], from: .logits)
/// // throws: step 1 (temperature) is applied to probabilities, but must be applied to logits
/// ```
public struct PipelineSteps: Sendable, Hashable {
    /// The steps, in order.
    public let steps: [PipelineStep]
    /// What they begin with.
    public let input: DistributionForm
    /// What they end with; `nil` for tokens.
    public let output: DistributionForm?

    /// Checks an order.
    ///
    /// - Throws: ``FlashInferError/invalidArgument(_:found:expected:)`` that names the position and the step.
    public init(_ steps: [PipelineStep], from input: DistributionForm) throws(FlashInferError) {
        var form: DistributionForm? = input
        var isTempered = false
        for (position, step) in steps.enumerated() {
            let name = "step \(position) (\(step.rawValue))"
            guard let current = form else {
                throw .invalidArgument(name, found: "applied to tokens", expected: "before the draw")
            }
            switch (step, current) {
            case (.temperature, .logits):
                guard !isTempered else {
                    throw .invalidArgument(name, found: "a second temperature", expected: "one at most")
                }
                isTempered = true
            case (.softmax, .logits): form = .probabilities
            case (.topK, _), (.topP, .probabilities), (.minP, .probabilities): break
            case (.sample, _): form = nil
            case (.temperature, _), (.softmax, _):
                throw .invalidArgument(name, found: "applied to probabilities", expected: "applied to logits")
            case (.topP, _), (.minP, _):
                throw .invalidArgument(
                    name, found: "applied to logits", expected: "applied to probabilities, after softmax")
            }
        }
        guard form != .logits else {
            throw .invalidArgument(
                "the end of the pipeline", found: "logits", expected: "probabilities or tokens: softmax or sample")
        }
        self.steps = steps
        self.input = input
        output = form
    }

    /// How many kernels they become.
    public var kernelCount: Int { PipelinePlan(steps, from: input).kernelCount }

    /// The operations; see ``LogitsPipeline``.
    ///
    /// - Parameters:
    ///   - output: `[rows, vocabulary]`, float32: the probabilities, or scratch for steps that end with tokens in more than one kernel.
    ///   - tokens: `[rows]`, int32, for steps that end with tokens.
    /// - Throws: ``FlashInferError`` where a tensor is missing. Operations are checked where they are executed.
    public func operations(
        _ input: TensorView, output: TensorView? = nil, tokens: TensorView? = nil, status: TensorView,
        rows: [SampleOperation.Row]
    ) throws(FlashInferError) -> [Operation] {
        try PipelinePlan(steps, from: self.input).operations(
            input, output: output, tokens: tokens, status: status, rows: rows)
    }
}
