import CCUDA
import FlashInferCUDA
import FlashInferCore
import Foundation
import Synchronization
import TestSupport
import Testing

private let kernelFolder = ProcessInfo.processInfo.environment["FLASHINFER_PACK_KERNELS"]

/// Compiles ahead, with no GPU, every kernel that the attention tests will launch on one: they are run on a driver that only writes
/// launches down. What cannot be planned, lowered or compiled fails here and not on the GPU machine.
@Suite(
    .enabled(
        if: kernelFolder != nil,
        "minutes of compiling; Scripts/gpu-pack sets FLASHINFER_PACK_KERNELS to the folder that the kernels go to"))
struct PackedKernelTests {
    /// The cases that are run, and those of captured graphs, which launch all of their kernels.
    private static let cases =
        AttentionCase.gpuMatrix + AttentionCase.gpuLayouts + AttentionCase.gpuHeadDims + AttentionCase.gpuOddDims
        + AttentionCase.gpuLarge + AttentionCase.gpuPrefill + AttentionCase.gpuReduced
    private static let captured = CUDAAttentionReplayTests.batches.indices.flatMap { batch in
        AttentionCase.gpuTypes.indices.flatMap { types in
            CUDAAttentionReplayTests.features(types).map { CUDAAttentionReplayTests.cases(batch, types, $0)[0] }
        }
    }

    @Test func compilesWhatTheMatrixNeeds() throws {
        var environment = CUDAEnvironment.current
        environment.cache = kernelFolder
        let source = CubinSource(driverVersion: 13_000, environment: environment)
        let outcome = Outcome()
        try FakeDriver.with { fake in
            fake.change {
                $0.isEager = true
                $0.freeMemory = 1 << 34
            }
            var table = FakeDriver.table()
            // The fake does not know the kernels' parameters.
            table.cuFuncGetParamInfo = nil
            let device = try CUDADevice(driver: CUDADriver(functions: table, path: "fake"), source: source)
            let cases = Self.cases
            DispatchQueue.concurrentPerform(iterations: cases.count) { index in
                outcome.attempt(cases[index]) { _ = try AttentionFixture(cases[index]).run(on: device) }
            }
            // One after another: nothing else may use a device that captures.
            for test in Self.captured { outcome.attempt(test) { try Self.capture(test, on: device) } }
        }
        let count = source.statistics
        print(
            "\(Self.cases.count + Self.captured.count) cases, \(outcome.refused.load(ordering: .relaxed)) refused: \(count.compiled) kernels compiled, "
                + "\(count.cached) found")
        let texts = outcome.failures.withLock { $0 }
        #expect(texts.isEmpty, "\(texts.count) cases, such as \(texts.first ?? "")")
    }

    private static func capture(_ test: AttentionCase, on device: CUDADevice) throws {
        let buffers = try AttentionBuffers(AttentionFixture(test), on: device)
        let plan = try buffers.plan()
        let workspace = try buffers.workspace(for: plan.size)
        let operation = try buffers.operation(plan, in: workspace)
        try operation.validate()
        try device.prepare(plan, capacity: plan.size, in: workspace.view.region)
        _ = try device.capture { () throws(FlashInferError) in try device.execute(.attention(operation)) }
    }
}

/// What became of the cases, from any thread.
private final class Outcome: Sendable {
    let refused = Atomic(0)
    let failures = Mutex<[String]>([])

    func attempt(_ test: AttentionCase, _ body: () throws -> Void) {
        do {
            try body()
        } catch FlashInferError.unsupported where !test.isRequiredOfGPU {
            refused.add(1, ordering: .relaxed)
        } catch {
            failures.withLock { $0.append("\(test): \(error)") }
        }
    }
}
