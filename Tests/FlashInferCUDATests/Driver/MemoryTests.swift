import CCUDA
import FlashInferCUDA
import TestSupport
import Testing

/// Allocation, copies and the staging ring, on a driver whose work waits until somebody waits for it.
struct MemoryTests {
    @Test func bytesComeBackAsTheyWent() throws {
        try FakeDriver.with { fake in
            let device = try fake.device()
            // Longer than one piece, and no multiple of it.
            let bytes = (0..<(9 << 20) + 17).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 13) }
            let region = try device.allocate(byteCount: bytes.count)
            try bytes.withUnsafeBytes { try device.upload($0, to: region) }
            var back = [UInt8](repeating: 0, count: bytes.count)
            try back.withUnsafeMutableBytes { try device.download(region, to: $0) }
            #expect(back == bytes)
            #expect(fake.count("cuMemcpyHtoDAsync") == 3)
            device.deallocate(region)
        }
    }

    @Test func emptyRegionsNeedNoCopies() throws {
        try FakeDriver.with { fake in
            let device = try fake.device()
            let region = try device.allocate(byteCount: 0)
            #expect(region.byteCount == 0 && region.address != 0)
            try device.upload(UnsafeRawBufferPointer(start: nil, count: 0), to: region)
            try device.download(region, to: UnsafeMutableRawBufferPointer(start: nil, count: 0))
            try device.fill(region, with: 1)
            #expect(
                fake.count("cuMemcpyHtoDAsync") + fake.count("cuMemcpyDtoHAsync") + fake.count("cuMemsetD8Async") == 0)
            device.deallocate(region)
        }
    }

    /// Each message goes to a place of its own, so that one that was overwritten while it waited shows.
    @Test(arguments: [8, 1000, 70_000, 3 << 20])
    func noMessageIsOverwrittenWhileItWaits(byteCount: Int) throws {
        try FakeDriver.with { fake in
            let device = try fake.device()
            let messages = 100
            let region = try device.allocate(byteCount: messages * byteCount)
            for message in 0..<messages {
                try device.staging(byteCount: byteCount, to: region.address + UInt(message * byteCount)) { bytes in
                    #expect(bytes.count == byteCount)
                    _ = bytes.initializeMemory(as: UInt8.self, repeating: UInt8(message))
                }
            }
            try device.synchronize()
            let all = UnsafeRawBufferPointer(
                start: UnsafeRawPointer(bitPattern: region.address), count: messages * byteCount)
            for message in 0..<messages {
                let places = [0, byteCount / 2, byteCount - 1].map { all[message * byteCount + $0] }
                #expect(places.allSatisfy { $0 == UInt8(message) })
            }
            // 64 small ones before it waits; large ones stop at 64 MiB, which is 16 of 4 MiB.
            let slots = byteCount > 1 << 20 ? 16 : 64
            #expect(fake.live("pinned") == slots)
            #expect(fake.count("cuEventSynchronize") > 0)
            device.deallocate(region)
        }
    }

    @Test func aRingThatIsNotBehindNeverGrowsOrWaits() throws {
        try FakeDriver.with { fake in
            fake.change { $0.isEager = true }
            let device = try fake.device()
            let region = try device.allocate(byteCount: 4096)
            for size in [16, 4096, 100, 1, 4096] { try device.staging(byteCount: size, to: region.address) { _ in } }
            #expect(fake.live("pinned") == 1)
            #expect(fake.count("cuEventSynchronize") == 0)
            #expect(fake.count("cuStreamSynchronize") == 0)
        }
    }

    @Test func aLargerMessageReplacesASlotThatIsTooSmall() throws {
        try FakeDriver.with { fake in
            let device = try fake.device()
            let region = try device.allocate(byteCount: 1 << 22)
            for _ in 0..<70 { try device.staging(byteCount: 8, to: region.address) { _ in } }
            #expect(fake.live("pinned") == 64)
            try device.staging(byteCount: 1 << 20, to: region.address) { $0[0] = 42 }
            try device.synchronize()
            #expect(UnsafePointer<UInt8>(bitPattern: region.address)![0] == 42)
            #expect(fake.live("pinned") == 64)
        }
    }

    @Test func shortMemoryIsGivenBackAndTriedAgain() throws {
        try FakeDriver.with { fake in
            let device = try fake.device()
            fake.fail("cuMemAllocFromPoolAsync", FI_CU_OUT_OF_MEMORY)
            let region = try device.allocate(byteCount: 100)
            #expect(fake.count("cuMemPoolTrimTo") == 1)
            device.deallocate(region)
            fake.change { $0.freeMemory = 1000 }
            #expect(throws: FlashInferError.outOfMemory(byteCount: 2000, device: "cuda:0 (Fake GPU)")) {
                try device.allocate(byteCount: 2000)
            }
            #expect(throws: FlashInferError.self) { try device.allocate(byteCount: -1) }
        }
    }

    @Test func nothingIsLeftWhenTheDeviceGoes() throws {
        let folder = try TemporaryFolder()
        try FakeDriver.with { fake in
            do {
                let device = try fake.device(source: TestKernels.source(in: folder))
                let buffer = try DeviceBuffer(on: device, [1, 2, 3] as [Float], shape: [3])
                let own = try CUDABuffer(byteCount: 10, on: device.queue)
                _ = try device.kernel(TestKernels.add())
                let graph = try device.capture { () throws(FlashInferError) in try device.fill(buffer.region, with: 1) }
                try graph?.replay()
                try device.synchronize()
                #expect(fake.read { $0.deviceBytes.count } == 2 && own.byteCount == 10)
            }
            for kind in ["context", "stream", "event", "pool", "pinned", "module", "graph", "executable"] {
                #expect(fake.live(kind) == 0, "\(kind)")
            }
            #expect(fake.read { $0.deviceBytes.isEmpty })
        }
    }

    @Test func aCallersStreamIsUsedAndNotDestroyed() throws {
        try FakeDriver.with { fake in
            do {
                let device = try fake.device(stream: 555)
                #expect(device.stream == 555)
                #expect(fake.count("cuStreamCreate") == 0)
                #expect(!device.isCapturing)
                // Its owner captures it.
                fake.change { $0.capture = [] }
                #expect(device.isCapturing)
                #expect(throws: FlashInferError.self) { try device.allocate(byteCount: 1) }
                fake.change { $0.capture = nil }
            }
            #expect(fake.count("cuStreamDestroy") == 0)
            fake.change { $0.streamContext = 1 }
            #expect { try fake.device(stream: 0xbad0) } throws: { "\($0)".contains("0xbad0") }
        }
    }
}
