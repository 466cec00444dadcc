public import FlashInferCore

/// What is stored with a scale for each group.
public enum GroupedSource: Sendable {
    /// The input as it is.
    case conversion
    /// A gated activation.
    case activation(GatedActivationOperation.Activation)
    /// A root-mean-square norm, of a sum or not.
    case rmsNorm(hasResidual: Bool)
    /// Layer norm, of a sum or not.
    case layerNorm(hasResidual: Bool)

    /// All of them.
    public static let all: [GroupedSource] = [
        .conversion, .activation(.silu), .activation(.geluErf), .activation(.geluTanh), .rmsNorm(hasResidual: false),
        .rmsNorm(hasResidual: true), .layerNorm(hasResidual: false), .layerNorm(hasResidual: true),
    ]
}

extension OpsRunner {
    /// An operation that stores 8 bits with a scale for each group, against its own float32 output and the definition; scales lie by
    /// rows or by columns.
    public func groupProblem(
        _ input: DType, _ type: DType, size: Int, _ shape: [Int], _ layout: OpsLayout, byColumns: Bool,
        _ source: GroupedSource, _ random: inout OpsRandom
    ) throws -> String? {
        begin()
        let (width, count) = (shape[shape.count - 1], shape.reduce(1, *))
        let (rows, groups) = (count / width, width / size)
        let x = try tensor(
            input, shape, padding: layout.padding, lead: layout.lead, values: random.normals(count, scale: 2))
        let found = try tensor(type, shape, padding: layout.padding)
        // By columns with a stride of more than the rows.
        let scales = try tensor(.float32, byColumns ? [groups, rows] : [rows, groups], padding: byColumns ? 3 : 0)
        let view = byColumns ? scales.view.transposed(0, 1) : scales.view
        let way = OutputQuantization.perGroup(size: size, scales: view)
        var (unquantized, exact, reference) = (x.host.values, x.host.values, x.host.values)
        if case .conversion = source {
            try run(.quantize(QuantizeOperation(input: x.view, output: found.view, quantization: way)))
        } else {
            let wide = try tensor(.float32, shape)
            let twice = try operation(source, x, shape, layout, &random)
            (exact, reference) = twice.oracle
            try run(twice.make(0, wide.view, nil))
            try run(twice.make(1, found.view, way))
            let residuals = try twice.residuals.map { try $0.fetch() }
            if residuals.first != residuals.last { return "another residual than without 8 bits" }
            if !twice.residuals.allSatisfy(\.host.paddingIsIntact) { return "written beside the residual" }
            unquantized = try wide.fetch()
        }
        try found.fetch()
        var own = try scales.fetch()
        if byColumns { own = (0..<rows * groups).map { own[$0 % groups * rows + $0 / groups] } }
        // A group is a row of its own.
        let problem = QuantizedCheck(type, width: size).firstProblem(
            found.host, scales: own, unquantized: unquantized, exact: exact, reference: reference)
        return problem ?? (found.host.paddingIsIntact && scales.host.paddingIsIntact ? nil : "written beside")
    }

    /// An operation that runs twice, each time with a residual of its own where it has one, and its float32 output in theory.
    private func operation(
        _ source: GroupedSource, _ x: PlacedTensor, _ shape: [Int], _ layout: OpsLayout, _ random: inout OpsRandom
    ) throws -> (
        make: (Int, TensorView, OutputQuantization?) -> Operation, residuals: [PlacedTensor],
        oracle: (exact: [Double], reference: [Double])
    ) {
        let (width, count, values) = (shape[shape.count - 1], x.host.count, x.host.values)
        let (second, dtype) = (random.normals(count), x.host.view.dtype)
        func residuals(_ hasResidual: Bool) throws -> [PlacedTensor] {
            try (0..<(hasResidual ? 2 : 0)).map { _ in
                try tensor(dtype, shape, padding: layout.padding, values: second)
            }
        }
        switch source {
        case .conversion: preconditionFailure("has no float32 output")
        case .activation(let activation):
            let up = try tensor(dtype, shape, padding: layout.padding, values: second)
            let oracle = OpsOracle.gatedActivation(values, up.host.values, activation, output: .float32)
            return (
                { _, output, quantization in
                    .gatedActivation(
                        GatedActivationOperation(
                            gate: x.view, up: up.view, output: output, activation: activation,
                            quantization: quantization))
                }, [], (oracle.exact, oracle.reference)
            )
        case .rmsNorm(let hasResidual):
            let weight = try tensor(dtype, [width], lead: layout.lead, values: random.normals(width))
            let residuals = try residuals(hasResidual)
            let oracle = OpsOracle.rmsNorm(
                values, residual: residuals.first?.host.values, weight: weight.host.values, epsilon: 1e-5, offset: 1,
                output: .float32)
            return (
                { index, output, quantization in
                    .rmsNorm(
                        RMSNormOperation(
                            input: x.view, weight: weight.view,
                            residual: residuals.isEmpty ? nil : residuals[index].view, output: output, epsilon: 1e-5,
                            weightOffset: 1, quantization: quantization))
                }, residuals, (oracle.exact, oracle.reference)
            )
        case .layerNorm(let hasResidual):
            let weight = try tensor(.float32, [width], lead: layout.lead, values: random.normals(width))
            let bias = try tensor(.float32, [width], lead: layout.lead, values: random.normals(width))
            let residuals = try residuals(hasResidual)
            let oracle = OpsOracle.layerNorm(
                values, residual: residuals.first?.host.values, weight: weight.host.values, bias: bias.host.values,
                epsilon: 1e-5, output: .float32)
            return (
                { index, output, quantization in
                    .layerNorm(
                        LayerNormOperation(
                            input: x.view, weight: weight.view, bias: bias.view,
                            residual: residuals.isEmpty ? nil : residuals[index].view, output: output, epsilon: 1e-5,
                            quantization: quantization))
                }, residuals, (oracle.exact, oracle.reference)
            )
        }
    }
}
