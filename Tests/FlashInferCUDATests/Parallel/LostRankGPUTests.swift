import FlashInfer
import FlashInferCUDA
import TestSupport
import Testing

/// A rank that goes while another one's GPU waits for it in a collective.
@Suite(
    .enabled(if: GPU.isPresent, GPU.absence),
    .enabled(if: GPU.count > 1, "needs two GPUs, and NCCL"),
    .disabled(if: GPU.runsOneKernelAtATime, "its kernels wait for each other; a sanitizer runs one at a time"),
    .serialized, .timeLimit(.minutes(3)))
struct LostRankGPUTests {
    /// How rank 1 goes: with a word, or by letting go of its communicator.
    enum Departure: CaseIterable, Sendable {
        case leaves, ends
    }

    @Test(arguments: Departure.allCases, [false, true])
    func theOthersWaitEndsAndTheirGPUIsOfUse(_ departure: Departure, inAGraph: Bool) throws {
        let found = try onThreads(ThreadCommunicator.ranks(2)) { host -> String in
            let device = try CUDADevice(ordinal: host.rank)
            let ranks = try NCCLCommunicator(on: device, ranks: host)
            guard ranks.rank == 0 else {
                if departure == .leaves {
                    ranks.leave()
                    #expect(throws: FlashInferError.self) { try ranks.barrier() }
                } else {
                    // NCCL's own farewell would wait for rank 0; a process that ends has none.
                    host.leave()
                }
                return ""
            }
            let buffer = try DeviceBuffer(on: device, dtype: .uint8, shape: [2 << 20])
            let own = MemoryRegion(address: buffer.region.address, byteCount: 1 << 20, device: device.id)
            try device.fill(buffer.region, with: 7)
            let start = ContinuousClock.now
            var text = ""
            do {
                if inAGraph {
                    let graph = try device.capture { () throws(FlashInferError) in
                        try ranks.allGather(own, into: buffer.region)
                    }
                    try graph!.replay()
                } else {
                    try ranks.allGather(own, into: buffer.region)
                }
                try ranks.finishCollectives()
            } catch { text = "\(error)" }
            #expect(ContinuousClock.now - start < .seconds(30))
            #expect(throws: FlashInferError.self) { try ranks.allGather(own, into: buffer.region) }
            // Nothing is in the way of other work.
            try device.fill(buffer.region, with: 9)
            let bytes: [UInt8] = try device.read(buffer.view.slice(0..<16))
            #expect(bytes == [UInt8](repeating: 9, count: 16))
            return text
        }
        #expect(found[0].contains("rank 1"), "\(found[0])")
    }
}
