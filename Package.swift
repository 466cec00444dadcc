// swift-tools-version: 6.3
import PackageDescription

/// The settings of every Swift target: the upcoming language defaults, and C kept out of our own API.
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]

let package = Package(
    name: "swift-flashinfer",
    products: [
        .library(name: "FlashInfer", targets: ["FlashInfer"]),
        .library(name: "FlashInferCore", targets: ["FlashInferCore"]),
        .library(name: "FlashInferEngine", targets: ["FlashInferEngine"]),
        .library(name: "flashinfer_swift", type: .dynamic, targets: ["FlashInferC"]),
        .executable(name: "flashinfer", targets: ["FlashInferCLI"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/swiftlang/swift-docc-plugin", from: "1.5.0"),
    ],
    targets: [
        // Values and pure functions: dtypes, views, geometry, planning, errors, the Device protocol.
        .target(name: "FlashInferCore", swiftSettings: settings),

        // SIMD micro-kernels in C, one table per instruction set, chosen once from CPUID.
        .target(name: "CFlashInferCPU"),

        // Sockets between ranks.
        .target(name: "CRanks"),

        // The operations on a CPU: tiles over micro-kernels, on a persistent thread pool.
        .target(
            name: "FlashInferCPU", dependencies: ["FlashInferCore", "CFlashInferCPU", "CRanks"], swiftSettings: settings
        ),

        // The CUDA driver's, compiler's and library's functions as tables, filled by dlopen.
        .target(name: "CCUDA"),

        // The kernels' CUDA C++ text, embedded, and the C structs of their parameters.
        .target(name: "CUDAKernels", exclude: ["primitives", "portable", "hopper", "resources.txt"]),

        // The operations on NVIDIA GPUs: driver, run-time compilation, lowering, launches.
        .target(
            name: "FlashInferCUDA", dependencies: ["FlashInferCore", "CCUDA", "CUDAKernels"], swiftSettings: settings),

        // The public API.
        .target(
            name: "FlashInfer", dependencies: ["FlashInferCore", "FlashInferCPU", "FlashInferCUDA"],
            swiftSettings: settings),

        // The C ABI: its header, and its functions over the public API, as one dynamic library for callers without Swift.
        .target(name: "CFlashInfer"),
        .target(
            name: "FlashInferC",
            dependencies: ["FlashInfer", "FlashInferCore", "FlashInferCPU", "FlashInferCUDA", "CFlashInfer"],
            swiftSettings: settings),

        // An LLM engine on top: model files, tokenizer, scheduler, block pool, prefix cache, runner.
        .target(
            name: "FlashInferEngine",
            dependencies: [
                "FlashInfer",
                .product(name: "DequeModule", package: "swift-collections"),
            ],
            swiftSettings: settings),

        // The `flashinfer` command.
        .executableTarget(
            name: "FlashInferCLI",
            dependencies: [
                "FlashInferEngine", "FlashInferCUDA",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: settings),

        // Programs that a server author would start from.
        .executableTarget(
            name: "AttentionOnTensors", dependencies: ["FlashInfer"], path: "Examples/AttentionOnTensors",
            swiftSettings: settings),
        .executableTarget(
            name: "PagedDecodeLoop", dependencies: ["FlashInfer"], path: "Examples/PagedDecodeLoop",
            swiftSettings: settings),
        .executableTarget(
            name: "BatchGeneration", dependencies: ["FlashInferEngine"], path: "Examples/BatchGeneration",
            swiftSettings: settings),

        // Oracles, poisoned inputs and comparers shared by the tests.
        .target(
            name: "TestSupport", dependencies: ["FlashInferCore", "CRanks"], path: "Tests/TestSupport",
            swiftSettings: settings),
        .testTarget(
            name: "FlashInferCoreTests", dependencies: ["FlashInferCore", "TestSupport"], swiftSettings: settings),
        .testTarget(
            name: "FlashInferCPUTests", dependencies: ["FlashInferCPU", "CFlashInferCPU", "CRanks", "TestSupport"],
            swiftSettings: settings),
        .testTarget(
            name: "FlashInferCUDATests",
            dependencies: ["FlashInfer", "FlashInferCUDA", "CCUDA", "CUDAKernels", "TestSupport"],
            swiftSettings: settings),
        .testTarget(name: "FlashInferTests", dependencies: ["FlashInfer", "TestSupport"], swiftSettings: settings),
        .testTarget(
            name: "FlashInferCTests", dependencies: ["FlashInferC", "CFlashInfer", "FlashInfer", "TestSupport"],
            swiftSettings: settings),
        .testTarget(
            name: "FlashInferEngineTests", dependencies: ["FlashInferEngine", "TestSupport"], exclude: ["Fixtures"],
            swiftSettings: settings),
    ],
    cLanguageStandard: .gnu17
)
