package import FlashInferCore

/// A variant with elements for its parameters.
package struct VariantSample: Sendable {
    package var variant: AttentionVariant
    /// The parameters' elements for a batch.
    package var values: @Sendable (BatchGeometry, AttentionShape) -> [String: ParameterValue]

    package init(
        _ variant: AttentionVariant,
        _ values: @escaping @Sendable (BatchGeometry, AttentionShape) -> [String: ParameterValue] = { _, _ in [:] }
    ) {
        (self.variant, self.values) = (variant, values)
    }
}

extension VariantSample {
    /// A variant of random expressions, with random elements of its parameters, from `seed` alone.
    package static func random(_ seed: UInt64) -> VariantSample {
        var random = RandomExpression(seed: seed)
        return VariantSample(random.variant("random \(seed)")) { geometry, shape in
            var random = RandomExpression(seed: seed &+ 1000)
            return random.values(geometry, shape)
        }
    }

    /// Whether something of it is compiled that leaves neighbouring tiles the same keys.
    package var mayBePaired: Bool {
        let form = variant.form
        let hasOwnScores = form.logits != nil || form.weights != nil
        let onlyHides = form.restOfMask != nil && form.softCap == nil && !form.isALiBi
        return (hasOwnScores || onlyHides) && form.restMayReachFirstKey && form.windowLeft == nil
            && form.maskTensor == nil && variant.rope == nil
    }
}

/// The hooks of a problem's variant by plain recursion.
package struct VariantOracle {
    private let mask: ExprOracle
    private let logits: ExprOracle
    private let weights: ExprOracle?
    private let query: ExprOracle?
    private let key: ExprOracle?
    private let value: ExprOracle?
    private let sink: ExprOracle?
    private let normalizer: ExprOracle?
    private let output: ExprOracle?

    init(_ problem: AttentionProblem, _ values: [String: ParameterValue], _ oracle: AttentionOracle) {
        var values = values
        if problem.variant.form.readsSlopes { values["alibiSlopes"] = ParameterValue(oracle.slopes) }
        func bound(_ graph: ExprGraph) -> ExprOracle {
            var result = ExprOracle(graph)
            result.bind(values, problem.geometry, problem.shape)
            let mask = oracle.mask
            // Samples are not run over block-sparse matrices with masks, so positions are keys.
            result.mask = { mask($0.request, $0.queryIndex, $0.keyPosition) }
            return result
        }
        mask = bound(problem.variant.mask.expression.graph)
        logits = bound(problem.variant.logits.expression.graph)
        weights = problem.variant.weights.expression.map { bound($0.graph) }
        query = problem.variant.query.expression.map { bound($0.graph) }
        key = problem.variant.key.expression.map { bound($0.graph) }
        value = problem.variant.value.expression.map { bound($0.graph) }
        if case .rule(let rule) = problem.variant.sink { sink = bound(rule.expression.graph) } else { sink = nil }
        normalizer = problem.variant.normalizer.expression.map { bound($0.graph) }
        output = problem.variant.output.expression.map { bound($0.graph) }
    }

    func shows(_ site: OracleSite, key: Int) -> Bool { mask(site).bool }

    func logit(_ site: OracleSite, _ score: Double) -> Double {
        logits(site, score: score * (query?(site).double ?? 1) * (key?(site).double ?? 1)).double
    }

    /// An element of a value; `nil` where there is no hook.
    func value(_ site: OracleSite, _ element: Double) -> Double? { value?(site, score: element).double }

    /// A row's sink; `nil` where there is no rule.
    func sink(_ site: OracleSite) -> Double? { sink?(site).double }

    /// What a row's logarithm of the sum becomes; `nil` where there is no hook.
    func normalizer(_ site: OracleSite, _ logSum: Double) -> Double? { normalizer?(site, score: logSum).double }

    /// An element of the output; `nil` where there is no hook.
    func output(_ site: OracleSite, _ value: Double) -> Double? { output?(site, score: value).double }

    func weight(_ site: OracleSite, _ logit: Double) -> Double { weights?(site, score: logit).double ?? 0 }
}
