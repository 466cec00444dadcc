public import FlashInferCore

extension OpsRunner {
    /// Layer norm against the definition; `nil` where nothing is wrong.
    public func layerNormProblem(
        _ types: (input: DType, weight: DType, output: DType), _ shape: [Int], _ layout: OpsLayout,
        hasResidual: Bool, mean: Double = 0, _ random: inout OpsRandom
    ) throws -> String? {
        begin()
        let (width, count) = (shape[shape.count - 1], shape.reduce(1, *))
        let input = try tensor(
            types.input, shape, padding: layout.padding, lead: layout.lead,
            values: random.normals(count, scale: 3).map { $0 + mean })
        let weight = try tensor(types.weight, [width], lead: layout.lead, values: random.normals(width))
        let bias = try tensor(types.weight, [width], lead: layout.lead, values: random.normals(width))
        let residual =
            hasResidual ? try tensor(types.input, shape, padding: layout.padding, values: random.normals(count)) : nil
        let output = try tensor(types.output, shape, padding: layout.padding, lead: layout.lead)
        let (x, old) = (input.host.values, residual?.host.values)
        let oracle = OpsOracle.layerNorm(
            x, residual: old, weight: weight.host.values, bias: bias.host.values, epsilon: 1e-5, output: types.output)
        try run(
            .layerNorm(
                LayerNormOperation(
                    input: input.view, weight: weight.view, bias: bias.view, residual: residual?.view,
                    output: output.view, epsilon: 1e-5)))
        // Roundings of float32 on the way, and those of sums in another order. A mean far from 0 is off by its own rounding and that
        // of its sum, which the scale (one over a deviation of 3) and the weights (below 6) multiply.
        let slack = 4 * 0x1p-24 * abs(mean) / 3 * 6
        let found = zip(try output.fetch(), oracle.exact).map { abs($0 - $1) <= slack ? $1 : $0 }
        if let problem = firstOutlier(
            found, exact: oracle.exact, reference: oracle.reference, width: width, dtype: types.output,
            units: types.output == .float32 ? 8 : 1)
        {
            return problem
        }
        if let residual, let old {
            let sums = zip(x, old).map { rounded(Float($0) + Float($1), to: types.input) }
            if try residual.fetch() != sums { return "the residual is not the sum" }
            if !residual.host.paddingIsIntact { return "written beside the residual" }
        }
        return output.host.paddingIsIntact ? nil : "written beside the output"
    }

    /// A layer norm of 8 bits is its own float32 output, converted.
    public func quantizedLayerNormProblem(
        _ input: DType, _ type: DType, _ way: QuantizationWay, width: Int, _ layout: OpsLayout,
        _ random: inout OpsRandom
    ) throws -> String? {
        begin()
        let x = try tensor(
            input, [3, width], padding: layout.padding, lead: layout.lead, values: random.normals(3 * width, scale: 3))
        let weight = try tensor(.float32, [width], values: random.normals(width))
        let bias = try tensor(.float32, [width], values: random.normals(width))
        let scale = try tensor(.float32, [1], values: [Double(QuantizationWay.given)])
        let scales = try tensor(.float32, [3])
        let (wide, found) = (try tensor(.float32, [3, width]), try tensor(type, [3, width], padding: layout.padding))
        let oracle = OpsOracle.layerNorm(
            x.host.values, residual: nil, weight: weight.host.values, bias: bias.host.values, epsilon: 1e-5,
            output: .float32)
        for (output, quantization) in [
            (wide, nil), (found, way.quantization(scale: scale.view, scales: scales.view)),
        ] {
            try run(
                .layerNorm(
                    LayerNormOperation(
                        input: x.view, weight: weight.view, bias: bias.view, output: output.view, epsilon: 1e-5,
                        quantization: quantization)))
        }
        try found.fetch()
        let own = try scales.fetch()
        let problem = QuantizedCheck(type, width: width).firstProblem(
            found.host, scales: way == .perRow ? own : nil, unquantized: try wide.fetch(), exact: oracle.exact,
            reference: oracle.reference)
        return problem ?? (found.host.paddingIsIntact ? nil : "written beside the output")
    }

    /// Conversion to 8 bits in one of the ways that rows have, against the definition.
    public func quantizeProblem(
        _ input: DType, _ type: DType, _ way: QuantizationWay, _ shape: [Int], _ layout: OpsLayout,
        _ random: inout OpsRandom
    ) throws -> String? {
        begin()
        let (width, count) = (shape[shape.count - 1], shape.reduce(1, *))
        let x = try tensor(
            input, shape, padding: layout.padding, lead: layout.lead, values: random.normals(count, scale: 2))
        let scale = try tensor(.float32, [1], values: [Double(QuantizationWay.given)])
        let scales = try tensor(.float32, [count / max(width, 1)])
        let found = try tensor(type, shape, padding: layout.padding)
        try run(
            .quantize(
                QuantizeOperation(
                    input: x.view, output: found.view,
                    quantization: way.quantization(scale: scale.view, scales: scales.view))))
        try found.fetch()
        let own = try scales.fetch()
        let values = x.host.values
        let problem = QuantizedCheck(type, width: width).firstProblem(
            found.host, scales: way == .perRow ? own : nil, unquantized: values, exact: values, reference: values)
        return problem ?? (found.host.paddingIsIntact && scales.host.paddingIsIntact ? nil : "written beside")
    }

    /// Packed bits of runs and of segments of many lengths.
    public func packBitsProblems(_ order: PackBitsOperation.Order, _ random: inout OpsRandom) throws -> [String] {
        var problems: [String] = []
        for count in [0, 1, 7, 8, 9, 64, 1_001, 100_003] {
            for lead in [0, 3] {
                let problem = try packBitsProblem(order, count: count, lead: lead, segments: nil, &random)
                if let problem { problems.append("\(count) flags, lead \(lead): \(problem)") }
            }
        }
        for segments in [[], [0], [5], [8, 0, 0, 9, 1, 64, 3], [100, 0], [0, 0, 7]] {
            let count = segments.reduce(2, +) + 5
            let problem = try packBitsProblem(order, count: count, lead: 1, segments: segments, &random)
            if let problem { problems.append("segments of \(segments): \(problem)") }
        }
        return problems
    }

    /// Packed bits of one run, or of segments of these lengths, against a loop.
    public func packBitsProblem(
        _ order: PackBitsOperation.Order, count: Int, lead: Int, segments: [Int]?, _ random: inout OpsRandom
    ) throws -> String? {
        begin()
        // Any nonzero byte is a flag.
        let values = (0..<count).map { _ in random.uniform() < 0.5 ? 0 : (1 + random.uniform() * 254).rounded() }
        let flags = try tensor(.uint8, [count], lead: lead, values: values)
        var starts = [segments == nil ? 0 : 2]
        for length in segments ?? [count] { starts.append(starts[starts.count - 1] + length) }
        var bytes = [0]
        var expected: [Double] = []
        for (start, end) in zip(starts, starts.dropFirst()) {
            for byte in stride(from: start, to: end, by: 8) {
                var bits = 0
                for bit in 0..<min(8, end - byte) where values[byte + bit] != 0 {
                    bits |= 1 << (order == .highestFirst ? 7 - bit : bit)
                }
                expected.append(Double(bits))
            }
            bytes.append(expected.count)
        }
        let output = try tensor(.uint8, [expected.count])
        var given: PackBitsOperation.Segments?
        if segments != nil {
            given = .init(
                flags: try tensor(.int32, [starts.count], values: starts.map(Double.init)).view,
                bytes: try tensor(.int32, [bytes.count], values: bytes.map(Double.init)).view)
        }
        try run(.packBits(PackBitsOperation(flags: flags.view, output: output.view, order: order, segments: given)))
        if try output.fetch() != expected { return "\(output.host.values), not \(expected)" }
        return output.host.paddingIsIntact ? nil : "written beside the output"
    }
}
