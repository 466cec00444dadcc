import CCUDA
import FlashInferCUDA
import TestSupport
import Testing

/// What reaches the driver from a launch, on a driver made of Swift functions.
struct LaunchTests {
    private let params = TestKernels.Params(address: 0x1234_5678_9abc, count: 7, value: 1.5)

    private func withDevice(_ body: (FakeDriver, CUDADevice) throws -> Void) throws {
        let folder = try TemporaryFolder()
        try FakeDriver.with { fake in
            let specs = [TestKernels.add(), TestKernels.add(times: 2)]
            try body(fake, fake.device(source: TestKernels.source(specs, in: folder)))
        }
    }

    @Test func passesGridThreadsAndTheWholeParameter() throws {
        try withDevice { fake, device in
            let kernel = try device.kernel(TestKernels.add(threads: 64))
            try device.launch(kernel, grid: (3, 2, 1), params)
            try device.synchronize()
            let launch = try #require(fake.read { $0.launches }.first)
            #expect(launch.function == kernel.handle)
            #expect(launch.grid == [3, 2, 1])
            #expect(launch.threads == 64)
            #expect(launch.stream == device.stream)
            #expect(launch.parameter == withUnsafeBytes(of: params, Array.init))
        }
    }

    @Test func aKernelThatWaitsItselfMayStartEarly() throws {
        try withDevice { fake, device in
            let handle = try device.kernel(TestKernels.add()).handle
            for startsEarly in [false, true] {
                let kernel = CUDAFunction(handle: handle, spec: TestKernels.add(threads: 64), startsEarly: startsEarly)
                try device.launch(kernel, grid: (3, 2, 1), params)
            }
            try device.synchronize()
            let launches = fake.read { $0.launches }
            #expect(launches.map(\.startsEarly) == [false, true])
            #expect(launches[0].grid == launches[1].grid && launches[0].parameter == launches[1].parameter)
            #expect(launches[0].threads == launches[1].threads && launches[0].stream == launches[1].stream)
        }
    }

    @Test func everyShippedKernelFollowsItsPredecessors() {
        let texts = KernelTexts.shipped
        // The parts of variants are put into other kernels, and never launched. Items are written by a launch that a fill follows.
        let others = ["portable/variant_parts.cuh", "portable/expand_items.cuh"]
        for (name, text) in texts.texts
        where text.contains("extern \"C\" __global__") {
            #expect(texts.followsPredecessors(name) == !others.contains(name), "\(name)")
        }
        #expect(!texts.followsPredecessors("primitives/launch.cuh"))
    }

    @Test(arguments: [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
    func aGridWithAZeroLaunchesNothing(grid: (Int, Int, Int)) throws {
        try withDevice { fake, device in
            try device.launch(device.kernel(TestKernels.add()), grid: grid, params)
            #expect(fake.count("cuLaunchKernel") == 0)
        }
    }

    @Test(arguments: [(-1, 1, 1), (1 << 31, 1, 1), (1, 65536, 1), (1, 1, 65536)])
    func aGridThatNoGPUTakesIsAnErrorWithItsName(grid: (Int, Int, Int)) throws {
        try withDevice { fake, device in
            let kernel = try device.kernel(TestKernels.add())
            #expect {
                try device.launch(kernel, grid: grid, params)
            } throws: { error in
                "\(error)".contains("test/add-x1") && "\(error)".contains("\(grid)")
            }
            #expect(fake.count("cuLaunchKernel") == 0)
        }
    }

    @Test func aParameterOfAnotherSizeIsAnError() throws {
        try withDevice { fake, device in
            let kernel = try device.kernel(TestKernels.add())
            #expect(
                throws: FlashInferError.lengthMismatch("parameter Int64 of test/add-x1", found: 8, expected: 16)
            ) { try device.launch(kernel, grid: (1, 1, 1), Int64(1)) }
            #expect(fake.count("cuLaunchKernel") == 0)
        }
    }

    @Test func loadsEachKernelOnce() throws {
        try withDevice { fake, device in
            let first = try device.kernel(TestKernels.add())
            // Another value of the same content is the same kernel, whatever its label.
            let second = try device.kernel(TestKernels.add(label: "test/other-name"))
            #expect(first.handle == second.handle)
            #expect(fake.count("cuModuleLoadData") == 1)
            _ = try device.kernel(TestKernels.add(times: 2))
            #expect(fake.count("cuModuleLoadData") == 2)
        }
    }

    @Test func asksTheDriverNothingButTheLaunch() throws {
        try withDevice { fake, device in
            let kernel = try device.kernel(TestKernels.add())
            let before = fake.totalCalls
            for _ in 0..<10 { try device.launch(device.kernel(kernel.spec), grid: (1, 1, 1), params) }
            // The current context, push, launch, pop; nothing else.
            #expect(fake.totalCalls - before == 40)
        }
    }

    @Test func leavesTheThreadsContextAsItWas() throws {
        try withDevice { fake, device in
            let kernel = try device.kernel(TestKernels.add())
            fake.change { $0.push(99) }
            try device.launch(kernel, grid: (1, 1, 1), params)
            #expect(fake.read { $0.currentContext } == 99)
            // Where it is current already, nothing is pushed.
            fake.change { $0.push(FakeDriver.context) }
            let pushes = fake.count("cuCtxPushCurrent")
            try device.launch(kernel, grid: (1, 1, 1), params)
            #expect(fake.count("cuCtxPushCurrent") == pushes)
            #expect(fake.read { $0.currentContext } == FakeDriver.context)
        }
    }

    @Test func tooMuchSharedMemoryIsFoundWhenLoading() throws {
        let folder = try TemporaryFolder()
        try FakeDriver.with { fake in
            let spec = KernelSpec(
                file: "test/stray.cuh", entry: "test_stray", threads: 1, sharedByteCount: 232_448, label: "test/large")
            let device = try fake.device(source: TestKernels.source([spec], in: folder))
            // 1,024 bytes are static, as the fake says.
            #expect {
                try device.kernel(spec)
            } throws: { "\($0)".contains("233472 bytes of shared memory") && "\($0)".contains("232448") }
        }
    }

    @Test func preloadLoadsAllSideBySide() throws {
        try withDevice { fake, device in
            try device.preload([TestKernels.add(), TestKernels.add(times: 2), TestKernels.add()])
            let loads = fake.count("cuModuleLoadData")
            #expect(loads == 2 || loads == 3)
            #expect(fake.live("module") == 2)
            _ = try device.kernel(TestKernels.add(times: 2))
            #expect(fake.count("cuModuleLoadData") == loads)
            #expect(throws: FlashInferError.self) { try device.preload([TestKernels.add(times: 3)]) }
        }
    }
}
