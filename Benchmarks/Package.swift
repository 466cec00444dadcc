// swift-tools-version: 6.3
import PackageDescription

// A package of its own, so that what only benchmarks need never reaches users.
let package = Package(
    name: "flashinfer-benchmarks",
    dependencies: [
        .package(name: "swift-flashinfer", path: ".."),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    ],
    targets: [
        // What this machine can do at most: multiply-adds from registers, reads from memory.
        .target(name: "CCeilings"),
        .executableTarget(
            name: "FlashInferBenchmarks",
            dependencies: [
                "CCeilings",
                .product(name: "FlashInferEngine", package: "swift-flashinfer"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: [.swiftLanguageMode(.v6)]),
    ],
    cLanguageStandard: .gnu17
)
