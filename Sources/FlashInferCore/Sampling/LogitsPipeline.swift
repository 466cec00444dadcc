/// What a logits pipeline's values are at one place of it: a type with no values, which the compiler checks orders by.
public protocol PipelineForm: Sendable {}

/// Logits, tempered or not.
public protocol LogitsForm: PipelineForm {}

/// The model's logits.
public enum RawLogits: LogitsForm {}
/// Logits divided by a temperature, which happens once.
public enum TemperedLogits: LogitsForm {}
/// Probabilities.
public enum Probabilities: PipelineForm {}
/// Tokens, one for each row.
public enum Tokens: PipelineForm {}

/// The steps from logits, or probabilities, to tokens, in an order that the compiler has checked.
///
/// ```swift
/// let sampler = LogitsPipeline.fromLogits.temperature().topK().softmax().topP().minP().sample()
/// sampler.kernelCount  // 1
/// // LogitsPipeline.fromLogits.softmax().temperature()   does not compile
/// // LogitsPipeline.fromLogits.topP()                    does not compile: top-p needs probabilities
/// ```
///
/// A pipeline says what happens, not how much: temperature, k, p and seed are each row's own, given with the tensors; those of steps
/// that are not in the pipeline are not read. ``PipelineSteps`` is the form for orders that are read from data.
public struct LogitsPipeline<Input: PipelineForm, Output: PipelineForm>: Sendable, Equatable {
    /// The steps, in order.
    public let steps: [PipelineStep]

    fileprivate init(_ steps: [PipelineStep]) { self.steps = steps }

    fileprivate func adding<Next>(_ step: PipelineStep, as next: Next.Type) -> LogitsPipeline<Input, Next> {
        LogitsPipeline<Input, Next>(steps + [step])
    }
}

extension LogitsPipeline where Input == RawLogits, Output == RawLogits {
    /// A pipeline that begins with a model's logits.
    public static var fromLogits: Self { Self([]) }
    /// Divides by each row's temperature.
    public func temperature() -> LogitsPipeline<Input, TemperedLogits> { adding(.temperature, as: TemperedLogits.self) }
}

extension LogitsPipeline where Input == Probabilities, Output == Probabilities {
    /// A pipeline that begins with probabilities.
    public static var fromProbabilities: Self { Self([]) }
}

extension LogitsPipeline where Output: LogitsForm {
    /// Keeps each row's k greatest; others become −∞.
    public func topK() -> Self { adding(.topK, as: Output.self) }
    /// Probabilities of the logits.
    public func softmax() -> LogitsPipeline<Input, Probabilities> { adding(.softmax, as: Probabilities.self) }
    /// A token for each row.
    public func sample() -> LogitsPipeline<Input, Tokens> { adding(.sample, as: Tokens.self) }
}

extension LogitsPipeline where Output == Probabilities {
    /// Keeps each row's k greatest, of which the rest is a share again.
    public func topK() -> Self { adding(.topK, as: Probabilities.self) }
    /// Keeps the likeliest that make up p of what is left.
    public func topP() -> Self { adding(.topP, as: Probabilities.self) }
    /// Keeps those that are at least a share of the likeliest.
    public func minP() -> Self { adding(.minP, as: Probabilities.self) }
    /// A token for each row.
    public func sample() -> LogitsPipeline<Input, Tokens> { adding(.sample, as: Tokens.self) }
}

extension LogitsPipeline {
    /// What its input's numbers are.
    private var form: DistributionForm { Input.self == Probabilities.self ? .probabilities : .logits }
    /// How many kernels it becomes.
    public var kernelCount: Int { PipelinePlan(steps, from: form).kernelCount }
}

extension LogitsPipeline where Output == Tokens {
    /// The operations that draw a token for each row.
    ///
    /// - Parameters:
    ///   - input: `[rows, vocabulary]`: logits, or float32 probabilities.
    ///   - tokens: `[rows]`, int32.
    ///   - status: `[rows]`, uint8.
    ///   - scratch: `[rows, vocabulary]`, float32, where there is more than one kernel; see ``kernelCount``.
    ///   - rows: one for each row.
    /// - Throws: ``FlashInferError`` where scratch is needed and there is none. Operations are checked where they are executed.
    public func operations(
        _ input: TensorView, tokens: TensorView, status: TensorView, scratch: TensorView? = nil,
        rows: [SampleOperation.Row]
    ) throws(FlashInferError) -> [Operation] {
        try PipelinePlan(steps, from: form).operations(
            input, output: scratch, tokens: tokens, status: status, rows: rows)
    }
}

extension LogitsPipeline where Output == Probabilities {
    /// The operations that write each row's probabilities.
    ///
    /// - Parameters:
    ///   - input: `[rows, vocabulary]`: logits, or float32 probabilities.
    ///   - output: `[rows, vocabulary]`, float32.
    ///   - status: `[rows]`, uint8.
    ///   - rows: one for each row, whose seeds and steps are not read.
    /// - Throws: ``FlashInferError``. Operations are checked where they are executed.
    public func operations(
        _ input: TensorView, output: TensorView, status: TensorView, rows: [SampleOperation.Row]
    ) throws(FlashInferError) -> [Operation] {
        try PipelinePlan(steps, from: form).operations(
            input, output: output, tokens: nil, status: status, rows: rows)
    }
}
