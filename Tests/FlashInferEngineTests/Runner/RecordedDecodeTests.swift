import FlashInferEngine
import TestSupport
import Testing

/// What a decode step asks of a GPU, on a device that records.
@Suite struct RecordedDecodeTests {
    private typealias Fixture = DecoderFixture

    private static func gpu() -> RecordingDevice {
        RecordingDevice(recordsGraphs: true, queryTypes: [.float16, .bfloat16], weightType: .float16)
    }

    /// An operation, and everything of it that a captured launch would hold: tensors, parameters, the workspace and its capacity.
    private func launch(_ operation: Operation) -> String {
        switch operation {
        case .linear(let linear):
            "linear \(linear.input) \(ObjectIdentifier(linear.weights)) \(linear.output) \(linear.bias as Any) "
                + "\(linear.accumulates)"
        case .attention(let attention):
            "attention \(attention.queries) \(attention.cache) \(attention.output) \(attention.workspace) "
                + "\(attention.capacity)"
        default: "\(operation)"
        }
    }

    /// Steps through requests with greedy tokens, telling `body` of each step.
    private func step(
        _ runner: DecoderRunner, _ prompts: [[Int32]], steps: Int, _ body: (StepBatch) throws -> Void
    ) throws {
        var scheduler = try Fixture.scheduler(runner)
        for (index, prompt) in prompts.enumerated() {
            _ = try scheduler.submit(
                Request(id: RequestID(UInt64(index)), promptTokens: prompt, maxTokens: steps))
        }
        while let batch = scheduler.schedule() {
            let sampled = try runner.run(batch, sampling: batch.samplingEntries.map { .greedy($0.id) })
            try body(batch)
            _ = try scheduler.complete(batch, sampled: sampled.map(\.token))
        }
    }

    @Test(arguments: TinyModelWriter.Architecture.allCases)
    func aBucketsStepIsTheSameLaunchesEveryTime(_ architecture: TinyModelWriter.Architecture) throws {
        let folder = try TemporaryFolder()
        // Two runners see different requests; their first step in the bucket of 4 runs directly, the second is captured.
        let device = Self.gpu()
        let runner = try DecoderRunner(
            Fixture.weights(architecture, .q41, in: folder), options: Fixture.options(pages: 128, cacheType: .float16),
            on: device)
        var direct: [[String]] = []
        for prompts in [Fixture.prompts, Fixture.prompts.map { $0 + $0 }] {
            try step(runner, prompts, steps: 5) { batch in
                if batch.rowCount == 3 { direct.append(device.operations.map(launch)) }
                device.reset()
            }
        }
        let graph = try #require(device.graphs.first)
        #expect(device.graphs.count == 1)
        #expect(graph.operations.map(launch) == direct[0])
        // Every later step, whatever its lengths, is a replay and nothing else.
        #expect(direct.dropFirst().allSatisfy { $0.isEmpty })
        #expect(graph.replayCount == direct.count - 1)
        #expect(direct.count == 8)
        for case .attention(let attention) in graph.operations {
            #expect(attention.queries.dtype == .float16)
            #expect(attention.queries.shape[0] == 4)
        }
        var appends = 0
        for operation in graph.operations {
            switch operation {
            case .ropeAppendKV(let append):
                appends += 1
                #expect(append.slots.table?.shape == [2, 4] && append.queryOutput.dtype == .float16)
            case .rope, .appendKV: Issue.record("rotation and append are one launch")
            default: break
            }
        }
        #expect(appends == runner.config.layerCount)
    }

    @Test func aReplayedStepSendsTheTableAndThePlanAndFetchesTheTokens() throws {
        let folder = try TemporaryFolder()
        for (architecture, plans) in [(TinyModelWriter.Architecture.llama, 1), (.gemma3, 2)] {
            let device = Self.gpu()
            var writer = TinyModelWriter(architecture: architecture, precision: .q80, seed: 3)
            writer.headDim = 16
            // Six layers, of which Gemma's last sees everything.
            writer.layerCount = 6
            try writer.writeGGUF(to: folder.path("model.gguf"))
            let file = try GGUFFile(path: folder.path("model.gguf"))
            let runner = try DecoderRunner(
                ModelWeights(gguf: file, config: ModelConfig(gguf: file)),
                options: Fixture.options(pages: 128, cacheType: .float16), on: device)
            device.reset()
            var live: Set<Int> = []
            var replayed = 0
            try step(runner, Fixture.prompts, steps: 6) { batch in
                if device.graphs.first.map({ $0.replayCount > 1 }) ?? false {
                    replayed += 1
                    live.insert(device.liveByteCount)
                    // 4 rows of ids, positions, pages and rows, and the 3 sampled rows.
                    #expect(device.uploads.map(\.byteCount) == [4 * (4 * 4 + 3)])
                    #expect(device.preparedWorkspaces.count == plans)
                    // 4 tokens and 4 statuses.
                    #expect(device.downloads.map(\.byteCount) == [5 * 4])
                    #expect(device.operations.isEmpty)
                }
                device.reset()
            }
            #expect(replayed == 3)
            #expect(live.count == 1, "memory is allocated or freed from one replayed step to the next")
            #expect(device.synchronizationCount == 0)
        }
    }

    @Test func stepsThatAreNotDecodeRunDirectly() throws {
        let folder = try TemporaryFolder()
        let device = Self.gpu()
        let runner = try DecoderRunner(
            Fixture.weights(.llama, .q41, in: folder), options: Fixture.options(cacheType: .bfloat16), on: device)
        var scheduler = try Fixture.scheduler(runner, chunk: 1)
        _ = try scheduler.submit(Request(id: RequestID(0), promptTokens: [5, 6, 7], maxTokens: 1))
        // Steps of one token each, of which only the last is sampled.
        var sampled: [Int] = []
        while let batch = scheduler.schedule() {
            let tokens = try runner.run(batch, sampling: batch.samplingEntries.map { .greedy($0.id) })
            sampled.append(tokens.count)
            _ = try scheduler.complete(batch, sampled: tokens.map(\.token))
        }
        #expect(sampled == [0, 0, 1])
        #expect(device.graphs.isEmpty)
        let types = device.operations.compactMap { operation -> DType? in
            if case .attention(let attention) = operation { attention.queries.dtype } else { nil }
        }
        #expect(types == Array(repeating: .bfloat16, count: 6))
    }

    @Test func activationsHaveTheTypesThatTheDeviceTakes() throws {
        let folder = try TemporaryFolder()
        let device = Self.gpu()
        let runner = try DecoderRunner(
            Fixture.weights(.llama, .q41, in: folder), options: Fixture.options(cacheType: .float16), on: device)
        try step(runner, [[5, 6, 7]], steps: 1) { _ in }
        for operation in device.operations {
            switch operation {
            case .linear(let linear): #expect(linear.input.dtype == .float16)
            case .convert: Issue.record("no product's input needs a conversion")
            case .ropeAppendKV(let append):
                // From float32 to the cache's type, and to attention's, with one rounding.
                #expect(append.keys.dtype == .float32 && append.cache.keys.dtype == .float16)
                #expect(append.queryOutput.dtype == .float16)
            case .attention(let attention): #expect(attention.output.dtype == .float16)
            default: break
            }
        }
        #expect(throws: FlashInferError.self) {
            try DecoderRunner(
                Fixture.weights(.llama, .q41, in: folder), options: Fixture.options(cacheType: .float32),
                on: Self.gpu())
        }
    }
}
