import FlashInfer
import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Sampling on the GPU draws the tokens that the CPU draws.
@Suite(.enabled(if: OpsGPU.isThere, "no CUDA device")) struct SamplingGPUTests {
    private let gpu = GPUScope()

    private struct Drawn: Equatable {
        var tokens: [Int]
        var status: [Int]
    }

    /// Draws once a row on the GPU and on the CPU; `logits` has one row, shared by all, or one for each.
    private func draw(
        _ logits: GPUTensor, _ rows: [SampleOperation.Row], order: SampleOperation.FilterOrder = .topKFirst
    ) throws -> (gpu: Drawn, cpu: Drawn) {
        let (tokens, status) = (try gpu.tensor(.int32, [rows.count]), try gpu.tensor(.uint8, [rows.count]))
        func shared(_ view: TensorView) throws -> TensorView {
            guard view.shape[0] == 1 else { return view }
            return try TensorView(
                view.region, byteOffset: view.byteOffset, dtype: view.dtype, shape: [rows.count, view.shape[1]],
                strides: [0, 1])
        }
        try runOnGPU(
            .sample(
                SampleOperation(
                    logits: try shared(logits.view), tokens: tokens.view, status: status.view, rows: rows,
                    order: order)))
        let gpu = Drawn(tokens: try tokens.fetch().map { Int($0) }, status: try status.fetch().map { Int($0) })
        #expect(tokens.host.paddingIsIntact && status.host.paddingIsIntact)
        let cpu = CPUDevice(threads: 1)
        try cpu.execute(
            .sample(
                SampleOperation(
                    logits: try shared(logits.host.view), tokens: tokens.host.view, status: status.host.view,
                    rows: rows, order: order)))
        return (gpu, Drawn(tokens: tokens.host.values.map { Int($0) }, status: status.host.values.map { Int($0) }))
    }

    /// Filters of every kind, and their mixes.
    static func filters(width: Int) -> [SampleOperation.Row] {
        var rows: [SampleOperation.Row] = [.init(temperature: 0, seed: 3, step: 0)]
        for topK in [0, 1, 2, 40, width / 2, width - 1, width, width + 5] where topK >= 0 {
            for topP in [Float(1), 0.999, 0.9, 0.3, 1e-6, 0] {
                for minP in [Float(0), 0.1, 1] {
                    rows.append(
                        .init(
                            temperature: 0.8, topK: topK, topP: topP, minP: minP, seed: 3, step: UInt64(rows.count)))
                }
            }
        }
        return rows
    }

    @Test(arguments: [SampleOperation.FilterOrder.topKFirst, .joint], [DType.float32, .bfloat16, .float16])
    func everyDrawIsTheCPUs(order: SampleOperation.FilterOrder, dtype: DType) throws {
        var random = OpsRandom(31)
        for width in [1, 2, 7, 111, 128, 257, 1_500, 9_001] {
            for (scale, lead) in [(3.0, 0), (0.5, 1), (10, 3)] {
                var values = random.normals(width, scale: scale)
                if width > 7 { values[3] = -.infinity }
                let logits = try gpu.tensor(dtype, [1, width], padding: 6, lead: lead, values: values)
                let rows = Self.filters(width: width)
                let drawn = try draw(logits, rows, order: order)
                #expect(drawn.gpu.status == drawn.cpu.status)
                for (row, (gpu, cpu)) in zip(rows, zip(drawn.gpu.tokens, drawn.cpu.tokens)) where gpu != cpu {
                    // Only where a running sum of float64 and one of integers round to different sides.
                    let oracle = SamplingOracle(logits.host.values, row, joint: order == .joint)
                    #expect(oracle.accepts(gpu, of: row), "token \(gpu), not \(cpu), width \(width), \(row)")
                    Issue.record("token \(gpu), on the CPU \(cpu), width \(width), \(row)")
                }
            }
        }
    }

    @Test func tiesGoToTheLowestIds() throws {
        for width in [9, 300, 2_000] {
            // Zeros of both signs are equal; every third token is among the greatest.
            let logits = try gpu.tensor(
                .float32, [1, width], values: (0..<width).map { $0 % 3 == 1 ? ($0 % 2 == 0 ? 0.0 : -0.0) : -2 })
            for topK in [1, 2, 3] {
                let rows = (0..<60).map { SampleOperation.Row(topK: topK, seed: 5, step: UInt64($0)) }
                let drawn = try draw(logits, rows)
                #expect(Set(drawn.gpu.tokens) == Set((0..<topK).map { 3 * $0 + 1 }))
                #expect(drawn.gpu == drawn.cpu)
            }
            // Strictly greater mass decides top-p, so all tied tokens stay.
            let rows = (0..<400).map { SampleOperation.Row(topP: 0.01, seed: 6, step: UInt64($0)) }
            let drawn = try draw(logits, rows)
            #expect(drawn.gpu.tokens.allSatisfy { $0 % 3 == 1 } && Set(drawn.gpu.tokens).count >= min(3, width / 3))
            #expect(drawn.gpu == drawn.cpu)
        }
    }

    @Test func badRowsHaveAStatusAndLeaveOthersAlone() throws {
        let width = 700
        for place in [0, 130, width - 1] {
            let image = try OpsTensor(
                .float32, [5, width], padding: 1, values: [Double](repeating: -1, count: 5 * width))
            image[place] = .nan
            for index in 0..<width { image[width + index] = -.infinity }
            image[2 * width + place] = .infinity
            for index in 0..<width where index != place { image[3 * width + index] = -.infinity }
            let logits = try gpu.tensor(image)
            for (filter, infinite) in [
                (SampleOperation.Row(seed: 1, step: 0), 3), (.init(topK: 5, seed: 1, step: 0), 3),
                (.init(topP: 0.5, minP: 0.2, seed: 1, step: 0), 3), (.init(temperature: 0, seed: 1, step: 0), 0),
            ] {
                let drawn = try draw(logits, [SampleOperation.Row](repeating: filter, count: 5))
                #expect(drawn.gpu.status == [1, 2, infinite, 0, 0])
                #expect(drawn.gpu == drawn.cpu)
            }
        }
    }

    @Test func extremeLogitsAndTemperatures() throws {
        let width = 300
        for values in [
            [Double](repeating: 0, count: width), [Double](repeating: 3e38, count: width),
            (0..<width).map { $0 == 77 ? 3e38 : -3e38 }, (0..<width).map { Double($0) * 1e-42 },
            (0..<width).map { $0 == 77 ? 0 : -1e4 },
        ] {
            let logits = try gpu.tensor(.float32, [1, width], values: values)
            for temperature in [Float(1e-45), 1e-30, 1e-5, 1, 1e4, 1e30] {
                let rows = Self.filters(width: width).map { filter in
                    var row = filter
                    row.temperature = temperature
                    return row
                }
                let drawn = try draw(logits, rows)
                #expect(drawn.gpu.status.allSatisfy { $0 == 0 })
                #expect(drawn.gpu.tokens.allSatisfy { (0..<width).contains($0) })
                #expect(drawn.gpu.tokens == drawn.cpu.tokens, "temperature \(temperature)")
            }
        }
    }

    @Test func theLargestVocabulary() throws {
        var random = OpsRandom(34)
        let width = 201_088
        let logits = try gpu.tensor(.bfloat16, [1, width], values: (0..<width).map { _ in random.uniform() * 8 })
        let rows: [SampleOperation.Row] = [
            .init(seed: 41, step: 1), .init(topK: 50, topP: 0.9, seed: 41, step: 2),
            .init(topK: 100_000, seed: 41, step: 3), .init(topP: 0.999, seed: 41, step: 4),
            .init(topP: 0.5, minP: 0.5, seed: 41, step: 5), .init(temperature: 0, seed: 41, step: 6),
        ]
        let drawn = try draw(logits, rows)
        #expect(drawn.gpu == drawn.cpu)
    }

    /// Chi-square of many draws against the probabilities.
    @Test func frequenciesFollowTheProbabilities() throws {
        var random = OpsRandom(35)
        let (width, draws) = (1_000, 20_000)
        for filter in [
            SampleOperation.Row(seed: 21, step: 0), .init(temperature: 0.7, topK: 100, topP: 0.95, seed: 26, step: 0),
        ] {
            let logits = try gpu.tensor(.float32, [1, width], values: random.normals(width, scale: 2))
            let tokens = try draw(logits, filter.at(steps: 0..<draws)).gpu.tokens
            let probabilities = SamplingOracle(logits.host.values, filter).probabilities
            #expect(SamplingOracle.follows(tokens, probabilities), "\(filter)")
        }
    }
}
