import FlashInferCUDA
import Foundation
import TestSupport
import Testing

/// Bundles: written, damaged, and used where there is no compiler.
struct KernelBundleTests {
    private let sm90 = Architecture("sm_90a")!

    private func item(_ index: Int, size: Int = 100) -> KernelBundle.Item {
        KernelBundle.Item(
            sourceKey: String(repeating: "ab", count: 31) + String(index + 10), architecture: sm90,
            version: CompilerVersion(major: 13, minor: 0), label: "family/kernel-\(index)",
            cubin: (0..<size).map { UInt8(truncatingIfNeeded: $0 + index) })
    }

    @Test func comesBackAsItWent() throws {
        let folder = try TemporaryFolder()
        let items = [item(0), item(1, size: 0), item(2, size: 10_000)]
        try KernelBundle.write(items, to: folder.path("b"))
        let bundle = try KernelBundle(path: folder.path("b"))
        #expect(bundle.entries.count == 3)
        for item in items {
            let entry = try #require(bundle.entries[item.sourceKey])
            #expect(entry.label == item.label && entry.architecture == sm90 && entry.version == item.version)
            #expect(try bundle.cubin(entry) == item.cubin)
        }
        try KernelBundle.write([], to: folder.path("b"))
        #expect(try KernelBundle(path: folder.path("b")).entries.isEmpty)
    }

    @Test func everyTruncationIsAnError() throws {
        let folder = try TemporaryFolder()
        try KernelBundle.write([item(0), item(1)], to: folder.path("b"))
        let whole = try Data(contentsOf: URL(fileURLWithPath: folder.path("b")))
        for length in 0..<whole.count {
            try folder.write("b", whole.prefix(length))
            #expect(throws: FlashInferError.self, "\(length) bytes") {
                let bundle = try KernelBundle(path: folder.path("b"))
                for entry in bundle.entries.values { _ = try bundle.cubin(entry) }
            }
        }
    }

    @Test func everyChangedByteIsAnError() throws {
        let folder = try TemporaryFolder()
        try KernelBundle.write([item(0)], to: folder.path("b"))
        let whole = try Data(contentsOf: URL(fileURLWithPath: folder.path("b")))
        for position in whole.indices {
            var changed = whole
            changed[position] ^= 0x20
            try folder.write("b", changed)
            #expect(throws: FlashInferError.self, "byte \(position)") {
                let bundle = try KernelBundle(path: folder.path("b"))
                for entry in bundle.entries.values { _ = try bundle.cubin(entry) }
            }
        }
    }

    @Test func servesWhereThereIsNoCompiler() throws {
        let folder = try TemporaryFolder()
        let source = try TestKernels.source([TestKernels.add()], in: folder)
        #expect(try source.cubin(for: TestKernels.add(), architecture: sm90) == Array("machine code 0".utf8))
        #expect(source.statistics == CubinSource.Counts(bundled: 1, cached: 0, compiled: 0))
        try source.requireAvailable()
        #expect { try source.cubin(for: TestKernels.add(times: 5), architecture: sm90) } throws: {
            "\($0)".contains("test.bundle has no test/add-x5 for sm_90a") && "\($0)".contains("/no/such/libnvrtc.so")
        }
    }

    @Test func servesGPUsOfTheSameGeneration() throws {
        let folder = try TemporaryFolder()
        let source = try TestKernels.source(architecture: Architecture("sm_80")!, in: folder)
        #expect(try source.cubin(for: TestKernels.add(), architecture: Architecture("sm_89")!).count > 0)
        #expect(throws: FlashInferError.self) { try source.cubin(for: TestKernels.add(), architecture: sm90) }
    }

    @Test func doesNotServeAnOlderDriver() throws {
        let folder = try TemporaryFolder()
        _ = try TestKernels.source(in: folder)
        let source = CubinSource(
            compiler: KernelCompiler(texts: TestKernels.texts), driverVersion: 12_080,
            environment: TestKernels.environment(bundle: folder.path("test.bundle")))
        #expect(throws: FlashInferError.self) { try source.cubin(for: TestKernels.add(), architecture: sm90) }
    }

    @Test func aBundleThatWasNamedMustBeThere() throws {
        let source = CubinSource(
            compiler: KernelCompiler(texts: TestKernels.texts), driverVersion: nil,
            environment: TestKernels.environment(bundle: "/no/such/bundle"))
        #expect { try source.cubin(for: TestKernels.add(), architecture: sm90) } throws: {
            "\($0)".contains("/no/such/bundle")
        }
    }

    @Test func withNeitherBundleNorCompilerTheErrorSaysWhatWasLookedFor() throws {
        let source = CubinSource(
            compiler: KernelCompiler(texts: TestKernels.texts), driverVersion: nil,
            environment: TestKernels.environment())
        #expect { try source.requireAvailable() } throws: {
            "\($0)".contains("/no/such/libnvrtc.so") && "\($0)".contains("pip install nvidia-cuda-nvrtc")
        }
    }
}
