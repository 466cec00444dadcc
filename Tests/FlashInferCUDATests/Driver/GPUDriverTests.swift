import FlashInferCUDA
import Foundation
import TestSupport
import Testing

/// The driver layer on a real GPU.
@Suite(.serialized, .enabled(if: TestMachine.hasGPU, TestMachine.needsGPU))
struct GPUDriverTests {
    /// A device that knows the test kernels; on a stream of its own.
    private func makeDevice(stream: UInt? = nil) throws -> CUDADevice {
        let driver = try CUDADriver.load()
        return try CUDADevice(
            driver: driver, stream: stream,
            source: CubinSource(compiler: KernelCompiler(texts: TestKernels.texts), driverVersion: driver.version))
    }

    private func params(_ region: MemoryRegion, _ value: Float) -> TestKernels.Params {
        TestKernels.Params(address: UInt64(region.address), count: Int32(region.byteCount / 4), value: value)
    }

    @Test func bytesComeBackAsTheyWent() throws {
        let device = try makeDevice()
        for count in [1, 255, 4096, (4 << 20) - 1, (17 << 20) + 3] {
            let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 13) }
            let region = try device.allocate(byteCount: count)
            defer { device.deallocate(region) }
            try device.fill(region, with: 0xEE)
            try bytes.withUnsafeBytes { try device.upload($0, to: region) }
            var back = [UInt8](repeating: 0, count: count)
            try back.withUnsafeMutableBytes { try device.download(region, to: $0) }
            #expect(back == bytes)
            try device.fill(region, with: 0x5A)
            try back.withUnsafeMutableBytes { try device.download(region, to: $0) }
            #expect(back.allSatisfy { $0 == 0x5A })
        }
    }

    @Test func compilesLoadsAndLaunches() throws {
        let device = try makeDevice()
        let buffer = try DeviceBuffer(on: device, (0..<1000).map(Float.init), shape: [1000])
        let kernel = try device.kernel(TestKernels.add(times: 3))
        #expect(kernel.registers > 0 && kernel.localByteCount == 0)
        try device.launch(kernel, grid: (16, 1, 1), params(buffer.region, 0.5))
        let result: [Float] = try buffer.read()
        #expect(result == (0..<1000).map { Float($0) + 3 })
    }

    /// Many messages to one place, each read by a kernel before the next arrives: only stream order makes the sum right.
    @Test func messagesArriveInOrderHoweverFarTheHostIsAhead() throws {
        let device = try makeDevice()
        let kernel = try device.kernel(TestKernels.add())
        let count = 1 << 20
        let slow = try DeviceBuffer(on: device, dtype: .float32, shape: [count])
        try device.fill(slow.region, with: 0)
        let messages = 300
        let places = try DeviceBuffer(on: device, dtype: .float32, shape: [messages])
        for message in 0..<messages {
            // Keeps the GPU behind the host.
            try device.launch(kernel, grid: ((count + 63) / 64, 1, 1), params(slow.region, 1))
            try device.staging(byteCount: 4, to: places.region.address + UInt(message * 4)) {
                $0.storeBytes(of: Float(message), as: Float.self)
            }
        }
        let arrived: [Float] = try places.read()
        #expect(arrived == (0..<messages).map(Float.init))
    }

    @Test func capturesAndReplays() throws {
        let device = try makeDevice()
        let buffer = try DeviceBuffer(on: device, [Float](repeating: 0, count: 256), shape: [256])
        let kernel = try device.kernel(TestKernels.add())
        let captured = try device.capture { () throws(FlashInferError) in
            try device.launch(kernel, grid: (4, 1, 1), params(buffer.region, 1))
            try device.launch(kernel, grid: (4, 1, 1), params(buffer.region, 10))
        }
        let graph = try #require(captured)
        #expect(try buffer.read(as: Float.self).allSatisfy { $0 == 0 })
        for _ in 0..<5 { try graph.replay() }
        #expect(try buffer.read(as: Float.self).allSatisfy { $0 == 110 })
        // A kernel that was not loaded before may be loaded while capturing.
        let late = try device.capture { () throws(FlashInferError) in
            try device.launch(try device.kernel(TestKernels.add(times: 7)), grid: (4, 1, 1), params(buffer.region, 1))
        }
        try late?.replay()
        #expect(try buffer.read(as: Float.self).allSatisfy { $0 == 124 })
        // What is refused while capturing leaves the device as it was.
        #expect(throws: FlashInferError.self) {
            _ = try device.capture { () throws(FlashInferError) in try device.synchronize() }
        }
        try device.synchronize()
    }

    @Test func worksOnACallersStream() throws {
        let owner = try makeDevice()
        let guest = try makeDevice(stream: owner.stream)
        #expect(guest.stream == owner.stream)
        let buffer = try DeviceBuffer(on: owner, [Float](repeating: 1, count: 64), shape: [64])
        try guest.launch(guest.kernel(TestKernels.add()), grid: (1, 1, 1), params(buffer.region, 2))
        #expect(try buffer.read(as: Float.self).allSatisfy { $0 == 5 })
        // The legacy default stream, too.
        let legacy = try makeDevice(stream: 0)
        try legacy.launch(legacy.kernel(TestKernels.add()), grid: (1, 1, 1), params(buffer.region, 2))
        try legacy.synchronize()
        #expect(try buffer.read(as: Float.self).allSatisfy { $0 == 9 })
    }

    @Test func anyThreadMayCall() throws {
        let device = try makeDevice()
        let buffer = try DeviceBuffer(on: device, [Float](repeating: 0, count: 64), shape: [64])
        let (region, failures) = (buffer.region, Counter())
        ParallelWork.forEach(8, threads: 8) { _ in
            for _ in 0..<100 {
                do {
                    let kernel = try device.kernel(TestKernels.add())
                    try device.launch(
                        kernel, grid: (1, 1, 1),
                        TestKernels.Params(address: UInt64(region.address), count: 64, value: 0.5))
                } catch {
                    failures.add(1)
                }
            }
        }
        #expect(failures.value == 0)
        #expect(try buffer.read(as: Float.self).allSatisfy { $0 == 800 })
    }

    @Test func nothingLeaksOverManyAllocations() throws {
        let device = try makeDevice()
        func cycle() throws {
            let region = try device.allocate(byteCount: 1 << 20)
            try device.fill(region, with: 1)
            device.deallocate(region)
        }
        for _ in 0..<100 { try cycle() }
        try device.synchronize()
        let before = try device.queue.context.memory().free
        for _ in 0..<10_000 { try cycle() }
        try device.synchronize()
        let after = try device.queue.context.memory().free
        let pool = try device.queue.pool.statistics()
        print(
            "10,000 allocations: free memory \(before >> 20) → \(after >> 20) MiB, pool \(pool.used) used, \(pool.reserved >> 20) MiB held"
        )
        #expect(pool.used == 0)
        #expect(before - after < 64 << 20)
    }

    @Test func tooMuchMemoryIsATypedErrorAndNotTheEnd() throws {
        let device = try makeDevice()
        let wanted = device.properties.totalMemory * 4
        #expect(throws: FlashInferError.outOfMemory(byteCount: wanted, device: device.name)) {
            try device.allocate(byteCount: wanted)
        }
        device.deallocate(try device.allocate(byteCount: 1024))
        try device.synchronize()
    }

    @Test func anIllegalLaunchSaysWhatTheDriverSaid() throws {
        let device = try makeDevice()
        let kernel = try device.kernel(TestKernels.add(threads: 64))
        // More threads than the kernel was compiled for.
        let wrong = CUDAFunction(
            handle: kernel.handle,
            spec: KernelSpec(file: "test/add.cuh", entry: "test_add", threads: 1024, label: "test/too-many-threads"))
        #expect {
            try device.launch(wrong, grid: (1, 1, 1), TestKernels.Params(address: 0, count: 0, value: 0))
        } throws: {
            "\($0)".contains("cuLaunchKernel failed: CUDA_ERROR_INVALID_VALUE (1): invalid argument")
        }
        // Not a lasting one.
        try device.synchronize()
        #expect {
            try device.launch(kernel, grid: (1, 1, 1), Int64(0))
        } throws: { "\($0)".contains("has length 8, but must have 16") }
    }

    /// In a process of its own, whose context is lost afterwards.
    @Test func aStrayWriteIsFoundAndSaidByEveryLaterCall() async {
        await #expect(processExitsWith: .success) {
            guard let driver = try? CUDADriver.load() else { exit(2) }
            do {
                let device = try CUDADevice(
                    driver: driver,
                    source: CubinSource(
                        compiler: KernelCompiler(texts: TestKernels.texts), driverVersion: driver.version))
                let kernel = try device.kernel(TestKernels.stray)
                try device.launch(kernel, grid: (1, 1, 1), TestKernels.Params(address: 64, count: 1, value: 0))
                var texts: [String] = []
                for _ in 0..<2 { do { try device.synchronize() } catch { texts.append("\(error)") } }
                do { _ = try device.allocate(byteCount: 8) } catch { texts.append("\(error)") }
                guard texts.count == 3, Set(texts).count == 1, texts[0].contains("cuStreamSynchronize"),
                    texts[0].contains("CUDA_ERROR_ILLEGAL_ADDRESS"), texts[0].contains("restart")
                else {
                    print(texts)
                    exit(3)
                }
                exit(0)
            } catch {
                print(error)
                exit(4)
            }
        }
    }

    @Test func shippedKernelsFitAsManyTimesAsTheirSpecsSay() throws {
        let device = try #require(TestMachine.gpu)
        let architecture = Architecture(of: device.properties)
        let specs = KernelCatalogue.shipped.filter { KernelCatalogue.isShipped($0, for: architecture) }
        try device.preload(specs)
        for spec in specs {
            let blocks = try device.residentBlocks(of: device.kernel(spec))
            #expect(blocks >= spec.blocksPerProcessor, "\(spec.label)")
        }
    }

    @Test func launchesCostLittle() throws {
        let device = try makeDevice()
        let spec = TestKernels.add()
        let empty = TestKernels.Params(address: 0, count: 0, value: 0)
        let clock = ContinuousClock()
        func nanoseconds(_ count: Int, _ body: () throws -> Void) rethrows -> Int {
            let time = try clock.measure { for _ in 0..<count { try body() } }
            return Int(time / .nanoseconds(1)) / count
        }
        let kernel = try device.kernel(spec)
        for _ in 0..<200 { try device.launch(kernel, grid: (1, 1, 1), empty) }
        try device.synchronize()
        // Few at a time, so that no queue of the driver fills up.
        let launch = try nanoseconds(500) { try device.launch(kernel, grid: (1, 1, 1), empty) }
        try device.synchronize()
        let lookup = try nanoseconds(10_000) { _ = try device.kernel(spec) }
        let region = try device.allocate(byteCount: 65536)
        let stage = try nanoseconds(200) { try device.staging(byteCount: 16384, to: region.address) { _ in } }
        try device.synchronize()
        let graph = try device.capture { () throws(FlashInferError) in
            for _ in 0..<100 { try device.launch(kernel, grid: (1, 1, 1), empty) }
        }
        try graph?.replay()
        try device.synchronize()
        let replay = try nanoseconds(100) { try graph?.replay() }
        try device.synchronize()
        device.deallocate(region)
        print(
            "host cost: launch \(launch) ns, kernel lookup \(lookup) ns, staged copy \(stage) ns, replay of 100 kernels \(replay) ns"
        )
        #expect(lookup < 2000 && launch < 50_000)
    }
}
