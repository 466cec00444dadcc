import FlashInferCore
import Testing

/// Which orders are legal, and which kernels they become.
@Suite struct LogitsPipelineTests {
    private func view(_ dtype: DType, _ shape: Shape, at address: UInt = 4096) throws -> TensorView {
        try TensorView(
            MemoryRegion(address: address, byteCount: 1 << 20, device: .recording), dtype: dtype, shape: shape)
    }

    private let rows = [
        SampleOperation.Row(temperature: 0.7, topK: 5, topP: 0.9, minP: 0.1, seed: 3, step: 4),
        .init(temperature: 0, topK: 2, topP: 0.5, minP: 0.2, seed: 5, step: 6),
    ]

    @Test func oneKernelFromLogitsToTokens() throws {
        let pipeline = LogitsPipeline.fromLogits.temperature().topK().softmax().topP().minP().sample()
        #expect(pipeline.kernelCount == 1)
        let (logits, tokens) = (try view(.bfloat16, [2, 50]), try view(.int32, [2]))
        let status = try view(.uint8, [2])
        let operations = try pipeline.operations(logits, tokens: tokens, status: status, rows: rows)
        guard case .sample(let sample) = operations.first else {
            Issue.record("no draw")
            return
        }
        #expect(operations.count == 1)
        #expect(sample == SampleOperation(logits: logits, tokens: tokens, status: status, rows: rows))
        try operations[0].validate()
        // What is not in a pipeline is not read.
        let plain = try LogitsPipeline.fromLogits.sample()
            .operations(logits, tokens: tokens, status: status, rows: rows)
        guard case .sample(let sample) = plain.first else { return }
        #expect(sample.rows == rows.map { .init(seed: $0.seed, step: $0.step) })
    }

    @Test func ordersOfFiltersAreOrdersOfTheKernel() throws {
        let probabilities = try view(.float32, [2, 50])
        let (tokens, status) = (try view(.int32, [2]), try view(.uint8, [2]))
        func order(_ pipeline: LogitsPipeline<Probabilities, Tokens>) throws -> SampleOperation.FilterOrder? {
            #expect(pipeline.kernelCount == 1)
            let operations = try pipeline.operations(probabilities, tokens: tokens, status: status, rows: rows)
            guard case .sample(let sample) = operations.first else { return nil }
            #expect(sample.form == .probabilities && sample.rows.allSatisfy { $0.temperature == 1 })
            return sample.order
        }
        let start = LogitsPipeline.fromProbabilities
        #expect(try order(start.topK().topP().sample()) == .topKFirst)
        #expect(try order(start.topP().topK().sample()) == .joint)
        #expect(try order(start.topP().minP().topK().sample()) == .joint)
        #expect(try order(start.topK().topP().minP().topK().sample()) == .topKFirst)
    }

    @Test func aShareOfWhatIsLeftNeedsAKernelOfItsOwn() throws {
        let pipeline = LogitsPipeline.fromLogits.temperature().softmax().minP().topP().sample()
        #expect(pipeline.kernelCount == 3)
        let (logits, scratch) = (try view(.float16, [2, 50]), try view(.float32, [2, 50], at: 1 << 20))
        let (tokens, status) = (try view(.int32, [2]), try view(.uint8, [2]))
        // A temperature of 0 has no softmax; it is the draw's.
        var rows = rows
        rows[1].temperature = 1
        let operations = try pipeline.operations(
            logits, tokens: tokens, status: status, scratch: scratch, rows: rows)
        for operation in operations { try operation.validate() }
        guard case .softmax(let softmax) = operations[0], case .filter(let filter) = operations[1],
            case .sample(let sample) = operations[2]
        else {
            Issue.record("other kernels")
            return
        }
        #expect(softmax.temperatures == [0.7, 1] && softmax.output == scratch)
        #expect(filter.rows == [.init(minP: 0.1), .init(minP: 0.2)] && filter.input == scratch)
        #expect(sample.rows.map(\.topP) == [0.9, 0.5] && sample.rows.allSatisfy { $0.minP == 0 && $0.topK == 0 })
        #expect(throws: FlashInferError.self) {
            try pipeline.operations(logits, tokens: tokens, status: status, rows: rows)
        }
    }

    @Test func probabilitiesAreAnEnd() throws {
        let logits = try view(.float32, [2, 50])
        let status = try view(.uint8, [2])
        let softmax = LogitsPipeline.fromLogits.softmax()
        #expect(softmax.kernelCount == 1)
        let filtered = LogitsPipeline.fromLogits.topK().softmax().topP()
        #expect(filtered.kernelCount == 2)
        let operations = try filtered.operations(logits, output: logits, status: status, rows: rows)
        #expect(operations.count == 2)
        for operation in operations { try operation.validate() }
        #expect(LogitsPipeline.fromProbabilities.topK().topP().minP().kernelCount == 1)
    }

    @Test func ordersOfDataFailWithTheirPosition() throws {
        typealias Steps = PipelineSteps
        let legal = try Steps([.temperature, .topK, .softmax, .topP, .minP, .sample], from: .logits)
        #expect(legal.output == nil && legal.kernelCount == 1)
        #expect(try Steps([.topK], from: .probabilities).output == .probabilities)
        for (steps, input, position) in [
            ([PipelineStep.softmax, .temperature, .sample], DistributionForm.logits, 1), ([.topP], .logits, 0),
            ([.softmax, .softmax], .logits, 1), ([.softmax], .probabilities, 0),
            ([.softmax, .sample, .topP], .logits, 2), ([.temperature, .topK, .temperature, .sample], .logits, 2),
            ([.minP, .sample], .logits, 0),
        ] {
            do throws(FlashInferError) {
                _ = try Steps(steps, from: input)
                Issue.record("\(steps) is not legal")
            } catch {
                #expect("\(error)".contains("step \(position) (\(steps[position].rawValue))"), "\(error)")
            }
        }
        #expect(throws: FlashInferError.self) { try Steps([.temperature, .topK], from: .logits) }
        #expect(throws: FlashInferError.self) { try Steps([], from: .logits) }
    }
}
