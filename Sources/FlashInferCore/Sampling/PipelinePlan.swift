/// The kernels that steps become, as few as their meaning allows.
///
/// A draw takes temperature, softmax and filters with it, and a filter takes other filters, as long as one
/// ``SampleOperation/FilterOrder`` says what they mean together: top-k, then top-p, is "top-k first"; top-p, then top-k, is "joint", as
/// both keep the greatest; min-p depends on the greatest only, which no filter drops, so it may stand anywhere after top-p. Top-p after
/// min-p, or after top-p, is a share of what that left: there the kernels are cut.
struct PipelinePlan {
    /// What one kernel does.
    enum Kernel: Equatable {
        /// Softmax, at the rows' temperatures or not.
        case softmax(isTempered: Bool)
        /// A filter on probabilities, or on logits.
        case filter(Filters, DistributionForm)
        /// A draw.
        case sample(Filters, DistributionForm, isTempered: Bool)
    }

    /// Filters that one operation applies.
    struct Filters: Equatable {
        var topK = false
        var topP = false
        var minP = false
        var order = SampleOperation.FilterOrder.topKFirst

        var isEmpty: Bool { !topK && !topP && !minP }

        /// Takes a step in; false where what is meant would not be what is done.
        mutating func take(_ step: PipelineStep) -> Bool {
            switch step {
            case .topK:
                // Of what top-k and top-p left, top-k drops nothing more.
                if topP, !topK { order = .joint }
                topK = true
            case .topP:
                if topP || minP { return false }
                topP = true
            default: minP = true
            }
            return true
        }
    }

    private(set) var kernels: [Kernel] = []

    /// How many there are.
    var kernelCount: Int { kernels.count }

    /// Puts steps together whose order has been checked.
    init(_ steps: [PipelineStep], from input: DistributionForm) {
        var form = input
        var (isTempered, isSoftmaxed) = (false, false)
        var filters = Filters()
        for step in steps {
            switch step {
            case .temperature: isTempered = true
            case .softmax: isSoftmaxed = true
            case .sample:
                kernels.append(.sample(filters, form, isTempered: isTempered))
                return
            case .topK, .topP, .minP:
                if filters.take(step) { continue }
                finish(filters, isTempered, isSoftmaxed)
                (form, isTempered, isSoftmaxed) = (.probabilities, false, false)
                filters = Filters()
                _ = filters.take(step)
            }
        }
        finish(filters, isTempered, isSoftmaxed)
    }

    /// Ends with probabilities. A top-k of logits comes after softmax, in one kernel with the other filters: it keeps the same, up to
    /// logits whose probabilities are rounded to one number.
    private mutating func finish(_ filters: Filters, _ isTempered: Bool, _ isSoftmaxed: Bool) {
        if isSoftmaxed { kernels.append(.softmax(isTempered: isTempered)) }
        if !filters.isEmpty || !isSoftmaxed { kernels.append(.filter(filters, .probabilities)) }
    }

    /// The operations.
    func operations(
        _ input: TensorView, output: TensorView?, tokens: TensorView?, status: TensorView,
        rows: [SampleOperation.Row]
    ) throws(FlashInferError) -> [Operation] {
        var source = input
        var operations: [Operation] = []
        func target() throws(FlashInferError) -> TensorView {
            guard let output else {
                throw .invalidArgument(
                    "scratch", found: "none", expected: "float32 \(input.shape), as there are \(kernelCount) kernels")
            }
            return output
        }
        for kernel in kernels {
            switch kernel {
            case .softmax(let isTempered):
                operations.append(
                    .softmax(
                        SoftmaxOperation(
                            input: source, output: try target(), status: status,
                            temperatures: isTempered ? rows.map(\.temperature) : [])))
                source = try target()
            case .filter(let filters, let form):
                operations.append(
                    .filter(
                        FilterOperation(
                            source, as: form, output: try target(), status: status,
                            rows: rows.map { filters.row($0) }, order: filters.order)))
                source = try target()
            case .sample(let filters, let form, let isTempered):
                guard let tokens else {
                    throw .invalidArgument("tokens", found: "none", expected: "int32 [\(input.shape[0])]")
                }
                operations.append(
                    .sample(
                        SampleOperation(
                            source, as: form, tokens: tokens, status: status,
                            rows: rows.map { row in
                                let kept = filters.row(row)
                                return SampleOperation.Row(
                                    temperature: isTempered ? row.temperature : 1, topK: kept.topK, topP: kept.topP,
                                    minP: kept.minP, seed: row.seed, step: row.step)
                            }, order: filters.order)))
            }
        }
        return operations
    }
}

extension PipelinePlan.Filters {
    /// What is read of a row.
    fileprivate func row(_ row: SampleOperation.Row) -> FilterOperation.Row {
        FilterOperation.Row(
            topK: topK ? row.topK : 0, topP: topP ? row.topP : 1, minP: minP ? row.minP : 0)
    }
}
