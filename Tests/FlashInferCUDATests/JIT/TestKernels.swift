import FlashInferCUDA
import TestSupport

/// Small texts and specs for tests, compiled where there is a compiler, or made up where none is needed.
enum TestKernels {
    /// The parameter of all of them.
    struct Params: BitwiseCopyable, Equatable {
        var address: UInt64
        var count: Int32
        var value: Float
    }

    static let texts = KernelTexts([
        "test/params.h": """
        typedef struct { unsigned long long address; int count; float value; } test_params;
        """,
        "test/add.cuh": """
        #include "test/params.h"
        #include "test/twice.cuh"
        // Adds twice the value, FI_TIMES times, to every element.
        extern "C" __global__ void __launch_bounds__(FI_THREADS) test_add(const __grid_constant__ test_params p) {
            int i = blockIdx.x * FI_THREADS + threadIdx.x;
            if (i < p.count)
                for (int times = 0; times < FI_TIMES; times++) ((float *)p.address)[i] += twice(p.value);
        }
        """,
        "test/twice.cuh": """
        static __device__ float twice(float x) { return 2 * x; }
        """,
        "test/wrong.cuh": """
        #include "test/wrong_inside.cuh"
        extern "C" __global__ void test_wrong(int p) {}
        """,
        "test/wrong_inside.cuh": """
        // The mistake is on the third line.

        static __device__ int mistake() { return no_such_name; }
        """,
        "test/stray.cuh": """
        #include "test/params.h"
        extern "C" __global__ void test_stray(const __grid_constant__ test_params p) { *(int *)p.address = p.count; }
        """,
        "test/lost.cuh": "#include \"no/such.cuh\"\n",
    ])

    /// Adds `times` × 2 × value.
    static func add(times: Int = 1, threads: Int = 64, label: String? = nil) -> KernelSpec {
        KernelSpec(
            file: "test/add.cuh", entry: "test_add", defines: [.init("FI_TIMES", times)], threads: threads,
            label: label ?? "test/add-x\(times)")
    }

    static let wrong = KernelSpec(file: "test/wrong.cuh", entry: "test_wrong", threads: 32, label: "test/wrong")
    static let stray = KernelSpec(file: "test/stray.cuh", entry: "test_stray", threads: 1, label: "test/stray")

    /// A source that has only made-up machine code for these specs, from a bundle, and no compiler.
    static func source(
        _ specs: [KernelSpec] = [add()], architecture: Architecture = Architecture("sm_90a")!,
        in folder: TemporaryFolder
    ) throws -> CubinSource {
        let compiler = KernelCompiler(texts: texts)
        let items = try specs.enumerated().map { index, spec in
            KernelBundle.Item(
                sourceKey: try compiler.sourceKey(for: spec, architecture: architecture), architecture: architecture,
                version: CompilerVersion(major: 13, minor: 0), label: spec.label,
                cubin: Array("machine code \(index)".utf8))
        }
        let path = folder.path("test.bundle")
        try KernelBundle.write(items, to: path)
        return CubinSource(compiler: compiler, driverVersion: 13_000, environment: environment(bundle: path))
    }

    /// An environment with nothing in it but what is given: no compiler, no cache.
    static func environment(bundle: String? = nil, cache: String? = nil, nvrtc: String? = nil) -> CUDAEnvironment {
        var environment = CUDAEnvironment()
        environment.bundle = bundle
        environment.cache = cache
        environment.nvrtc = nvrtc ?? "/no/such/libnvrtc.so"
        return environment
    }
}
