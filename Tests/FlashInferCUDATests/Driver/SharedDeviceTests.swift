import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Several streams of one GPU, as the C ABI's callers have them.
@Suite struct SharedDeviceTests {
    @Test func streamsShareContextAndKernels() throws {
        let folder = try TemporaryFolder()
        try FakeDriver.with { fake in
            let caller = try fake.device()
            do {
                let base = try fake.device(source: TestKernels.source(in: folder))
                let other = try CUDADevice(sharing: base, stream: caller.stream)
                #expect(other.id == base.id && other.name == base.name && other.limits == base.limits)
                #expect(other.stream == caller.stream && other.stream != base.stream)
                let first = try base.kernel(TestKernels.add())
                let second = try other.kernel(TestKernels.add())
                #expect(first.handle == second.handle && fake.live("module") == 1)
                try other.launch(second, grid: (1, 1, 1), TestKernels.Params(address: 0, count: 1, value: 2))
                try other.synchronize()
                #expect(fake.read { $0.launches.map(\.stream) } == [caller.stream])
            }
            // The caller's stream is the caller's to destroy.
            #expect(fake.live("module") == 0 && fake.live("stream") == 1)
        }
    }

    /// As PyTorch captures: on a stream that it makes for that, which the library has not seen.
    @Test func aStreamMayBeMetWhileItIsRecorded() throws {
        let folder = try TemporaryFolder()
        try FakeDriver.with { fake in
            let caller = try fake.device()
            let base = try fake.device(source: TestKernels.source(in: folder))
            let kernel = try base.kernel(TestKernels.add())
            fake.change { $0.capture = [] }
            let other = try CUDADevice(sharing: base, stream: caller.stream)
            #expect(other.isCapturing)
            try other.launch(kernel, grid: (1, 1, 1), TestKernels.Params(address: 0, count: 1, value: 2))
            #expect(fake.read { $0.capture?.count } == 1 && fake.read(\.captureMode) == 0)
            fake.change { $0.capture = nil }
        }
    }

    @Test func tablesAreMadeOnceAndThereForEveryStream() throws {
        try FakeDriver.with { fake in
            let caller = try fake.device()
            let base = try fake.device()
            let parameters = RoPEParameters(theta: 500)
            let address: UInt
            do {
                let other = try CUDADevice(sharing: base, stream: caller.stream)
                address = try other.operations.turns(parameters, headDim: 64)
                // What was copied on the stream that the devices share has arrived, though nobody has waited for it.
                let table = try #require(UnsafePointer<UInt64>(bitPattern: address))
                #expect(table[0] != 0)
            }
            #expect(try base.operations.turns(parameters, headDim: 64) == address)
            let another = try CUDADevice(sharing: base, stream: caller.stream)
            #expect(try another.operations.turns(parameters, headDim: 64) == address)
        }
    }
}
