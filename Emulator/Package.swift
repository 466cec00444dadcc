// swift-tools-version: 6.2
import PackageDescription

// A CUDA driver without a GPU, for tests. A package of its own, as nothing that users build may depend on it.
let package = Package(
    name: "CUDAEmulator",
    products: [.library(name: "CUDAEmulator", type: .dynamic, targets: ["CUDAEmulator"])],
    targets: [
        .target(
            name: "CUDAEmulator",
            cxxSettings: [.define("_GNU_SOURCE")],
            linkerSettings: [.linkedLibrary("dl", .when(platforms: [.linux]))])
    ],
    cxxLanguageStandard: .cxx20
)
