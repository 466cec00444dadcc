import CCUDA
import FlashInferCUDA
import TestSupport
import Testing

/// What becomes of the driver's statuses.
struct ErrorTests {
    private let params = TestKernels.Params(address: 1, count: 0, value: 0)

    @Test func aStatusBecomesAnErrorWithTheCallAndTheDriversWords() throws {
        try FakeDriver.with { fake in
            let device = try fake.device()
            fake.fail("cuStreamSynchronize", FI_CU_INVALID_VALUE)
            #expect(
                throws: FlashInferError.deviceFailure(
                    call: "cuStreamSynchronize", message: "CUDA_ERROR_FAKE (1): invalid argument")
            ) { try device.synchronize() }
            // It was no lasting one.
            try device.synchronize()
        }
    }

    @Test func aStickyStatusPoisonsTheContext() throws {
        let folder = try TemporaryFolder()
        try FakeDriver.with { fake in
            let device = try fake.device(source: TestKernels.source(in: folder))
            let region = try device.allocate(byteCount: 64)
            let kernel = try device.kernel(TestKernels.add())
            fake.fail("cuLaunchKernel", FI_CU_ILLEGAL_ADDRESS)
            func says(_ error: any Error) -> Bool {
                let text = "\(error)"
                return text.contains("cuLaunchKernel failed: CUDA_ERROR_ILLEGAL_ADDRESS (700)")
                    && text.contains("restart of the process")
            }
            #expect { try device.launch(kernel, grid: (1, 1, 1), params) } throws: { says($0) }
            let calls = fake.totalCalls
            // Whatever is called next says what was found first, and calls the driver no more.
            #expect { try device.synchronize() } throws: { says($0) }
            #expect { try device.allocate(byteCount: 1) } throws: { says($0) }
            #expect { try device.fill(region, with: 0) } throws: { says($0) }
            #expect { try device.launch(kernel, grid: (1, 1, 1), params) } throws: { says($0) }
            #expect { try device.capture {} } throws: { says($0) }
            device.deallocate(region)
            #expect(fake.totalCalls == calls)
        }
    }

    @Test(arguments: [
        FI_CU_ECC_UNCORRECTABLE, FI_CU_ASSERT, FI_CU_LAUNCH_FAILED, FI_CU_MISALIGNED_ADDRESS, FI_CU_ILLEGAL_INSTRUCTION,
        FI_CU_LAUNCH_TIMEOUT, FI_CU_INVALID_PC,
    ])
    func otherStickyStatusesPoisonToo(status: Int) throws {
        try FakeDriver.with { fake in
            let device = try fake.device()
            fake.fail("cuStreamSynchronize", status)
            #expect(throws: FlashInferError.self) { try device.synchronize() }
            #expect { try device.synchronize() } throws: { "\($0)".contains("cuStreamSynchronize") }
        }
    }

    @Test func anEventFindsStickyStatusesToo() throws {
        try FakeDriver.with { fake in
            let device = try fake.device()
            let region = try device.allocate(byteCount: 8)
            try device.staging(byteCount: 8, to: region.address) { _ in }
            fake.fail("cuEventQuery", FI_CU_LAUNCH_FAILED)
            #expect { try device.staging(byteCount: 8, to: region.address) { _ in } } throws: {
                "\($0)".contains("cuEventQuery")
            }
            #expect { try device.synchronize() } throws: { "\($0)".contains("cuEventQuery") }
        }
    }

    @Test func anAbsentDriverSaysWhatWasLookedFor() throws {
        #expect {
            try CUDADriver.load(candidates: ["libno_such_cuda.so.1", "/no/such/folder/libno_such_cuda.so.1"])
        } throws: { error in
            let text = "\(error)"
            return text.contains("CUDA driver") && text.contains("libno_such_cuda.so.1")
                && text.contains("/no/such/folder") && text.contains("Install NVIDIA's driver")
        }
    }

    @Test func aLibraryThatIsNoDriverSaysWhatItLacks() throws {
        #expect {
            try CUDADriver.load(candidates: ["libm.so.6", "libm.dylib"])
        } throws: { "\($0)".contains("cuInit") && "\($0)".contains("too old") }
    }

    @Test func anOldDriverIsRefused() {
        FakeDriver.with { fake in
            fake.change { $0.version = 11_080 }
            #expect { try fake.driver() } throws: { "\($0)".contains("11.8") && "\($0)".contains("12.0") }
            #expect(fake.count("cuInit") == 0)
        }
    }

    @Test func anOldGPUIsRefused() {
        FakeDriver.with { fake in
            fake.change { $0.capability = (7, 5) }
            #expect { try fake.device() } throws: { "\($0)".contains("7.5") && "\($0)".contains("8.0") }
            #expect(fake.live("context") == 0)
        }
    }

    @Test func aGPUThatIsNotThereIsRefused() {
        FakeDriver.with { fake in
            #expect { try CUDADevice(driver: fake.driver(), ordinal: 1) } throws: {
                "\($0)" == "CUDA device is cuda:1, but must be in cuda:0 ... cuda:0"
            }
            #expect(throws: FlashInferError.self) { try CUDADevice(driver: fake.driver(), ordinal: -1) }
            fake.change { $0.deviceCount = 0 }
            #expect { try fake.device() } throws: { "\($0)".contains("this process sees none") }
        }
    }
}
