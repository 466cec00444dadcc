import CFlashInfer
import FlashInfer
import FlashInferCore
import Foundation
import Synchronization
import TestSupport
import Testing

/// Threads of a caller in C: plain threads, not tasks.
@Suite struct ThreadTests {
    /// Runs `body` on `count` threads at once.
    private func onThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
        let done = DispatchSemaphore(value: 0)
        for index in 0..<count {
            Thread.detachNewThread {
                body(index)
                done.signal()
            }
        }
        for _ in 0..<count { done.wait() }
    }

    @Test func eachThreadHasItsOwnLastMessage() {
        let messages = Mutex<[Int: String]>([:])
        onThreads(8) { index in
            #expect(lastMessage.isEmpty)
            for _ in 0..<200 {
                _ = fi_attention_plan_single(nil, nil, 0, 0)
                var count: Int32 = 0
                _ = fi_device_count(Int32(100 + index), &count)
                // What succeeds changes nothing.
                _ = fi_device_count(Int32(FI_CPU), &count)
                let message = lastMessage
                if !message.contains("device_type is \(100 + index)") { messages.withLock { $0[index] = message } }
            }
        }
        #expect(messages.withLock { $0 }.isEmpty)
    }

    @Test func aLongMessageEndsAtACharacter() throws {
        // A shape of long numbers in every sentence is short; names of files are not, and end at 2,047 bytes at most.
        let device = try CDevice.cpu()
        let x = try OpsTensor(.float32, [4], values: [0, 0, 0, 0]).c
        x.pointee.dtype.code = 250
        expect(fi_rmsnorm(device.handle, nil, x, x, x, 0, 0), FI_INVALID_ARGUMENT, "code 250")
        #expect(lastMessage.utf8.count < 2048)
    }

    @Test func oneDeviceServesManyThreads() throws {
        let device = try CDevice.cpu()
        let fixture = try AttentionFixture(AttentionCase(feature: .causal))
        let expected = try CBatch(AttentionBuffers(fixture, on: CPUDevice(threads: 1)))
        let reference = try expected.run(CAttention(expected.options, on: device))
        let failures = Mutex<[String]>([])
        onThreads(4) { index in
            do {
                // Fixtures are made here, so that threads share the device alone.
                let batch = try CBatch(
                    AttentionBuffers(AttentionFixture(AttentionCase(feature: .causal)), on: CPUDevice(threads: 1)))
                for _ in 0..<5 {
                    let attention = try CAttention(batch.options, on: device)
                    for _ in 0..<5 where try batch.run(attention) != reference {
                        failures.withLock { $0.append("thread \(index) found something else") }
                    }
                }
            } catch {
                failures.withLock { $0.append("\(error)") }
            }
        }
        #expect(failures.withLock { $0 } == [])
    }

    @Test func callsOnOneAttentionTakeTurns() throws {
        let device = try CDevice.cpu()
        let attention = try CAttention(AttentionTests.plain, on: device)
        let failures = Mutex<[String]>([])
        onThreads(4) { index in
            do {
                // Everybody plans the same batch, so any plan in force is right for any run.
                let kv = try OpsTensor(.float32, [8, 2, 16], values: [Double](repeating: Double(index), count: 256))
                let q = try OpsTensor(.float32, [1, 4, 16], values: [Double](repeating: 1, count: 64))
                let out = try OpsTensor(.float32, [1, 4, 16])
                var args = fi_attention_run_args()
                (args.q, args.k, args.v) = (UnsafePointer(q.c), UnsafePointer(kv.c), UnsafePointer(kv.c))
                args.out = UnsafePointer(out.c)
                for _ in 0..<100 {
                    try ok(fi_attention_plan_single(attention.handle, nil, 1, 8))
                    try ok(attention.run(args))
                    if !out.values.allSatisfy({ $0 == Double(index) }) {
                        failures.withLock { $0.append("thread \(index): \(out.values[0])") }
                    }
                }
            } catch {
                failures.withLock { $0.append("\(error)") }
            }
        }
        #expect(failures.withLock { $0 } == [])
    }
}
