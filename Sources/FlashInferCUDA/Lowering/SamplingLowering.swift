package import CUDAKernels
package import FlashInferCore

/// The specialisations of a kernel that filters rows, all of which ship: logits of three types or probabilities, alone or in a team.
private struct FilteringSpecs {
    let name: String
    private let table = SpecTable(count: 4 * RowTeam.filtering.count)

    func spec(_ type: DType, _ form: DistributionForm, _ team: RowTeam) -> KernelSpec {
        let input = form == .probabilities ? 3 : type.kernelNumber
        return table.spec(input * RowTeam.filtering.count + team.number) {
            team.spec(
                name, name,
                [.init("FI_INPUT", type.kernelNumber), .init("FI_FORM", form == .logits ? 0 : 1)],
                clusterThreads: RowTeam.filteringThreads, aloneThreads: RowTeam.aloneThreads,
                listingByteCount: Int(FI_LIST_BYTES), label: "\(name) \(form == .logits ? type.label : "probabilities")"
            )
        }
    }

    func shipped() -> [KernelSpec] {
        RowTeam.filtering.flatMap { team in
            DType.computeTypes.map { spec($0, .logits, team) } + [spec(.float32, .probabilities, team)]
        }
    }
}

/// Parameters of rows begin with 64-bit numbers.
private func checkAligned(_ address: UInt, _ name: String) throws(FlashInferError) {
    guard address % 8 == 0 else {
        throw .invalidArgument(name, found: "at address \(address)", expected: "at a multiple of 8 bytes")
    }
}

/// The kernels of sampling.
package enum SampleKernel {
    private static let specs = FilteringSpecs(name: "sample")

    /// The specialisations that ship.
    package static func shipped() -> [KernelSpec] { specs.shipped() }

    /// The launch of an operation.
    ///
    /// - Parameter rows: the address of the rows' parameters: `fi_sampling_row(_:)` of each.
    package static func lower(
        _ operation: SampleOperation, rows: UInt, team: RowTeam = .alone
    ) throws(FlashInferError) -> KernelLaunch<fi_sample_params>? {
        let input = operation.input
        let count = try input.kernelRowCount("input")
        if count == 0 { return nil }
        try operation.tokens.checkAlignment("tokens")
        try checkAligned(rows, "packedRows")
        return KernelLaunch(
            specs.spec(input.dtype, operation.form, team), blocks: try team.blockCount(rows: count, "input"),
            fi_sample_params(
                input: try fi_row_tensor(input, "input"), rows: UInt64(rows),
                tokens: UInt64(operation.tokens.address), status: UInt64(operation.status.address),
                width: UInt32(input.width), low_bits: RowTeam.lowBits(width: input.width),
                joint: operation.order == .joint ? 1 : 0))
    }
}

/// The kernels of filters.
package enum FilterKernel {
    private static let specs = FilteringSpecs(name: "filter")

    /// The specialisations that ship.
    package static func shipped() -> [KernelSpec] { specs.shipped() }

    /// The launch of an operation.
    ///
    /// - Parameter rows: the address of the rows' parameters: `fi_sampling_row(_:)` of each, one for every row of the input.
    package static func lower(
        _ operation: FilterOperation, rows: UInt, team: RowTeam = .alone
    ) throws(FlashInferError) -> KernelLaunch<fi_filter_params>? {
        let input = operation.input
        let count = try input.kernelRowCount("input")
        if count == 0 { return nil }
        try checkAligned(rows, "packedRows")
        return KernelLaunch(
            specs.spec(input.dtype, operation.form, team), blocks: try team.blockCount(rows: count, "input"),
            fi_filter_params(
                input: try fi_row_tensor(input, "input"), output: try fi_row_tensor(operation.output, "output"),
                rows: UInt64(rows), status: UInt64(operation.status.address), width: UInt32(input.width),
                low_bits: RowTeam.lowBits(width: input.width), joint: operation.order == .joint ? 1 : 0))
    }
}

/// The kernels of the greatest entries.
package enum TopKKernel {
    private static let table = SpecTable(count: 6 * RowTeam.holding.count)

    private static func spec(_ type: DType, _ team: RowTeam, logarithms: Bool) -> KernelSpec {
        table.spec((type.kernelNumber * 2 + (logarithms ? 1 : 0)) * RowTeam.holding.count + team.number) {
            team.spec(
                "top_k", "top_k",
                [.init("FI_INPUT", type.kernelNumber)] + (logarithms ? [.init("FI_LOGARITHMS", true)] : []),
                clusterThreads: RowTeam.filteringThreads, aloneThreads: RowTeam.aloneThreads,
                label: "top-k \(type.label)" + (logarithms ? " log" : ""))
        }
    }

    /// The specialisations that ship: all.
    package static func shipped() -> [KernelSpec] {
        RowTeam.holding.flatMap { team in
            [false, true].flatMap { logarithms in
                DType.computeTypes.map { spec($0, team, logarithms: logarithms) }
            }
        }
    }

    /// The launch of an operation.
    package static func lower(
        _ operation: TopKOperation, team: RowTeam = .alone
    ) throws(FlashInferError) -> KernelLaunch<fi_top_k_params>? {
        let input = operation.input
        let count = try input.kernelRowCount("input")
        if count == 0 { return nil }
        return KernelLaunch(
            spec(input.dtype, team, logarithms: operation.temperature != nil),
            blocks: try team.blockCount(rows: count, "input"),
            fi_top_k_params(
                input: try fi_row_tensor(input, "input"), values: try fi_row_tensor(operation.values, "values"),
                places: try fi_row_tensor(operation.places, "places"),
                status: UInt64(operation.status?.address ?? 0), temperatures: 0,
                temperature: operation.temperature ?? 1, width: UInt32(input.width), k: UInt32(operation.count),
                low_bits: RowTeam.lowBits(width: input.width), sorted: operation.isSorted ? 1 : 0))
    }
}

/// The kernel that adjusts logits, for every type.
package enum AdjustLogitsKernel {
    private static let spec = KernelSpec(
        file: "portable/adjust_logits.cuh", entry: "adjust_logits", threads: 256, blocksPerProcessor: 4,
        label: "adjust logits")
    /// Columns of a block, as in the kernel.
    private static let part = 4096

    /// The specialisations that ship: the one.
    package static func shipped() -> [KernelSpec] { [spec] }

    /// The launch of an operation.
    ///
    /// - Parameter rows: the address of the rows' parameters: `fi_logit_adjustment(_:)` of each.
    package static func lower(
        _ operation: AdjustLogitsOperation, rows: UInt
    ) throws(FlashInferError) -> KernelLaunch<fi_adjust_logits_params>? {
        let logits = operation.logits
        let count = try logits.kernelRowCount("logits")
        if count == 0 { return nil }
        try operation.history?.checkAlignment("history")
        try operation.biasTokens?.checkAlignment("biasTokens")
        try operation.biases?.checkAlignment("biases")
        try operation.mask?.checkAlignment("mask")
        let parts = (logits.width + part - 1) / part
        let (blocks, overflow) = Int(count).multipliedReportingOverflow(by: parts)
        guard !overflow, blocks <= Int(Int32.max) else { throw .overflow("elements of logits") }
        return KernelLaunch(
            spec, blocks: blocks,
            fi_adjust_logits_params(
                logits: try fi_row_tensor(logits, "logits"), rows: UInt64(rows),
                tokens: UInt64(operation.history?.address ?? 0),
                bias_tokens: UInt64(operation.biasTokens?.address ?? 0),
                bias_values: UInt64(operation.biases?.address ?? 0), mask: UInt64(operation.mask?.address ?? 0),
                mask_stride: Int64(operation.mask?.strides[0] ?? 0), width: UInt32(logits.width),
                parts: UInt32(parts), type: Int32(logits.dtype.kernelNumber)))
    }
}

/// The kernel of speculative sampling.
package enum VerifyDraftsKernel {
    private static let table = SpecTable(count: RowTeam.holding.count)

    private static func spec(_ team: RowTeam) -> KernelSpec {
        table.spec(team.number) {
            team.spec(
                "verify_drafts", "verify_drafts", [], clusterThreads: 256, aloneThreads: RowTeam.aloneThreads,
                label: "verify drafts")
        }
    }

    /// The specialisations that ship: all.
    package static func shipped() -> [KernelSpec] { RowTeam.holding.map(spec) }

    /// The launch of an operation.
    ///
    /// - Parameter draws: the address of the requests' numbers: `fi_draw` of each.
    package static func lower(
        _ operation: VerifyDraftsOperation, draws: UInt, team: RowTeam = .alone
    ) throws(FlashInferError) -> KernelLaunch<fi_verify_drafts_params>? {
        let target = operation.target
        let requests = target.shape[0]
        if requests == 0 { return nil }
        guard let count = UInt32(exactly: requests) else { throw .overflow("requests of target") }
        func tensor(_ view: TensorView, _ name: StaticString) throws(FlashInferError) -> fi_row_tensor {
            try view.checkAlignment(name)
            return fi_row_tensor(
                address: UInt64(view.address), outer: Int64(view.strides[0]), inner: Int64(view.strides[1]))
        }
        try operation.tokens.checkAlignment("tokens")
        try operation.output.checkAlignment("output")
        try operation.emitted.checkAlignment("emitted")
        try operation.outputNodes?.checkAlignment("outputNodes")
        try operation.accepted?.checkAlignment("accepted")
        var parameters = fi_verify_drafts_params()
        parameters.target = try tensor(target, "target")
        if let draft = operation.draft, draft.elementCount > 0 { parameters.draft = try tensor(draft, "draft") }
        try checkAligned(draws, "packedDraws")
        parameters.draws = UInt64(draws)
        parameters.tokens = UInt64(operation.tokens.address)
        if case .links(let firstChild, let nextSibling) = operation.tree {
            try firstChild.checkAlignment("firstChild")
            try nextSibling.checkAlignment("nextSibling")
            parameters.first_child = UInt64(firstChild.address)
            parameters.next_sibling = UInt64(nextSibling.address)
        }
        parameters.output = UInt64(operation.output.address)
        parameters.output_nodes = UInt64(operation.outputNodes?.address ?? 0)
        parameters.accepted = UInt64(operation.accepted?.address ?? 0)
        parameters.emitted = UInt64(operation.emitted.address)
        parameters.status = UInt64(operation.status.address)
        parameters.nodes = UInt32(target.shape[1])
        parameters.width = UInt32(target.width)
        parameters.low_bits = RowTeam.lowBits(width: target.width)
        return KernelLaunch(
            spec(team), blocks: try team.blockCount(rows: count, "target"), parameters)
    }
}

extension fi_sampling_row {
    /// A row's parameters as the kernel reads them.
    package init(_ row: SampleOperation.Row) {
        self.init(
            temperature: row.temperature, top_k: UInt32(clamping: row.topK), top_p: row.topP, min_p: row.minP,
            seed: row.seed, step: row.step)
    }

    /// The same of a row that is filtered only.
    package init(_ row: FilterOperation.Row) {
        self.init(
            temperature: row.temperature, top_k: UInt32(clamping: row.topK), top_p: row.topP, min_p: row.minP, seed: 0,
            step: 0)
    }
}

extension fi_logit_adjustment {
    /// A row's parameters as the kernel reads them.
    package init(_ row: AdjustLogitsOperation.Row) {
        // An empty range may lie anywhere.
        func bounds(_ range: Range<Int>) -> (UInt32, UInt32) {
            range.isEmpty ? (0, 0) : (UInt32(range.lowerBound), UInt32(range.upperBound))
        }
        let (prompt, output, bias) = (bounds(row.prompt), bounds(row.output), bounds(row.bias))
        self.init(
            repetition: row.repetition, presence: row.presence, frequency: row.frequency, prompt_begin: prompt.0,
            prompt_end: prompt.1, output_begin: output.0, output_end: output.1, bias_begin: bias.0, bias_end: bias.1)
    }
}
