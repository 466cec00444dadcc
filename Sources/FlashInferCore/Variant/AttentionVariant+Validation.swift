extension AttentionVariant {
    /// More terms than any attention has, and few enough that no backend runs out of anything.
    package static let maximumTerms = 512

    /// Checks what can be checked without lengths and tensors.
    ///
    /// - Throws: ``FlashInferError/invalidArgument(_:found:expected:)`` that names the variant, the hook and the place in Swift where it
    ///   was written.
    package func validate() throws(FlashInferError) {
        // A problem is made for every step of a model, with the same variant.
        if isKnownSound { return }
        try validate(mask.expression.graph, "mask", mask.place)
        try validate(query, "query", without: [.keyPosition])
        try validate(key, "key", without: [.head, .queryIndex, .queryPosition])
        try validate(logits.expression.graph, "logits", logits.place)
        try validate(scaledLogits, "logits", logits.place)
        if let graph = weights.expression?.graph { try validate(graph, "weights", weights.place) }
        try validateRowHook(output.expression, "output", output.place)
        try validateRowHook(normalizer.expression, "normalizer", normalizer.place)
        if let graph = value.expression?.graph {
            try validate(graph, "value", value.place)
            try validate(graph, "value", value.place, without: [.head, .queryIndex, .queryPosition])
        }
        if case .rule(let rule) = sink {
            try validateRowHook(rule.expression, "sink", rule.place)
            if rule.expression.graph.contains(.score) {
                throw .invalidArgument(
                    describe("sink", rule.place), found: "a use of the score",
                    expected: "positions, heads and parameters")
            }
        }
        if form.isContradictory {
            throw .invalidArgument(
                describe("mask", mask.place), found: "a mask that hides every key from every query",
                expected: "one that shows some")
        }
        if mask.expression.graph.contains(.score) {
            throw .invalidArgument(
                describe("mask", mask.place), found: "a use of the score", expected: "positions, heads and parameters")
        }
        if weights.expression != nil, sink != .none || normalizer != .plain {
            let other = sink != .none ? "sink" : "normalizer"
            throw .invalidArgument(
                describe("weights", weights.place), found: "a \(other)",
                expected: "no \(other), as only the softmax has a sum")
        }
        if case .logit(let logit) = sink, logit.isNaN || logit == .infinity {
            throw .invalidArgument("variant '\(name)': sink", found: "\(logit)", expected: "a number below infinity")
        }
        try validateNames()
        isKnownSound = true
    }

    /// A hook that is asked of a whole row.
    private func validateRowHook(
        _ expression: Expr<Float>?, _ hook: String, _ place: SourcePlace
    ) throws(FlashInferError) {
        guard let graph = expression?.graph else { return }
        try validate(graph, hook, place)
        try validate(graph, hook, place, without: [.keyPosition])
    }

    /// A factor of queries or keys.
    private func validate(
        _ scaling: Scaling, _ hook: String, without fields: [SiteField]
    ) throws(FlashInferError) {
        guard let graph = scaling.expression?.graph else { return }
        try validate(graph, hook, scaling.place)
        try validate(graph, hook, scaling.place, without: fields)
        if graph.contains(.score) {
            throw .invalidArgument(
                describe(hook, scaling.place), found: "a use of the score", expected: "positions, heads and parameters")
        }
    }

    /// A hook that is asked of a query's row, or of a key's, and knows nothing of the others'.
    private func validate(
        _ graph: ExprGraph, _ hook: String, _ place: SourcePlace, without fields: [SiteField]
    ) throws(FlashInferError) {
        for field in fields where graph.contains(field) {
            throw .invalidArgument(
                describe(hook, place), found: "a use of \(field.name)",
                expected: "an expression without \(fields.map(\.name).joined(separator: ", "))")
        }
        if graph.parameters.contains(where: { $0 == .maskBytes || $0 == .maskBits }) {
            throw .invalidArgument(
                describe(hook, place), found: "a use of the run's mask", expected: "positions, heads and parameters")
        }
    }

    private func describe(_ hook: String, _ place: SourcePlace) -> String {
        "variant '\(name)': \(hook)" + (place.isOfLibrary ? "" : " (\(place))")
    }

    private func validate(_ graph: ExprGraph, _ hook: String, _ place: SourcePlace) throws(FlashInferError) {
        guard graph.nodes.count <= Self.maximumTerms else {
            throw .invalidArgument(
                describe(hook, place), found: "an expression of \(graph.nodes.count) terms",
                expected: "\(Self.maximumTerms) terms at most")
        }
        for node in graph.nodes where node.operation == .constant && node.type == .float && node.float.isNaN {
            throw .invalidArgument(
                describe(hook, place), found: "a constant that is NaN", expected: "numbers; −infinity hides a key")
        }
    }

    /// One tensor for each name, and the built-in names for the built-in parameters.
    private func validateNames() throws(FlashInferError) {
        var known: [String: ParameterDeclaration] = [:]
        let graphs = [
            mask.expression.graph, scaledLogits, weights.expression?.graph, output.expression?.graph, form.values,
            form.sink, form.normalizer,
        ].compactMap { $0 }
        for parameter in graphs.flatMap(\.parameters) {
            let title = "variant '\(name)': parameter '\(parameter.name)'"
            if let other = known[parameter.name], other != parameter {
                throw .invalidArgument(
                    title, found: "\(other.dtype) \(other.extent) and \(parameter.dtype) \(parameter.extent)",
                    expected: "declared once")
            }
            known[parameter.name] = parameter
            if ["mask", "sinks", "alibiSlopes"].contains(parameter.name), !parameter.isBuiltIn {
                throw .invalidArgument(
                    title, found: "\(parameter.dtype) \(parameter.extent)",
                    expected: "another name; this one is built in")
            }
            switch parameter.extent {
            case .table(let count), .perHeadTable(let count):
                guard count >= 1, count <= Int(Int32.max) else {
                    throw .invalidArgument(title, found: "\(count) elements", expected: "in 1 ... \(Int32.max)")
                }
            default: break
            }
        }
    }
}

extension AttentionProblem {
    /// Checks the elements given with the problem against the variant's parameters.
    func validateParameters() throws(FlashInferError) {
        let declared = variant.form.parameters
        if geometry.blocks.keyPositions == .columns,
            let parameter = declared.first(where: { $0.extent == .perPosition })
        {
            throw .invalidArgument(
                "variant '\(variant.name)': parameter '\(parameter.name)'", found: "one element for each position",
                expected: "another extent, as the keys of a block-sparse matrix are its columns")
        }
        for (name, value) in parameters {
            guard let parameter = declared.first(where: { $0.name == name }) else {
                throw .unknownParameter(name, of: variant)
            }
            let title = "variant '\(variant.name)': parameter '\(name)'"
            guard parameter.dtype == value.dtype else {
                throw .invalidArgument(title, found: "\(value.dtype)", expected: "\(parameter.dtype)")
            }
            var positions = 0
            if parameter.extent == .perPosition, geometry.requestCount > 0 {
                positions = value.count / geometry.requestCount
                let longest = (0..<geometry.requestCount).reduce(1) { max($0, geometry.sequenceLength($1)) }
                guard positions >= longest else {
                    throw .invalidArgument(
                        title, found: "\(value.count) elements",
                        expected: "\(geometry.requestCount) × \(longest), one for each request and position, or more")
                }
            }
            let expected = parameter.extent.shape(geometry, shape, positions: positions)
            let count = expected.map { shape in (0..<shape.rank).reduce(1) { $0 * shape[$1] } } ?? 0
            guard value.count == count else {
                throw .lengthMismatch(title, found: value.count, expected: count)
            }
        }
    }
}

extension FlashInferError {
    /// A name that a variant does not have, with those that it has.
    static func unknownParameter(_ name: String, of variant: AttentionVariant) -> FlashInferError {
        let names = variant.form.parameters.map { "'\($0.name)'" }
        return .invalidArgument(
            "variant '\(variant.name)': parameter '\(name)'", found: "not one of its parameters",
            expected: names.isEmpty ? "left out, as it has none" : "one of \(names.joined(separator: ", "))")
    }
}
