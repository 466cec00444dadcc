import FlashInfer
import FlashInferCUDA
import TestSupport
import Testing

/// Choosing a device, and saying what is missing.
struct DevicesTests {
    @Test func theCPUIsAlwaysThere() throws { #expect(try Devices.make(named: "cpu").id == .cpu) }

    @Test(arguments: ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1.0", "CUDA", "cuda:99999999999999999999"])
    func otherNamesAreErrors(name: String) {
        #expect { try Devices.make(named: name) } throws: {
            "\($0)" == "device is '\(name)', but must be cpu, cuda or cuda:N with N the GPU's number"
        }
    }

    @Test(.disabled(if: TestMachine.hasGPU, "there is a GPU here"))
    func withoutAGPUTheDefaultIsTheCPU() throws {
        #expect(try Devices.makeDefault().id == .cpu)
        #expect(throws: FlashInferError.self) { try Devices.make(named: "cuda") }
    }

    @Test(.enabled(if: TestMachine.hasGPU, TestMachine.needsGPU))
    func withAGPUTheDefaultIsTheGPU() throws {
        #expect(try Devices.makeDefault().id == .cuda(0))
        #expect(try Devices.make(named: "cuda:0").id == .cuda(0))
        #expect(throws: FlashInferError.self) { try Devices.make(named: "cuda:4096") }
    }

    @Test func theReportSaysWhatIsMissing() throws {
        let folder = try TemporaryFolder()
        let report = CUDAReport(
            environment: TestKernels.environment(cache: folder.path("cache")),
            driverCandidates: ["/no/such/libcuda.so.1"])
        let rows = Dictionary(uniqueKeysWithValues: report.rows.map { ($0.name, $0.value) })
        #expect(!report.isUsable)
        #expect(rows["driver"]?.contains("/no/such") == true)
        #expect(rows["NVRTC"]?.contains("pip install nvidia-cuda-nvrtc") == true)
        #expect(rows["kernel cache"]?.contains(folder.path("cache")) == true)
        #expect(rows["bundle"]?.contains("FLASHINFER_BUNDLE") == true)
        #expect(rows["verdict"] == "the CPU is used: there is no usable GPU")
    }

    @Test func theReportCountsCacheAndBundle() throws {
        let folder = try TemporaryFolder()
        _ = try TestKernels.source([TestKernels.add(), TestKernels.add(times: 2)], in: folder)
        DiskCache(folder: folder.path("cache")).keep([1, 2, 3], for: "k")
        let report = CUDAReport(
            environment: TestKernels.environment(bundle: folder.path("test.bundle"), cache: folder.path("cache")),
            driverCandidates: [])
        let rows = Dictionary(uniqueKeysWithValues: report.rows.map { ($0.name, $0.value) })
        #expect(rows["bundle"]?.hasSuffix("test.bundle, 2 kernels, sm_90a") == true)
        #expect(rows["kernel cache"]?.contains("1 kernels, 1 KiB") == true)
    }
}
