import FlashInferCUDA
import Foundation
import TestSupport
import Testing

/// Finding the compiler.
struct NVRTCTests {
    @Test func absentSaysWhatWasLookedForAndHowToGetIt() {
        #expect { try NVRTC(candidates: ["libno_such_nvrtc.so.13", "/no/such/folder/libnvrtc.so.13"]) } throws: {
            let text = "\($0)"
            return text.contains("NVRTC") && text.contains("/no/such/folder") && text.contains("FLASHINFER_NVRTC")
                && text.contains("pip install nvidia-cuda-nvrtc")
        }
    }

    @Test func aFileThatIsNoLibrarySaysSo() throws {
        let folder = try TemporaryFolder()
        let path = try folder.write("libnvrtc.so.13", Array("not a library".utf8))
        #expect { try NVRTC(candidates: [path]) } throws: { "\($0)".contains(path) && !"\($0)".contains("not found;") }
        #expect { try NVRTC(candidates: ["libm.so.6"]) } throws: { "\($0)".contains("nvrtcVersion") }
    }

    @Test func wheelsAreLookedForInPythonsFolders() throws {
        let folder = try TemporaryFolder()
        let site = folder.path("env/lib/python3.12/site-packages")
        try FileManager.default.createDirectory(atPath: site, withIntermediateDirectories: true)
        var environment = CUDAEnvironment()
        environment.prefixes = [folder.path("env")]
        let all = NVRTC.candidates(environment: environment)
        let new = try #require(all.firstIndex(of: site + "/nvidia/cu13/lib/libnvrtc.so.13"))
        let old = try #require(all.firstIndex(of: site + "/nvidia/cuda_nvrtc/lib/libnvrtc.so.12"))
        #expect(new < old)
        #expect(all.first == "libnvrtc.so.13")
    }

    @Test func aDriverOfCUDA12GetsNoCompilerOfCUDA13() {
        let names = NVRTC.candidates(driverVersion: 12_040, environment: CUDAEnvironment())
        #expect(names.first == "libnvrtc.so.12")
        #expect(!names.contains { $0.contains("so.13") })
    }

    @Test func theEnvironmentNamesTheFile() {
        var environment = CUDAEnvironment()
        environment.nvrtc = "/my/libnvrtc.so"
        #expect(NVRTC.candidates(driverVersion: 13_000, environment: environment) == ["/my/libnvrtc.so"])
    }
}
