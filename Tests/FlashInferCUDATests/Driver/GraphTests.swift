import CCUDA
import FlashInferCUDA
import TestSupport
import Testing

/// Recording and replaying, on a driver made of Swift functions.
struct GraphTests {
    @Test func recordsNowAndRunsLater() throws {
        let folder = try TemporaryFolder()
        try FakeDriver.with { fake in
            let device = try fake.device(source: TestKernels.source(in: folder))
            let kernel = try device.kernel(TestKernels.add())
            let region = try device.allocate(byteCount: 16)
            try device.fill(region, with: 0)
            try device.synchronize()
            let captured = try device.capture { () throws(FlashInferError) in
                #expect(device.isCapturing)
                try device.fill(region, with: 7)
                try device.launch(kernel, grid: (1, 1, 1), TestKernels.Params(address: 0, count: 1, value: 2))
            }
            let graph = try #require(captured)
            #expect(!device.isCapturing)
            try device.synchronize()
            #expect(fake.read { $0.launches.isEmpty })
            #expect(UnsafePointer<UInt8>(bitPattern: region.address)![3] == 0)
            try graph.replay()
            try graph.replay()
            try device.synchronize()
            #expect(fake.read { $0.launches.count } == 2)
            #expect(UnsafePointer<UInt8>(bitPattern: region.address)![3] == 7)
        }
    }

    @Test func aGraphKeepsItsDevice() throws {
        let folder = try TemporaryFolder()
        try FakeDriver.with { fake in
            var graph: (any DeviceGraph)?
            do {
                let device = try fake.device(source: TestKernels.source(in: folder))
                let kernel = try device.kernel(TestKernels.add())
                graph = try device.capture { () throws(FlashInferError) in
                    try device.launch(kernel, grid: (1, 1, 1), TestKernels.Params(address: 0, count: 1, value: 2))
                }
            }
            #expect(fake.live("module") == 1 && fake.live("stream") == 1)
            try graph?.replay()
            graph = nil
            #expect(fake.live("module") == 0 && fake.live("stream") == 0 && fake.live("context") == 0)
            #expect(fake.read { $0.launches.count } == 1)
        }
    }

    @Test func whatCannotBeRecordedIsRefused() throws {
        try FakeDriver.with { fake in
            let device = try fake.device()
            let region = try device.allocate(byteCount: 16)
            var byte: UInt8 = 0
            _ = try device.capture { () throws(FlashInferError) in
                func refuses(_ body: () throws -> Void) {
                    #expect { try body() } throws: { "\($0)".contains("while a graph is being captured") }
                }
                refuses { _ = try device.allocate(byteCount: 1) }
                refuses { try device.staging(byteCount: 1, to: region.address) { _ in } }
                refuses {
                    try withUnsafeBytes(of: byte) {
                        try device.upload(
                            $0, to: MemoryRegion(address: region.address, byteCount: 1, device: device.id))
                    }
                }
                refuses { try device.synchronize() }
                refuses { _ = try device.capture {} }
                refuses {
                    try withUnsafeMutableBytes(of: &byte) {
                        try device.download(
                            MemoryRegion(address: region.address, byteCount: 1, device: device.id), to: $0)
                    }
                }
            }
            device.deallocate(region)
        }
    }

    @Test func memoryFreedMeanwhileIsFreedAfterwards() throws {
        try FakeDriver.with { fake in
            let device = try fake.device()
            let region = try device.allocate(byteCount: 16)
            let graph = try device.capture { () throws(FlashInferError) in device.deallocate(region) }
            // Had the free been recorded, every replay would free again.
            try graph?.replay()
            try graph?.replay()
            try device.synchronize()
            #expect(fake.count("cuMemFreeAsync") == 1)
            #expect(fake.read { $0.deviceBytes.isEmpty })
        }
    }

    @Test func anErrorEndsTheRecording() throws {
        try FakeDriver.with { fake in
            let device = try fake.device()
            #expect(throws: FlashInferError.overflow("test")) {
                _ = try device.capture { () throws(FlashInferError) in throw .overflow("test") }
            }
            #expect(!device.isCapturing)
            #expect(fake.live("graph") == 0)
            _ = try device.capture {}
            fake.fail("cuStreamEndCapture", 901)
            #expect { _ = try device.capture {} } throws: { "\($0)".contains("cuStreamEndCapture") }
            fake.change { $0.capture = nil }
            fake.fail("cuGraphInstantiate", 1)
            #expect { _ = try device.capture {} } throws: { "\($0)".contains("cuGraphInstantiate") }
            #expect(fake.live("graph") == 0)
        }
    }
}
