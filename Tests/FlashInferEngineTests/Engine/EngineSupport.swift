import Dispatch
import FlashInferEngine
import Synchronization

/// A runner over the fake language: it keeps token ids in pages and predicts from what it reads back.
final class FakeRunner: ModelRunner {
    struct Failure: Error, Hashable {}

    /// What goes wrong in which step.
    enum Fault: Sendable {
        case none
        case throwing(step: Int)
        case tooFewTokens(step: Int)
        case wildToken(step: Int)
    }

    private struct State {
        var cache: [Int32]
        var steps = 0
        var rows: [SamplingRow] = []
        var largestBatch = 0
    }

    let vocabularySize = FakeLanguage.vocabularySize
    private let fault: Fault
    private let pause: Duration
    private let state: Mutex<State>

    init(pageCount: Int, pageSize: Int, fault: Fault = .none, pause: Duration = .zero) {
        self.fault = fault
        self.pause = pause
        state = Mutex(State(cache: Array(repeating: -1, count: pageCount * pageSize)))
    }

    var samplingRows: [SamplingRow] { state.withLock { $0.rows } }
    var largestBatch: Int { state.withLock { $0.largestBatch } }

    func step(_ batch: StepBatch, sampling: [SamplingRow]) async throws -> [SampledToken] {
        block(for: pause)
        return try state.withLock { state in
            state.steps += 1
            state.rows += sampling
            state.largestBatch = max(state.largestBatch, batch.entries.count)
            for (slot, token) in zip(batch.slots, batch.tokenIDs) { state.cache[Int(slot)] = token }
            var tokens: [SampledToken] = []
            for entry in batch.entries where entry.samples {
                let history = (0..<entry.endPosition).map { position in
                    let page = Int(entry.blockTable[position / batch.pageSize])
                    return state.cache[page * batch.pageSize + position % batch.pageSize]
                }
                tokens.append(SampledToken(token: FakeLanguage.next(after: history), logProbability: -1))
            }
            switch fault {
            case .throwing(state.steps): throw Failure()
            case .tooFewTokens(state.steps): tokens.removeLast()
            case .wildToken(state.steps): tokens[0] = SampledToken(token: 999)
            default: break
            }
            return tokens
        }
    }

    /// Blocks the thread, as a model that computes does.
    private func block(for duration: Duration) {
        let end = ContinuousClock.now + duration
        while ContinuousClock.now < end {}
    }
}

/// A runner that blocks its thread from some step on, until it is let go on for good.
final class GatedRunner: ModelRunner {
    let vocabularySize = FakeLanguage.vocabularySize
    private let gate = DispatchSemaphore(value: 0)
    private let blocked = Atomic(false)
    private let freeSteps: Atomic<Int>

    init(freeSteps: Int = 0) { self.freeSteps = Atomic(freeSteps) }

    var isBlocked: Bool { blocked.load(ordering: .acquiring) }

    func open() { gate.signal() }

    func step(_ batch: StepBatch, sampling: [SamplingRow]) async throws -> [SampledToken] {
        if freeSteps.subtract(1, ordering: .relaxed).newValue < 0 { block() }
        return sampling.map { _ in SampledToken(token: 1) }
    }

    private func block() {
        blocked.store(true, ordering: .releasing)
        gate.wait()
        gate.signal()
    }
}

/// Spells token n as the n-th letter; token 6 is half of a character that its successor completes.
struct FakeDecoder: TextDecoder {
    private var pending = ""

    mutating func append(_ token: Int32) -> String {
        if token == 6 {
            pending += "\u{e9}"
            return ""
        }
        defer { pending = "" }
        return pending + Self.letter(token)
    }

    mutating func finish() -> String {
        defer { pending = "" }
        return pending.isEmpty ? "" : "?"
    }

    static func letter(_ token: Int32) -> String {
        token == 6 ? "\u{e9}" : String("_abcde".dropFirst(Int(token)).first!)
    }

    static func text(_ tokens: some Collection<Int32>) -> String {
        var decoder = FakeDecoder()
        return tokens.map { decoder.append($0) }.joined() + decoder.finish()
    }
}

/// Everything a stream said.
struct Transcript {
    var tokens: [Int32] = []
    var text = ""
    var summary: GenerationSummary?

    init(_ stream: AsyncThrowingStream<GenerationEvent, any Error>) async throws {
        for try await event in stream {
            switch event {
            case .token(let token):
                tokens.append(token.id)
                text += token.text
            case .finished(let summary): self.summary = summary
            }
        }
    }
}

extension EngineConfiguration {
    static let fake = EngineConfiguration(
        scheduling: SchedulerConfiguration(contextLength: 100), pageCount: 25, pageSize: 4,
        endOfSequenceTokens: [FakeLanguage.stopToken])
}

extension Engine {
    /// An engine over a fake runner.
    static func fake(
        pages: Int = 64, pageSize: Int = 4, context: Int = 200, budget: Int = 64, sequences: Int = 8,
        fault: FakeRunner.Fault = .none, pause: Duration = .zero
    ) throws -> (Engine, FakeRunner) {
        let runner = FakeRunner(pageCount: pages, pageSize: pageSize, fault: fault, pause: pause)
        let engine = try Engine(
            runner: runner,
            configuration: EngineConfiguration(
                scheduling: SchedulerConfiguration(
                    contextLength: context, maxBatchTokens: budget, maxSequences: sequences),
                pageCount: pages, pageSize: pageSize, endOfSequenceTokens: [FakeLanguage.stopToken]),
            makeDecoder: { FakeDecoder() })
        return (engine, runner)
    }
}
